"""What only a GPU shows: every recipe is trained, resumed and used on one (``pytest -m slow tests/test_gpu.py``)."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import terminate_at
from recipes import RECIPES
from test_engine import table
from test_promise import NAMES, NEAR, config, summary

if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)

pytestmark = pytest.mark.slow
ON_GPU = ["--trainer.accelerator", "gpu", "--trainer.devices", "1"]
QUIET = ["--trainer.logger", "engine.loggers.TableLogger", "--trainer.log_every_n_steps", "1"]
ADDON = config("addons/gpu")


def fit(recipe: str, *flags: str) -> list[str]:
    small = RECIPES[recipe].small
    return ["fit", "--config", config(recipe), *small, *ON_GPU, *QUIET, "--trainer.max_epochs", "2", *flags]


def losses(number: int, recipe: str) -> list[float]:
    return [float(row["train/loss"]) for row in table(f"runs/{recipe}/{number}") if row["train/loss"]]


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(f"gpu {name}")) for name in NAMES])
def recipe(request: pytest.FixtureRequest, brief_lessons: None, brief_texts: None) -> str:
    return request.param


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_cpu_measures_the_same_net(recipe, precision, tasklight):
    code, _, err = tasklight(*fit(recipe, "--trainer.precision", precision))
    assert code == 0, err
    assert np.isfinite(losses(0, recipe)).all()
    on_gpu = summary(0, recipe)
    assert torch.cuda.get_device_name() in on_gpu["device"] and on_gpu["precision"] == precision
    code, out, err = tasklight(
        "test", "--config", config(recipe), "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"
    )
    assert code == 0, err
    on_cpu = {name: float(value) for name, value in re.findall(r"^(test/\S+)\s+(\S+)", out, re.MULTILINE)}
    primary = on_gpu["primary"]
    assert on_cpu[primary] == pytest.approx(on_gpu["metrics"][primary], abs=NEAR.get(primary, 0.02), rel=0.02)


def test_goes_on_and_predicts(recipe, tasklight, tmp_path, monkeypatch):
    assert tasklight(*fit(recipe))[0] == 0
    steps = summary(0, recipe)["steps"]
    with monkeypatch.context() as patch:
        terminate_at(steps // 2 + 2, patch)
        assert tasklight(*fit(recipe))[0] == 143
    code, _, err = tasklight("fit", "--config", f"runs/{recipe}/1/config.yaml", "--ckpt_path", f"runs/{recipe}/1")
    assert code == 0, err
    assert losses(1, recipe) == pytest.approx(losses(0, recipe), rel=0.05, abs=0.02)  # a GPU's sums vary
    inputs = RECIPES[recipe].inputs(tmp_path / "inputs")
    code, _, err = tasklight("predict", "--config", config(recipe), "--input", *inputs)
    assert code == 0, err
    assert Path(f"runs/{recipe}/1/predictions/index.html").is_file()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_steps_are_batches_a_thousand_times(precision, tasklight):
    flags = ["--trainer.precision", precision, "--trainer.max_epochs", "-1", "--trainer.max_steps", "1000"]
    code, _, err = tasklight(*fit("dcgan", *flags, "--data.batch_size", "4", "--test_after_fit", "false"))
    assert code == 0, err
    steps = [int(row["step"]) for row in table("runs/dcgan/0") if row["train/loss"]]
    assert steps == list(range(1000))
    assert torch.load("runs/dcgan/0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 1000


@pytest.mark.parametrize("recipe", ["unet", "dcgan", "gpt", "captcha_crnn"])
def test_learns_the_same_compiled(recipe, tasklight):
    assert tasklight(*fit(recipe, "--trainer.precision", "bf16-mixed", "--test_after_fit", "false"))[0] == 0
    code, _, err = tasklight(*fit(recipe, "--config", ADDON, "--test_after_fit", "false"))
    assert code == 0, err
    assert np.mean(losses(1, recipe)[-5:]) == pytest.approx(np.mean(losses(0, recipe)[-5:]), rel=0.1, abs=0.05)

"""The promises that every recipe keeps: recipes are found by their configs, each promise is proved for each.

``python -m tests.matrix`` runs this file whole and writes ``docs/promise.md``.
"""

import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import consumers
import numpy as np
import pytest
import torch
import wandb
import yaml
from conftest import ROOT, terminate_at
from PIL import Image
from recipes import RECIPES
from test_engine import one_line, table, weights

from engine.recipes import recipes
from tasks.translation import LONGEST

NAMES = [path.stem for path in recipes()]
TASKS = {path.stem: yaml.safe_load(path.read_text())["model"]["class_path"] for path in reversed(recipes())}
FIRST = {task: name for name, task in TASKS.items()}.values()  # a recipe of every task
EXPORTED = ("housing", "dcgan")  # the quickest
SHARED = ("transformer", "dcgan")  # they gather most over devices
# How near half precision comes: dB, and shares of 100; those of 1 by 0.02.
NEAR = {"test/psnr": 0.1, "test/psnr_y": 0.1, "test/chrf": 2.0}
EPOCHS = ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]


def config(recipe: str) -> str:
    return str(ROOT / "configs" / f"{recipe}.yaml")


def fit(recipe: str, *flags: str) -> list[str]:
    return ["fit", "--config", config(recipe), *RECIPES[recipe].small, *EPOCHS, *flags]


def quiet(recipe: str, *flags: str) -> list[str]:
    return fit(recipe, "--trainer.logger", "engine.loggers.TableLogger", "--trainer.log_every_n_steps", "1", *flags)


def summary(number: int, recipe: str) -> dict:
    return json.loads(Path(f"runs/{recipe}/{number}/summary.json").read_text())


def params(first: Iterable[str]) -> list:
    """Return all recipes, marked as slow but for some.

    Plain pytest proves the promises for a recipe of every task, those that take long for fewer; ``python -m
    tests.matrix`` proves all for all. Tests of a recipe run in one process, where they share a training.
    """
    slow = {name: [] if name in first else [pytest.mark.slow] for name in NAMES}
    return [pytest.param(name, marks=[pytest.mark.xdist_group(name), *slow[name]]) for name in NAMES]


@pytest.fixture(params=params(FIRST))
def recipe(request: pytest.FixtureRequest) -> str:
    assert request.param in RECIPES, f"tests/recipes.py does not say how to prove {request.param}"
    return request.param


@pytest.fixture(autouse=True)
def promised(request: pytest.FixtureRequest, brief_lessons: None, brief_texts: None) -> None:
    """Tell the matrix, which may be another process, what a test proves."""
    if marker := request.node.get_closest_marker("promise"):
        request.node.user_properties.append(("promise", [*marker.args, request.node.callspec.params["recipe"]]))


@pytest.fixture
def finished(
    recipe: str, tasklight: Callable, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return the folder of a training in small, run 0, which all promises of a recipe share; no network is there."""
    kept = tmp_path_factory.getbasetemp() / "finished" / recipe
    if not kept.exists():
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "connect", no_network)
            patch.setattr(socket, "getaddrinfo", no_network)
            code, _, err = tasklight(*quiet(recipe))
        assert code == 0, err
        shutil.copytree("runs", kept)
    else:
        shutil.copytree(kept, "runs")
    return Path("runs", recipe, "0")


def no_network(*_: object) -> None:
    raise OSError("no network")


def skip(recipe: str, promise: int) -> None:
    pytest.skip(RECIPES[recipe].reasons[promise])


@pytest.mark.promise(1, "fits offline")
def test_fits_offline(finished):
    for name in ("config.yaml", "command.txt", "environment.json", "metrics.csv", "summary.json"):
        assert (finished / name).is_file()
    assert (finished / "checkpoints/best.ckpt").is_file() and (finished / "checkpoints/last.ckpt").is_file()


@pytest.mark.promise(2, "learns: one batch by heart")
def test_learns_one_batch_by_heart(recipe, tasklight):
    flags = [*RECIPES[recipe].by_heart, "--test_after_fit", "false"]
    learned = RECIPES[recipe].learned
    flags += ["--trainer.check_val_every_n_epoch", "100" if learned.startswith("train/") else "20"]
    assert tasklight(*quiet(recipe, *flags))[0] == 0
    losses = [float(row[learned]) for row in table(f"runs/{recipe}/0") if row[learned]]
    assert np.mean(losses[-5:]) < 0.4 * losses[0]


@pytest.mark.promise(3, "is measured beside a baseline")
def test_is_measured_beside_a_baseline(recipe, finished):
    result = summary(0, recipe)
    primary = result["primary"]
    assert primary in result["metrics"] and np.isfinite(result["skill"])
    assert result["baseline"][primary] == pytest.approx(RECIPES[recipe].baseline(), rel=1e-4)


@pytest.mark.promise(4, "shows pictures, in the folder and on the dashboard")
def test_shows(recipe, tasklight, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert tasklight(*fit(recipe))[0] == 0
    folder = Path(f"runs/{recipe}/0")
    shown = {path.stem for path in (folder / "pictures").glob("*.png")}
    assert "curves" in shown and len(shown) >= 3
    for path in (folder / "pictures").glob("*.png"):
        assert np.asarray(Image.open(path)).std() > 5, f"{path} is empty"
    logged = " ".join(path.name for path in (folder / "wandb").rglob("*.png"))
    assert all(name in logged for name in shown)


@pytest.mark.promise(5, "predicts files")
def test_predicts(recipe, tasklight, finished, tmp_path):
    inputs = RECIPES[recipe].inputs(tmp_path / "inputs")
    written = []
    for _ in range(2):
        assert tasklight("predict", "--config", config(recipe), "--input", *inputs)[0] == 0
        folder = Path(f"runs/{recipe}/0/predictions")
        written.append({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    assert written[0] == written[1] and "index.html" in written[0]
    named = {Path(row["path"]).stem for row in csv.DictReader(io.StringIO(written[0]["predictions.csv"].decode()))}
    for path in (tmp_path / "inputs").iterdir():
        assert path.stem in named
        assert all(f"{path.stem}{ending}" in written[0] for ending in RECIPES[recipe].outputs)


@pytest.mark.promise(6, "takes own data by flags")
def test_takes_own_data(recipe, tasklight, tmp_path):
    own = RECIPES[recipe].own(tmp_path / "own")
    small = RECIPES[recipe].small[:2]
    code, _, err = tasklight(
        "fit", "--config", config(recipe), *small, *EPOCHS, *own, "--trainer.logger", "engine.loggers.TableLogger"
    )
    assert code == 0, err
    assert tasklight("test", "--config", config(recipe))[0] == 0


@pytest.mark.promise(7, "takes public data by an add-on")
def test_takes_public_data(recipe, tasklight, tmp_path):
    assert RECIPES[recipe].public or skip(recipe, 7)
    for addon, lay_out in RECIPES[recipe].public.items():
        flags = ["--config", str(ROOT / "configs" / "addons" / f"{addon}.yaml"), *lay_out(tmp_path / addon)]
        flags += [*RECIPES[recipe].small[:2], *EPOCHS, "--trainer.logger", "false"]
        code, _, err = tasklight("fit", "--config", config(recipe), *flags)
        assert code == 0, err


@pytest.mark.promise(8, "mixed precision")
def test_mixed_precision(recipe, tasklight, finished):
    assert tasklight(*quiet(recipe, "--trainer.precision", "bf16-mixed"))[0] == 0
    assert all(np.isfinite(float(row["train/loss"])) for row in table(f"runs/{recipe}/1") if row["train/loss"])
    full, half = (summary(number, recipe) for number in (0, 1))
    near = NEAR.get(full["primary"], 0.02)
    assert half["metrics"][half["primary"]] == pytest.approx(full["metrics"][full["primary"]], abs=near)
    assert half["precision"] == "bf16-mixed"


@pytest.mark.parametrize("recipe", params(SHARED), indirect=True)
@pytest.mark.promise(9, "several devices")
def test_several_devices(recipe, tasklight, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.translation.LONGEST", LONGEST)  # as the other processes have it
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED"):
        environment.pop(name, None)
    flags = ["--trainer.devices", "2", "--trainer.max_epochs", "1"]
    command = [sys.executable, str(ROOT / "train.py"), *quiet(recipe, *flags)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "runs" / recipe).iterdir()] == ["0"]
    code, out, err = tasklight("test", "--config", config(recipe), "--trainer.devices", "1")
    assert code == 0, err
    alone = {name: float(value) for name, value in re.findall(r"^(test/\S+)\s+(\S+)", out, re.MULTILINE)}
    together = summary(0, recipe)["metrics"]
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        assert value == pytest.approx(together[name], rel=1e-4, abs=2e-4), name  # as printed, with four digits


@pytest.mark.promise(10, "resumes exactly")
def test_resumes_exactly(recipe, tasklight, finished, monkeypatch):
    steps = summary(0, recipe)["steps"]
    with monkeypatch.context() as patch:
        terminate_at(steps // 2 + 2, patch)
        assert tasklight(*quiet(recipe))[0] == 143
    assert tasklight("fit", "--config", f"runs/{recipe}/1/config.yaml", "--ckpt_path", f"runs/{recipe}/1")[0] == 0
    ends = [torch.load(f"runs/{recipe}/{n}/checkpoints/last.ckpt", weights_only=True) for n in (0, 1)]
    for name, value in ends[0]["state_dict"].items():
        assert torch.equal(value, ends[1]["state_dict"][name]), name
    assert Path(f"runs/{recipe}/0/metrics.csv").read_bytes() == Path(f"runs/{recipe}/1/metrics.csv").read_bytes()
    assert summary(0, recipe)["metrics"] == summary(1, recipe)["metrics"]


@pytest.mark.promise(11, "loads safely and alone")
def test_loads_safely_and_alone(finished):
    path = finished / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    module, _, name = checkpoint["hyper_parameters"]["_class_path"].rpartition(".")
    task = getattr(sys.modules[module], name).load_from_checkpoint(path, weights_only=True)
    for key, value in task.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][key])


@pytest.mark.parametrize("recipe", params(EXPORTED), indirect=True)
@pytest.mark.promise(12, "exports, and programs without PyTorch answer the same")
def test_exports(recipe, tasklight, finished, tmp_path):
    run = finished
    if consumers.program_of(recipe) in ("continue.py", "read.py", "translate.py"):  # in small, nets have nothing to say
        flags = ["--test_after_fit", "false", "--trainer.check_val_every_n_epoch", "100", "--trainer.logger", "false"]
        command = ["fit", "--config", config(recipe), *EPOCHS, *RECIPES[recipe].by_heart, *flags]
        assert tasklight(*command)[0] == 0
        run = finished.with_name("1")
    code, out, err = tasklight("export", "--ckpt_path", str(run))
    assert code == 0, err
    content = json.loads((run / "export" / "model.json").read_text("utf-8"))
    assert f"largest error {content['max_error']:.1e}" in out and content["max_error"] <= 1e-4
    for given in content["inputs"]:
        if len(given["shape"]) == 4:
            assert given["shape"][0::2] == ["batch", "height"] and given["shape"][3] == "width"
        elif given["name"] in ("features", "z") or recipe == "xor":
            assert given["shape"][0] == "batch" and isinstance(given["shape"][1], int)
        else:
            assert given["shape"][0] == "batch" and given["shape"][1].endswith("length")
    consumers.compare(recipe, run, tasklight, tmp_path)


@pytest.mark.slow
@pytest.mark.promise(13, "compiles")
def test_compiles(recipe, tasklight, finished):
    addon = ["--config", str(ROOT / "configs/addons/gpu.yaml"), "--trainer.precision", "32-true"]
    assert tasklight(*quiet(recipe, *addon, "--test_after_fit", "false"))[0] == 0
    eager, compiled = (table(f"runs/{recipe}/{number}") for number in (0, 1))
    for step, (one, other) in enumerate(zip(eager[:5], compiled[:5], strict=True)):
        allowed = 1e-3 * 2**step  # sums in another order differ by a rounding, which Adam makes grow
        assert float(other["train/loss"]) == pytest.approx(float(one["train/loss"]), rel=allowed)
    first, second = (weights(f"runs/{recipe}/{number}/checkpoints/last.ckpt") for number in (0, 1))
    assert first.keys() == second.keys()


@pytest.mark.promise(14, "is configurable by flags")
def test_is_configurable(recipe, tasklight):
    others = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.01"]
    others += ["--model.scheduler", "torch.optim.lr_scheduler.StepLR", "--model.scheduler.step_size", "1"]
    code, printed, err = tasklight(*fit(recipe, *others, "--print_config"))
    assert code == 0, err
    Path("printed.yaml").write_text(printed)
    again = tasklight("fit", "--config", "printed.yaml", "--print_config")[1]
    assert yaml.safe_load(again) == yaml.safe_load(printed)
    assert tasklight(*quiet(recipe, *others))[0] == 0
    assert tasklight("fit", "--config", f"runs/{recipe}/0/config.yaml")[0] == 0
    assert summary(0, recipe)["metrics"] == summary(1, recipe)["metrics"]


@pytest.mark.promise(15, "refuses well")
def test_refuses_well(recipe, tasklight, tmp_path):
    own = RECIPES[recipe].own(tmp_path / "own")
    for flags, word in (
        (["--model.nett.width", "1"], "net"),
        ([*own[:-1], "nowhere"], "nowhere"),
        ([*own[:-1], str(Path("empty").absolute())], "empty"),
        (["--ckpt_path", "last"], "checkpoint"),
    ):
        Path("empty").mkdir(exist_ok=True)
        code, _, err = tasklight("fit", "--config", config(recipe), *flags)
        assert code == 2 and word in one_line(err)
    assert not list(Path().glob("runs/*/*"))


def test_the_matrix_is_whole():
    """Every recipe and every promise proved here stands in ``docs/promise.md``."""
    page = (ROOT / "docs" / "promise.md").read_text("utf-8")
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    for name in NAMES:
        assert name in rows, f"{name} is missing: python -m tests.matrix"
        assert "|  |" not in rows[name] and "failed" not in rows[name]


def test_wandb_is_left_alone():
    assert wandb.run is None

"""The doctor: for each ailment a small training that has it, typed as a user types it; and trainings that have none."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, terminate_at
from recipes import RECIPES
from test_engine import one_line, weights

import engine.ailments
from datamodules.tabular import TabularCSVDataModule
from engine.doctor import Doctor
from engine.watch import Watch
from tasks.classification import ClassificationTask

QUIET = ["--trainer.logger", "engine.loggers.TableLogger", "--trainer.accelerator", "cpu"]


def config(recipe: str) -> str:
    return str(ROOT / "configs" / f"{recipe}.yaml")


def points(rows: int, wrong: float = 0.0) -> list[str]:
    """Write a table of numbers whose class is told by three of six, but for a share of wrong ones; return the flags."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(rows, 6)).round(5)
    classes = 2 * (numbers[:, 0] > 0) + (numbers[:, 1] * numbers[:, 2] > 0)
    chosen = rng.random(rows) < wrong
    classes[chosen] = rng.permutation(classes[chosen])
    table = pd.DataFrame(numbers, columns=list("abcdef")).assign(kind=[f"kind {number}" for number in classes])
    table.to_csv("points.csv", index=False)
    return ["--data", "datamodules.tabular.TabularCSVDataModule", "--data.root", "points.csv", "--data.target", "kind"]


def learn(*flags: str, hidden: str = "[64, 64]", lr: str = "5e-3", epochs: int = 40) -> list[str]:
    """Return the command of a training on such a table."""
    net = ["--model.net.hidden", hidden, "--model.net.activation", "relu", "--model.optimizer.lr", lr]
    return ["fit", "--config", config("xor"), *QUIET, *net, "--trainer.max_epochs", str(epochs), *flags]


def told(recipe: str = "xor", number: int = 0) -> dict[str, str]:
    """Return what the doctor has said in a run, by ailment."""
    summary = json.loads(Path(f"runs/{recipe}/{number}/summary.json").read_text())
    return {said["ailment"]: said["says"] for said in summary["doctor"]}


def assert_told_twice(out: str, says: str) -> None:
    """Assert that a line was printed when it was found, and in the closing table."""
    first, advice = says.splitlines()
    assert out.count(f"doctor  {first}") == out.count(advice) == 2
    assert out.index(first) < out.index("this run  baseline") < out.rindex(first)


def test_a_healthy_training_hears_nothing(tasklight):
    code, out, _ = tasklight(*learn(*points(600)))
    assert code == 0 and told() == {} and "doctor" not in out


def test_a_learning_rate_far_too_high(tasklight):
    code, out, _ = tasklight(*learn(*points(600), lr="1000", epochs=10))
    assert code == 0
    ((ailment, says),) = told().items()
    assert ailment == "exploding" and "the learning rate, 1000, is too high: try --model.optimizer.lr 0.001" in says
    assert_told_twice(out, says)
    step = json.loads(Path("runs/xor/0/summary.json").read_text())["doctor"][0]["step"]
    assert step == 4  # behind the third look at a training so short


def test_ten_samples(tasklight):
    code, out, _ = tasklight(*learn(*points(10)))
    assert code == 0
    ((ailment, says),) = told().items()
    assert ailment == "few_samples" and "8 training samples for 5,252 weights" in says
    assert_told_twice(out, says)


def test_shuffled_labels(tasklight):
    code, _, _ = tasklight(*learn(*points(1000, wrong=1), hidden="[256, 256]", epochs=60))
    assert code == 0 and list(told()) == ["overfitting", "no_better"]
    assert all("look whether labels belong to their inputs" in says for says in told().values())
    assert re.search(
        r"test/accuracy is 0\.\d+ on 100 samples, the baseline's 0\.\d+, though the training loss has fallen",
        told()["no_better"],
    )


def test_nothing_to_learn_and_too_little_to_learn_it_by_heart(tasklight):
    code, out, _ = tasklight(*learn(*points(1000, wrong=1), hidden="[4]", epochs=10))
    assert code == 0 and list(told()) == ["no_better"]
    assert "has learned nothing of use" in out and "now 0.005" in out


def test_overfitting(tasklight):
    code, out, _ = tasklight(*learn(*points(300, wrong=0.3), hidden="[128, 128]", epochs=80))
    assert code == 0
    ((ailment, says),) = told().items()
    assert ailment == "overfitting" and "more data" in says
    assert_told_twice(out, says)


def test_a_deep_net_of_sigmoids(tasklight):
    deep = learn(*points(600), "--model.net.activation", "sigmoid", hidden=str([16] * 30), epochs=5)
    code, out, _ = tasklight(*deep)
    assert code == 0 and list(told()) == ["vanishing"]
    assert "first layer, net.layers.0, is" in out and "of the last, net.head" in out and "activation relu" in out


def test_a_shallow_net_of_sigmoids_is_no_ailment(tasklight):
    shallow = learn(*points(600), "--model.net.activation", "sigmoid", hidden=str([16] * 3), epochs=20, lr="0.05")
    assert tasklight(*shallow)[0] == 0 and "vanishing" not in told()


def test_dead_units(tasklight, monkeypatch):
    original = ClassificationTask.configure_optimizers

    def bury(task):
        with torch.no_grad():
            task.net.layers[3].bias.fill_(-100)  # as one step that was far too long leaves it
        return original(task)

    monkeypatch.setattr(ClassificationTask, "configure_optimizers", bury)
    code, out, _ = tasklight(*learn(*points(600), epochs=10))
    assert code == 0 and list(told()) == ["dead"]
    assert "100% of the units of net.layers.3 are dead" in out and "--model.optimizer.lr 0.0005" in out


def test_data_slower_than_the_net(tasklight, monkeypatch):
    original = TabularCSVDataModule.on_after_batch_transfer

    def dawdle(data, batch, index):
        time.sleep(0.02)
        return original(data, batch, index)

    monkeypatch.setattr(TabularCSVDataModule, "on_after_batch_transfer", dawdle)
    monkeypatch.setattr(engine.ailments, "WAITED", 0.5)
    flags = learn(*points(600), "--data.batch_size", "16", epochs=2)
    assert tasklight(*flags)[0] == 0
    assert list(told()) == ["slow_data"]
    step, wait = (float(number) for number in re.findall(r"([\d.]+) ms", told()["slow_data"]))
    assert step < 20 <= wait
    monkeypatch.setattr(engine.ailments, "WAITED", 1000)
    assert tasklight(*flags)[0] == 0 and told(number=1) == {}


def test_a_net_that_reads_only_blanks(tasklight):
    small = [*RECIPES["captcha_crnn"].small, "--trainer.max_epochs", "2"]
    code, out, _ = tasklight("fit", "--config", config("captcha_crnn"), *QUIET, *small)
    assert code == 0 and list(told("captcha_crnn")) == ["only_blanks"]
    assert "the net reads nothing: 100.0% of its answers are blanks" in out


@pytest.mark.parametrize("lr, ailments", [("0.02", ["discriminator_has_won"]), ("5e-4", [])])
@pytest.mark.slow
def test_a_discriminator_that_has_won(tasklight, lr, ailments):
    flags = [*RECIPES["dcgan"].small, "--trainer.max_epochs", "8", "--trainer.log_every_n_steps", "5"]
    rates = ["--model.optimizer_d.lr", lr, "--model.optimizer.lr", "1e-6" if ailments else "1e-3"]
    assert tasklight("fit", "--config", config("dcgan"), *QUIET, *flags, *rates)[0] == 0
    assert list(told("dcgan")) == ailments


# A loss that is no number


@pytest.fixture
def step_of(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Return a function that lets something happen to task and batch at the start of the step of a number."""
    original = ClassificationTask.training_step

    def at(step: int, happen: Callable) -> None:
        def training_step(task, batch, batch_idx):
            if task.global_step == step:
                happen(task, batch)
            return original(task, batch, batch_idx)

        monkeypatch.setattr(ClassificationTask, "training_step", training_step)

    return at


def spoil_sample(task, batch):
    batch["features"][5, 2] = torch.nan


def spoil_layer(task, batch):
    task.net.layers[3].register_forward_hook(lambda layer, inputs, output: output / 0)


def spoil_gradient(task, batch):
    task.net.layers[0].weight.register_hook(lambda gradient: gradient * torch.nan)


def spoil_scale(task, batch):
    task.mean.fill_(torch.nan)


@pytest.mark.parametrize(
    "happen, batch, words",
    [
        (spoil_sample, 3, ["features of sample 5 of the batch holds NaN", "leave it out"]),
        (spoil_layer, 3, ["first layer to answer with none is net.layers.3", "learning rate (now 0.005)"]),
        (spoil_gradient, 4, ["weights net.layers.0.weight are no numbers", "gradient_clip_val"]),
        (spoil_scale, 3, ["mean is NaN", "data"]),
    ],
)
def test_a_loss_that_is_no_number_is_traced(tasklight, step_of, happen, batch, words):
    flags = learn(*points(600), "--data.batch_size", "32", epochs=2)  # 15 batches an epoch
    step_of(18, happen)
    code, _, err = tasklight(*flags)
    line = one_line(err)
    assert code == 2 and f"the loss of batch {batch} of epoch 1 is not a finite number" in line
    assert all(word in line for word in words) and "last checkpoint is from before" in line
    assert all(value.isfinite().all() for value in weights("runs/xor/0/checkpoints/last.ckpt").values())


def test_a_loss_that_is_none_of_its_own_accord(tasklight, monkeypatch):
    monkeypatch.setattr(ClassificationTask, "training_step", lambda task, batch, _: task(batch["features"]).sum() / 0)
    code, _, err = tasklight(*learn(*points(600)))
    assert (
        code == 2
        and "all layers answer with numbers, the loss does not; lower the learning rate (now 0.005), take another loss"
        in one_line(err)
    )
    assert not Path("runs").exists() and "checkpoint" not in err


def test_where_a_device_must_not_be_waited_for_the_loss_is_looked_at_now_and_then(tasklight, step_of, monkeypatch):
    original = Watch.on_train_start

    def as_on_a_gpu(watch, trainer, task):
        original(watch, trainer, task)
        watch.at_once = False

    monkeypatch.setattr(Watch, "on_train_start", as_on_a_gpu)
    step_of(3, spoil_sample)
    code, _, err = tasklight(*learn(*points(600), "--data.batch_size", "32", epochs=2))
    assert code == 2 and "batch 3 of epoch 0" in one_line(err) and "log_every_n_steps 1 names sample and layer" in err


def test_weights_that_the_last_batch_has_spoilt_reach_no_checkpoint(tasklight, step_of):
    step_of(29, spoil_gradient)
    code, _, err = tasklight(*learn(*points(600), "--data.batch_size", "32", epochs=2))
    assert code == 2 and "behind batch 14 of epoch 1 the weights net.layers.0.weight are no numbers" in one_line(err)
    assert all(value.isfinite().all() for value in weights("runs/xor/0/checkpoints/last.ckpt").values())


# What the doctor must not do


def test_the_doctor_changes_nothing(tasklight, monkeypatch):
    small = ["fit", "--config", config("housing"), *QUIET, "--model.net.members", "2", "--trainer.max_epochs", "4"]
    small += ["--test_after_fit", "false"]
    assert tasklight(*small)[0] == 0  # with dropout, which draws random numbers
    for hook in ("on_train_start", "on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end"):
        monkeypatch.setattr(Doctor, hook, lambda *_: None)
    assert tasklight(*small)[0] == 0
    first, second = (weights(f"runs/housing/{number}/checkpoints/last.ckpt") for number in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert Path("runs/housing/0/metrics.csv").read_bytes() == Path("runs/housing/1/metrics.csv").read_bytes()


def test_a_resumed_training_neither_repeats_nor_forgets(tasklight, step_of):
    flags = learn(*points(10), epochs=40)
    with pytest.MonkeyPatch.context() as patch:
        terminate_at(20, patch)
        code, out, _ = tasklight(*flags)
    assert code == 143 and out.count("8 training samples") == 1
    code, out, _ = tasklight("fit", "--config", "runs/xor/0/config.yaml", "--ckpt_path", "runs/xor/0")
    assert code == 0 and list(told()) == ["few_samples"]
    assert out.count("8 training samples") == 1 and out.index("baseline") < out.index("8 training samples")


@pytest.mark.slow
def test_of_several_devices_one_speaks(tasklight, tmp_path):
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *learn(*points(600), "--data.batch_size", "32", lr="1000", epochs=10),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [*command, "--trainer.devices", "2"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert list(told()) == ["exploding"]
    assert_told_twice(done.stdout, told()["exploding"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", ["xor", "housing", "mlp", "cnn", "stock_rnn", "stock_linear", "denoising_autoencoder"]
)
def test_a_recipe_as_it_is_hears_nothing(tasklight, recipe):
    code, out, _ = tasklight("fit", "--config", config(recipe), *QUIET)
    assert code == 0 and told(recipe) == {} and "doctor" not in out

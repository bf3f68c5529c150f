"""Adversaries: losses that a person can compute, turns that leave the other alone, steps counted as batches."""

import csv
import json
import os
import subprocess
import sys
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, write_class_folders
from PIL import Image
from test_engine import one_line, table, weights
from torch import nn

from datamodules.digits import DigitsDataModule
from nets.cnn import CNN
from tasks.adversarial_losses import discriminator_loss, generator_loss, slope_penalty
from tasks.differentiable_augmentation import augmented
from tasks.gan import GANTask, moving_average, nearest
from tasks.judges import pictures_of, taught
from tasks.latents import between, latents, latents_for, nearest_made

DCGAN, WGAN = (str(ROOT / "configs" / f"{name}.yaml") for name in ("dcgan", "wgan_gp"))
NARROW = ["--model.net.width", "4", "--model.discriminator.width", "4", "--data.num_train", "200"]
SMALL = [*NARROW, "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]
QUIET = ["--trainer.logger", "engine.loggers.TableLogger", "--trainer.log_every_n_steps", "1"]


def test_losses_of_known_numbers():
    zero, two = torch.zeros(3), torch.full((3,), 2.0)
    assert float(discriminator_loss("non_saturating", zero, zero)) == pytest.approx(2 * log(2))
    assert float(generator_loss("non_saturating", zero)) == pytest.approx(log(2))
    assert float(discriminator_loss("hinge", two, -two)) == 0
    assert float(discriminator_loss("hinge", zero, two)) == 1 + 3
    assert float(discriminator_loss("wasserstein", two, zero)) == -2
    assert float(generator_loss("hinge", two)) == float(generator_loss("wasserstein", two)) == -2


def test_the_penalty_is_that_of_the_slope():
    plane = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False), nn.Flatten(0))
    nn.init.constant_(plane[1].weight, 1.5)  # a slope of 3 everywhere
    penalty = slope_penalty(plane, torch.rand(5, 1, 2, 2), torch.rand(5, 1, 2, 2))
    assert float(penalty.detach()) == pytest.approx(4)
    penalty.backward()
    assert plane[1].weight.grad.abs().min() > 0


def test_averages_remember_more_and_more():
    averages, follow = [torch.zeros(2), torch.tensor(3)], moving_average(0.5)
    follow(averages, [torch.ones(2), torch.tensor(7)], torch.tensor(1))
    assert averages[0].tolist() == pytest.approx([9 / 11, 9 / 11]) and int(averages[1]) == 7  # 2 of 11 steps
    follow(averages, [torch.zeros(2), torch.tensor(8)], 1000)
    assert averages[0].tolist() == pytest.approx([4.5 / 11, 4.5 / 11])


def test_a_picture_has_the_same_latent_vector_in_any_batch():
    pictures = torch.rand(3, 1, 4, 4)
    together = latents_for(pictures, 8)
    assert torch.equal(together[1], latents_for(pictures[1:2], 8)[0])
    assert not torch.equal(together[0], together[1])


def test_a_walk_goes_from_end_to_end_without_losing_its_length():
    start, end = latents([1, 2], 64)
    torch.testing.assert_close(between(start, end, 0.0), start)
    torch.testing.assert_close(between(start, end, 1.0), end)
    lengths = [float(between(start, end, share).norm()) for share in np.linspace(0, 1, 9)]
    assert min(lengths) > 0.9 * min(lengths[0], lengths[-1])  # the straight way would lose 30 %


def test_the_nearest_picture():
    among = torch.stack([torch.full((1, 2, 2), value, dtype=torch.uint8) for value in (0, 153, 255)])
    distances, places = nearest(torch.full((1, 1, 2, 2), 0.7), among.repeat(900, 1, 1, 1))
    assert float(distances) == pytest.approx(0.1, abs=1e-3) and int(places) % 3 == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_lets_gradients_through_and_changes_every_picture(channels):
    torch.manual_seed(0)
    pictures = torch.rand(8, channels, 16, 16).requires_grad_(True)
    changed = augmented(2 * pictures - 1)
    assert changed.shape == pictures.shape and not (changed == 2 * pictures - 1).flatten(1).all(1).any()
    changed.sum().backward()
    assert (pictures.grad != 0).flatten(1).any(1).all()


@pytest.fixture(scope="module")
def digits() -> DigitsDataModule:
    return DigitsDataModule(degrees=0, scale=0, num_train=1000)


def test_a_judge_knows_its_pictures_and_is_always_the_same(digits):
    before = torch.get_rng_state()
    judges = [taught(lambda: CNN(1, 10, width=8), digits, 10, 150, torch.device("cpu")) for _ in range(2)]
    assert torch.equal(before, torch.get_rng_state())
    pictures, labels = pictures_of(digits, "test")
    for judge in judges:
        assert float((judge(pictures / 255).argmax(1) == labels).float().mean()) > 0.85
        assert not any(parameter.requires_grad for parameter in judge.parameters())
    for one, other in zip(*(judge.state_dict().values() for judge in judges), strict=True):
        assert torch.equal(one, other)


def test_without_classes_a_judge_tells_turns(digits):
    judge = taught(lambda: CNN(1, 4, width=8), digits, 0, 150, torch.device("cpu"))
    pictures = pictures_of(digits, "test")[0] / 255
    right = [float((judge(pictures.rot90(turns, (2, 3))).argmax(1) == turns).float().mean()) for turns in range(4)]
    assert min(right) > 0.7


def states(path: str) -> tuple[dict, dict]:
    """Return the weights of generator and discriminator of a checkpoint."""
    state = torch.load(path, weights_only=True)["state_dict"]
    return tuple({k: v for k, v in state.items() if k.startswith(part)} for part in ("net.", "discriminator."))


@pytest.mark.parametrize("still", ["optimizer", "optimizer_d"])
def test_a_turn_leaves_the_opponent_alone(tasklight, still):
    flags = [*SMALL, *QUIET, f"--model.{still}.lr", "0", "--trainer.max_steps"]
    for steps in ("1", "4"):
        assert tasklight("fit", "--config", DCGAN, *flags, steps, "--test_after_fit", "false")[0] == 0
    (net_1, d_1), (net_4, d_4) = (states(f"runs/dcgan/{number}/checkpoints/last.ckpt") for number in (0, 1))
    moved = {"net": net_1, "d": d_1}, {"net": net_4, "d": d_4}
    same, other = ("net", "d") if still == "optimizer" else ("d", "net")
    trained = [name for name in moved[0][same] if name.endswith(("weight", "bias"))]
    assert trained and all(torch.equal(moved[0][same][name], moved[1][same][name]) for name in trained)
    assert not all(torch.equal(value, moved[1][other][name]) for name, value in moved[0][other].items())


@pytest.mark.parametrize("config", [DCGAN, WGAN])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_steps_are_batches(tasklight, config, precision):
    flags = [*SMALL, *QUIET, "--trainer.precision", precision, "--data.batch_size", "10"]
    assert tasklight("fit", "--config", config, *flags)[0] == 0
    name = Path(config).stem
    assert json.loads(Path(f"runs/{name}/0/summary.json").read_text())["steps"] == 2 * 20
    steps = [int(row["step"]) for row in table(f"runs/{name}/0") if row["train/loss"]]
    assert steps == list(range(40))


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["1", "2"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_steps_are_batches_a_thousand_times(tmp_path, precision, devices):
    command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", DCGAN, *SMALL, *QUIET]
    command += ["--trainer.max_epochs", "-1", "--trainer.max_steps", "1000", "--data.batch_size", "4"]
    command += ["--trainer.precision", precision, "--trainer.devices", devices]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "runs/dcgan/0/metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == list(range(1000))
    assert torch.load(tmp_path / "runs/dcgan/0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 1000


def test_the_generator_waits_for_its_turn(tasklight):
    flags = [*SMALL, *QUIET, "--model.steps_d", "3", "--data.batch_size", "20", "--trainer.max_epochs", "1"]
    assert tasklight("fit", "--config", WGAN, *flags)[0] == 0
    taken = [bool(row["train/generator_loss"]) for row in table("runs/wgan_gp/0") if row["train/loss"]]
    assert taken == [False, False, True] * 3 + [False]


def test_accumulated_batches_make_one_step(tasklight):
    flags = [*SMALL, *QUIET, "--model.accumulate", "4", "--data.batch_size", "20", "--trainer.max_epochs", "1"]
    assert tasklight("fit", "--config", WGAN, *flags)[0] == 0
    assert json.loads(Path("runs/wgan_gp/0/summary.json").read_text())["steps"] == 3  # of 4, 4 and 2 batches


def test_clipped_gradients_move_plain_descent_by_no_more(tasklight):
    sgd = ["--model.optimizer_d", "torch.optim.SGD", "--model.optimizer_d.lr", "1"]
    sgd += ["--model.scheduler", "torch.optim.lr_scheduler.ConstantLR", "--model.scheduler.factor", "1"]
    for steps in ("1", "2"):
        flags = [*SMALL, *QUIET, *sgd, "--model.clip", "1e-3", "--trainer.max_steps", steps]
        assert tasklight("fit", "--config", WGAN, *flags, "--test_after_fit", "false")[0] == 0
    before, after = (weights(f"runs/wgan_gp/{number}/checkpoints/last.ckpt") for number in (0, 1))
    names = [name for name in before if name.startswith("discriminator.")]
    moved = torch.cat([(after[name] - before[name]).flatten() for name in names]).norm()
    assert 0.9e-3 < float(moved) < 1.001e-3


def test_names_make_pictures_and_pictures_find_theirs(tasklight):
    assert tasklight("fit", "--config", DCGAN, *SMALL, "--trainer.logger", "false")[0] == 0
    assert tasklight("predict", "--config", DCGAN, "--prompt", "하나", "two")[0] == 0
    folder = Path("runs/dcgan/0/predictions")
    one, two = (np.asarray(Image.open(folder / f"{name}_generated.png")) for name in ("하나", "two"))
    assert one.shape == (28, 28, 3) and not np.array_equal(one, two)
    assert tasklight("predict", "--config", DCGAN, "--prompt", "two")[0] == 0
    assert np.array_equal(two, np.asarray(Image.open(folder / "two_generated.png")))
    Image.fromarray(two).save("again.png")
    assert tasklight("predict", "--config", DCGAN, "--input", "again.png")[0] == 0
    assert Image.open(folder / "again_generated.png").size == (28, 28)
    task = GANTask.load_from_checkpoint("runs/dcgan/0/checkpoints/best.ckpt", weights_only=True).eval()
    with torch.no_grad():
        wanted = task(latents([4711], 64))
        typical = (task(latents(range(50), 64)) - wanted).square().mean((1, 2, 3)).sqrt().mean()
    found, error = nearest_made(task, wanted, task.latent_dim)
    assert float((found - wanted[0]).square().mean().sqrt()) == pytest.approx(error, rel=1e-4)
    assert error < 0.3 * float(typical)


def test_pictures_without_classes(tasklight, tmp_path):
    write_class_folders(tmp_path / "all")
    own = ["--data", "datamodules.picture_folder.PictureFolderDataModule", "--data.root", str(tmp_path / "all")]
    flags = [*SMALL[:4], "--data.size", "24", "--trainer.max_epochs", "2", "--trainer.logger", "false"]
    code, out, err = tasklight("fit", "--config", DCGAN, *own, *flags)
    assert code == 0, err
    assert "32 train / 4 val / 4 test colour pictures of 24x24" in " ".join(out.split())
    code, _, err = tasklight("fit", "--config", str(ROOT / "configs" / "cnn.yaml"), *own)
    assert code == 2 and "no labels" in one_line(err)


def test_what_cannot_be_is_refused_before_training(tasklight, tmp_path):
    write_class_folders(tmp_path / "own")
    own = ["--data", "datamodules.classification.ImageFolderDataModule", "--data.root", str(tmp_path / "own")]
    for flags, words in (
        ([*own, "--data.size", "6"], ("8 pixels", "6")),
        (["--model.latent_dim", "0"], ("latent_dim", "0")),
        (["--model.steps_d", "0"], ("steps_d", "0")),
        (["--model.loss", "hinged"], ("hinged", "non_saturating")),
    ):
        code, _, err = tasklight("fit", "--config", DCGAN, *SMALL[:4], *flags)
        assert code == 2 and all(word in one_line(err) for word in words)
    assert not list(Path().glob("runs/*/*"))
    assert tasklight("fit", "--config", DCGAN, *SMALL, "--trainer.logger", "false")[0] == 0
    code, _, err = tasklight("test", "--config", DCGAN, *own, "--data.size", "28")  # a checkpoint of grey pictures
    assert code == 2 and "in_channels = 1" in one_line(err) and "3" in err
    plateau = ["--model.scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau"]
    code, _, err = tasklight("fit", "--config", DCGAN, *SMALL, *plateau, "--trainer.logger", "false")
    assert code == 2 and "ReduceLROnPlateau" in one_line(err)


@pytest.mark.slow
def test_with_its_weights_the_inception_net_measures_too(tasklight, monkeypatch, tmp_path):
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with monkeypatch.context() as patch:  # the net as it comes, with weights that nobody has trained
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
        net = inception.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    (tmp_path / "checkpoints").mkdir()
    torch.save(net.state_dict(), tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth")
    assert tasklight("fit", "--config", DCGAN, *SMALL, "--trainer.logger", "false", "--test_after_fit", "false")[0] == 0
    flags = ["--trainer.limit_test_batches", "1"]
    code, out, err = tasklight("test", "--config", DCGAN, *flags)
    assert code == 0, err
    assert "test/fid" in out and "test/kid" in out and "test/frechet_distance" in out


@pytest.mark.slow
def test_all_digits_are_made_and_look_like_digits(tasklight):
    assert tasklight("fit", "--config", DCGAN, "--trainer.accelerator", "cpu")[0] == 0
    summary = json.loads(Path("runs/dcgan/0/summary.json").read_text())
    assert 4 * summary["metrics"]["test/frechet_distance"] <= summary["baseline"]["test/frechet_distance"]
    assert summary["metrics"]["test/class_entropy"] >= 2.2

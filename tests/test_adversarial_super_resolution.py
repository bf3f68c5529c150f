"""Facts about adversarial super-resolution and the distances it is measured by that can be computed by hand."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_engine import one_line, table
from test_restoration import photo
from torch import nn
from torch.optim import SGD
from torchvision.models import VGG19_Weights, vgg19

from datamodules.sample_photos import SamplePhotosDataModule
from engine.pictures import grid, picture_of
from nets.cnn import CNN
from nets.srgan import Discriminator
from nets.srresnet import SRResNet
from tasks.adversarial_super_resolution import AdversarialSuperResolutionTask, adversarial_loss, fooling_loss
from tasks.judges import WINDOWS, taught
from tasks.perceptual import EXEMPLARS, KINDS, PerceptualDistance, damaged, exemplars, vgg_distance
from tasks.super_resolution import resized

pytestmark = pytest.mark.usefixtures("brief_lessons")

CONFIG = str(ROOT / "configs/srgan.yaml")
PIXELS = str(ROOT / "configs/srresnet.yaml")
TINY = ["--model.net.width", "4", "--data.windows", "32", "--data.crop", "32", "--data.max_side", "64"]
TINY += ["--trainer.max_epochs", "1", "--trainer.logger", "engine.loggers.TableLogger"]
TINY += ["--trainer.log_every_n_steps", "1"]
SMALL = [*TINY, "--model.discriminator.width", "4"]


def tiny(**settings) -> AdversarialSuperResolutionTask:
    nets = partial(SRResNet, width=4, depth=2), partial(Discriminator, width=4, depth=2)
    return AdversarialSuperResolutionTask(*nets, 3, SGD, SGD, **settings)


def test_relativistic_loss_of_known_numbers():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([1.0, -1.0])  # means 1 and 0
    expected = np.mean([math.log1p(math.exp(-2)), math.log1p(1), math.log1p(1), math.log1p(math.exp(-2))])
    assert float(adversarial_loss("relativistic", real, fake)) == pytest.approx(expected)
    swapped = np.mean([math.log1p(math.exp(2)), math.log1p(1), math.log1p(1), math.log1p(math.exp(2))])
    assert float(fooling_loss("relativistic", real, fake)) == pytest.approx(swapped)
    same = torch.full((3,), 5.0)
    assert float(adversarial_loss("relativistic", same, same)) == pytest.approx(math.log(2))


def test_plain_loss_of_known_numbers():
    real, fake = torch.tensor([0.0]), torch.tensor([1.0])
    expected = (math.log(2) + math.log1p(math.e)) / 2
    assert float(adversarial_loss("plain", real, fake)) == pytest.approx(expected)
    assert float(fooling_loss("plain", real, fake)) == pytest.approx(math.log1p(math.exp(-1)))


def test_perceptual_distance_of_directions():
    distance = PerceptualDistance(nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2)))  # two stages: the pixels themselves
    red, blue = (torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 4, 4) for colour in ([1.0, 0, 0], [0, 0, 1.0]))
    assert float(distance(red, red)) == 0
    assert float(distance(red, red / 2)) == pytest.approx(0, abs=1e-6)  # the direction is the same
    assert float(distance(red, blue)) == pytest.approx(2)  # the diagonal of a square, squared


@pytest.mark.parametrize(
    "lesson, kinds, windows",
    [(damaged, KINDS, WINDOWS), (exemplars, EXEMPLARS[0], EXEMPLARS)],
    ids=["teacher", "judge"],
)
def test_taught_nets_see_blur_and_grain_and_little_of_light_and_place(lesson, kinds, windows):
    data = SamplePhotosDataModule()
    net = taught(partial(CNN, 3, kinds, 12), data, kinds, 150, torch.device("cpu"), 1, lesson, windows)
    judge = PerceptualDistance(net.features)
    photos = torch.cat([batch["image"] for batch in data.in_order("val")]) / 255
    bicubic = resized(resized(photos, 0.25), 4)
    torch.manual_seed(0)
    changed = {
        "same": photos,
        "brighter": (photos + 0.05).clamp(0, 1),
        "moved": photos.roll(1, 3),
        "half": resized(resized(photos, 0.5), 2),
        "bicubic": bicubic,
    }
    distances = {name: float(judge(pictures, photos).mean()) for name, pictures in changed.items()}
    assert distances["same"] == 0
    assert list(distances) == sorted(distances, key=lambda name: distances[name]), distances
    grain = (photos + 0.065 * torch.randn_like(photos)).clamp(0, 1)
    assert float(judge(grain, photos).mean()) > distances["half"]
    assert (changed["moved"] - photos).square().mean() > 2 * (changed["half"] - photos).square().mean()
    faint = bicubic + torch.randn_like(photos) / 255  # what nobody sees, none of them sees
    assert float(judge(faint, photos).mean()) == pytest.approx(distances["bicubic"], rel=0.1)


def test_damage_is_of_every_kind_and_is_named():
    pictures = torch.full((2 * KINDS, 1, 16, 16), 0.5)
    spoiled, kinds = damaged(pictures, torch.zeros(2 * KINDS))
    assert spoiled.shape == pictures.shape and kinds.bincount().tolist() == [2] * KINDS
    strengths = [float(spoiled[kinds == kind].std()) * 255 for kind in range(KINDS)]
    assert strengths == pytest.approx([2.0] * 6 + [8.0] * 6 + [25.0] * 6, rel=0.15)


def test_who_judges_gets_no_gradient_and_stays_as_it_was_taught():
    task = tiny()
    assert not any(module.training for net in (task.judge, task.teacher) for module in net.modules())
    task.train()
    assert not any(p.requires_grad for net in (task.judge, task.teacher, task.pixel_net) for p in net.parameters())
    assert not any(module.training for net in (task.judge, task.teacher) for module in net.modules())
    fake = torch.rand(1, 3, 16, 16, requires_grad=True)
    task.teacher(fake, torch.rand(1, 3, 16, 16)).mean().backward()
    assert fake.grad is not None and float(fake.grad.abs().sum()) > 0


def watched(monkeypatch, tasklight, *flags: str) -> list[dict[str, bool]]:
    """Train, and return which nets every turn has moved."""
    turns: list[dict[str, bool]] = []
    minimize = AdversarialSuperResolutionTask.training_step.__globals__["minimize"]

    def look(task, optimizer, loss, *rest):
        nets = {"net": task.net, "discriminator": task.discriminator, "judge": task.judge, "teacher": task.teacher}
        before = {name: [p.detach().clone() for p in net.parameters()] for name, net in nets.items()}
        minimize(task, optimizer, loss, *rest)
        pairs = {name: zip(before[name], net.parameters(), strict=True) for name, net in nets.items()}
        turns.append({name: any(not torch.equal(a, b) for a, b in pair) for name, pair in pairs.items()})

    monkeypatch.setitem(AdversarialSuperResolutionTask.training_step.__globals__, "minimize", look)
    code, _, err = tasklight("fit", "--config", CONFIG, *SMALL, *flags)
    assert code == 0, err
    return turns


def only(name: str) -> dict[str, bool]:
    return {other: other == name for other in ("net", "discriminator", "judge", "teacher")}


def test_every_turn_moves_its_own_net_and_pixels_come_first(tasklight, monkeypatch):
    flags = ["--model.pixels_first", "0.5", "--model.scheduler", "torch.optim.lr_scheduler.ConstantLR"]
    turns = watched(monkeypatch, tasklight, *flags, "--data.batch_size", "4")
    assert turns == [only("net")] * 3 + [only("discriminator"), only("net")] * 5
    rows = [row for row in table("runs/srgan/0") if row["train/loss"]]
    assert len(rows) == 8 and [bool(row["train/adversarial"]) for row in rows] == [False] * 3 + [True] * 5
    state = torch.load("runs/srgan/0/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 8
    kept, net = (state["state_dict"][f"{name}.stem.weight"] for name in ("pixel_net", "net"))
    assert not torch.equal(kept, net)


def test_gradients_are_gathered_and_clipped(tasklight, monkeypatch):
    flags = ["--model.pixels_first", "0", "--data.batch_size", "4", "--model.accumulate", "4", "--model.clip", "1e-9"]
    flags += ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "1"]
    turns = watched(monkeypatch, tasklight, *flags)
    assert [turn["net"] for turn in turns] == ([False] * 7 + [True]) * 2
    state = torch.load("runs/srgan/0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    names = [name.removeprefix("pixel_net.") for name in state if name.startswith("pixel_net.")]
    moved = [state[f"net.{name}"] - state[f"pixel_net.{name}"] for name in names]
    assert 0 < float(torch.cat([m.flatten() for m in moved]).norm()) < 1e-6


def test_starts_from_the_net_that_has_learned_pixels(tasklight):
    assert tasklight("fit", "--config", PIXELS, *TINY)[0] == 0
    start = ["--model.init_from", "runs/srresnet/0"]
    assert tasklight("fit", "--config", CONFIG, *SMALL, *start)[0] == 0
    learned, state = (
        torch.load(f"runs/{name}/0/checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for name in ("srresnet", "srgan")
    )
    for name, value in learned.items():
        assert torch.equal(state[name.replace("net.", "pixel_net.", 1)], value)
    assert all(row["train/adversarial"] for row in table("runs/srgan/0") if row["train/loss"])
    for flags, word in (
        (["--model.scale", "2"], "scale 4, not 2"),
        (["--model.net.width", "5"], "another net"),
        (["--data.grey", "true"], "in_channels 3, not 1"),
        (["--model.init_from", "nowhere"], "nowhere"),
    ):
        code, _, err = tasklight("fit", "--config", CONFIG, *SMALL, *start, *flags)
        assert code == 2 and word in one_line(err), err
    digits = ["--model.net.width", "2", "--data.num_train", "64", "--trainer.max_epochs", "1"]
    assert tasklight("fit", "--config", str(ROOT / "configs/cnn.yaml"), *digits, "--trainer.logger", "false")[0] == 0
    code, _, err = tasklight("fit", "--config", CONFIG, *SMALL, "--model.init_from", "runs/cnn/0")
    assert code == 2 and "ClassificationTask" in one_line(err)


def test_before_the_discriminator_comes_the_net_is_compared_with_itself():
    task, small = tiny().eval(), torch.rand(1, 3, 8, 8)
    nn.init.ones_(task.net.head.bias)
    with torch.no_grad():
        torch.testing.assert_close(task._by_pixels(small), task(small).clamp(0, 1))
        task._begin()
        nn.init.zeros_(task.net.head.bias)
        assert not torch.equal(task._by_pixels(small), task(small).clamp(0, 1))


def test_vgg_takes_the_place_of_our_net_where_its_weights_are(tmp_path, monkeypatch, tasklight):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert vgg_distance() is None
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    layers = vgg19().features  # stands for the download, which has this name
    path = folder / Path(VGG19_Weights.IMAGENET1K_V1.url).name
    torch.save({f"features.{name}": value for name, value in layers.state_dict().items()}, path)
    flags = [*SMALL, "--model.pixels_first", "0"]
    code, out, err = tasklight("fit", "--config", CONFIG, *flags)
    assert code == 0 and "VGG19" in out, err
    state = torch.load("runs/srgan/0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert sum(value.numel() for value in state.values()) < 1e6  # it is not carried along
    path.unlink()
    assert tasklight("test", "--config", CONFIG)[0] == 0
    code, _, err = tasklight("fit", "--config", CONFIG, *flags, "--trainer.max_epochs", "2", "--ckpt_path", "last")
    assert code == 2 and "VGG19" in one_line(err)


def test_captions_may_have_two_lines():
    picture = picture_of(torch.rand(3, 8, 8))
    heights = [grid({"a": [picture]}, captions).height for captions in ([], ["one"], ["one\ntwo"])]
    assert np.diff(heights).tolist() == [24, 16]


def test_grey_photos_are_enlarged_too(tasklight, tmp_path):
    assert tasklight("fit", "--config", CONFIG, *SMALL, "--data.grey", "true")[0] == 0
    photo((40, 30), mode="L").save(tmp_path / "grey.png")
    assert tasklight("predict", "--config", CONFIG, "--input", str(tmp_path / "grey.png"))[0] == 0

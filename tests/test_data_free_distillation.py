"""Data-free distillation: terms computed by hand, who learns from whom, no training picture looked at, teachers."""

import math
import shutil
from functools import partial
from math import ceil
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from lightning import LightningDataModule, Trainer
from test_engine import one_line, weights
from torch import nn
from torch.utils.data import DataLoader

from engine.errors import UserError
from nets.cnn import CNN
from nets.dcgan import Generator
from nets.upsampling import UpsamplingGenerator
from tasks import data_free_distillation
from tasks.data_free_distillation import DataFreeDistillationTask
from tasks.distillation_losses import difference, entropy_loss, observed, one_hot_loss

CONFIG = str(ROOT / "configs" / "data_free.yaml")
SMALL = ["--model.net.width", "4", "--model.generator.width", "8", "--data.num_train", "200"]
FIT = ["fit", "--config", CONFIG, *SMALL, "--model.teacher_width", "4", "--model.teacher_steps", "20"]
FIT += ["--trainer.logger", "false", "--trainer.accelerator", "cpu"]


def distillation(generator=UpsamplingGenerator, size: int = 12, **options) -> DataFreeDistillationTask:
    torch.manual_seed(0)
    optimizers = [partial(torch.optim.SGD, lr=options.pop(name, 0.1)) for name in ("lr", "lr_g")]
    net, constant = partial(CNN, width=4), partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
    return DataFreeDistillationTask(
        net,
        partial(generator, width=4),
        1,
        size,
        3,
        ["a", "b", "c"],
        *optimizers,
        teacher_width=4,
        scheduler=constant,
        **options,
    )


class Given(LightningDataModule):
    """Batches, whatever they are, of pictures that are standardized already."""

    statistics = torch.zeros(1), torch.ones(1)

    def __init__(self, batches: list[dict[str, torch.Tensor]]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)


def trained(task: DataFreeDistillationTask, tmp_path: Path, batches: int, image: torch.Tensor | None = None):
    """Train on some batches of five pictures, and return all weights."""
    settled = CNN(1, 3, 4)
    settled.head.weight.data.mul_(20)
    data_free_distillation.taught = lambda *_: nn.Sequential(nn.Identity(), settled)
    batch = {"image": torch.zeros(5, 1, 12, 12) if image is None else image}
    trainer = Trainer(
        **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False),
        **{"max_epochs": 1, "accelerator": "cpu", "default_root_dir": tmp_path},
    )
    torch.manual_seed(1)
    trainer.fit(task, datamodule=Given([batch] * batches))
    assert trainer.global_step == ceil(batches / task.accumulate)
    return {name: value.clone() for name, value in task.state_dict().items()}


def changed(before: dict, after: dict) -> set[str]:
    """Return the names of the nets of which a weight has changed, running means aside."""
    names = {name for name in before if "running" not in name and "num_batches" not in name}
    return {name.partition(".")[0] for name in names if not torch.equal(before[name], after[name])}


@pytest.fixture(autouse=True)
def keep_taught(monkeypatch):
    monkeypatch.setattr(data_free_distillation, "taught", data_free_distillation.taught)


def test_terms_of_known_answers():
    unsure = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]])  # shares of 1/4 and 3/4
    assert float(one_hot_loss(unsure)) == pytest.approx(-math.log(0.75))
    assert float(entropy_loss(unsure)) == pytest.approx(-math.log(2))  # together, both classes are as many
    assert float(entropy_loss(unsure[:1])) == pytest.approx(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    certain = torch.tensor([[99.0, 0.0], [99.0, 0.0]])
    assert float(one_hot_loss(certain)) == pytest.approx(0) and float(entropy_loss(certain)) == pytest.approx(0)
    assert float(difference("l1", unsure, unsure + 2)) == pytest.approx(2)
    assert float(difference("kl", unsure, unsure + 2)) == pytest.approx(0, abs=1e-6)  # the same answers
    turned = difference("kl", unsure, unsure.flip(1))
    assert float(turned) == pytest.approx(0.75 * math.log(3) - 0.25 * math.log(3))


def test_what_is_observed_of_a_teacher():
    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm2d(1), nn.Linear(1, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(x).mean((2, 3)))

    teacher = Teacher().eval()
    pictures = torch.tensor([-1.0, 1.0, 3.0, 5.0]).view(2, 1, 1, 2)  # mean 2, variance 5
    teacher.norm.running_mean.fill_(2), teacher.norm.running_var.fill_(5)
    answers, features, distance = observed(teacher, pictures)
    assert float(distance) == pytest.approx(0, abs=1e-6)
    assert torch.equal(answers, teacher(pictures)) and torch.equal(answers, teacher.head(features))
    teacher.norm.running_mean.fill_(0), teacher.norm.running_var.fill_(20)
    assert float(observed(teacher, pictures)[2]) == pytest.approx(4 / 20 + 0.25, abs=1e-4)
    assert not teacher.norm._forward_pre_hooks and not teacher.head._forward_pre_hooks
    teacher.norm = nn.Identity()
    assert float(observed(teacher, pictures)[2]) == 0


def test_nets_learn_in_their_own_turns_only(tmp_path):
    start = distillation().state_dict()
    assert changed(start, trained(distillation(lr=0.0), tmp_path, 3)) == {"generator", "teacher"}  # taught in setup
    assert changed(start, trained(distillation(lr_g=0.0), tmp_path, 3)) == {"net", "teacher"}
    one, two, three = (trained(distillation(steps_net=2), tmp_path, batches) for batches in (1, 2, 3))
    assert changed(one, two) == {"net", "generator"} and changed(two, three) == {"net"}


def test_a_teacher_is_left_as_it_was(tmp_path):
    task = distillation()
    learned = trained(task, tmp_path, 4)
    for name, value in data_free_distillation.taught()[1].state_dict().items():
        assert torch.equal(value, learned[f"teacher.{name}"]), name  # running means, too
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
    assert not task.train().teacher.training and task.net.training


def test_no_training_picture_is_looked_at(tmp_path):
    one = trained(distillation(), tmp_path, 4)
    other = trained(distillation(), tmp_path, 4, torch.full((5, 1, 12, 12), torch.nan))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_accumulated_batches_make_one_step(tmp_path):
    start = distillation().state_dict()
    learned = [trained(distillation(accumulate=2, steps_net=1), tmp_path, batches) for batches in (2, 3)]
    assert changed(start, learned[0]) == {"net", "generator", "teacher"}
    assert changed(*learned) == {"net", "generator"}  # the last batch of an epoch makes a step of what there is


def test_gradients_are_clipped(tmp_path):
    start = distillation().state_dict()
    clipped = trained(distillation(clip=1e-6), tmp_path, 2)
    for name, value in start.items():
        if name.startswith("net.") and value.is_floating_point() and "running" not in name:
            torch.testing.assert_close(clipped[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"latent_dim": 0}, "model.latent_dim is 0"),
        ({"steps_net": 0}, "model.steps_net is 0"),
        ({"generator": Generator, "size": 3}, "not of 3"),
    ],
)
def test_what_cannot_be_built_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        distillation(**options)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"_class_path": "tasks.gan.GANTask"}, "is of tasks.gan.GANTask"),
        ({"in_channels": 3}, "in_channels = 3, the data 1"),
        ({"num_classes": 2}, "num_classes = 2, the data 3"),
        ({"class_names": ["x", "y", "z"]}, "class_names"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(tmp_path, facts, words):
    known = {"_class_path": "tasks.classification.ClassificationTask", "in_channels": 1, "num_classes": 3}
    path = str(tmp_path / "teacher.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {**known, "class_names": ["a", "b", "c"], **facts}}, path)
    with pytest.raises(UserError, match=words):
        distillation()._take_teacher(path)


def test_a_missing_teacher_is_one_line(tasklight):
    code, _, err = tasklight(*FIT, "--model.teacher", "nowhere")
    assert code == 2 and "nowhere" in one_line(err) and not Path("runs").exists()


def test_a_recorded_teacher_is_needed_once(tasklight):
    few = ["--data.num_train", "200", "--trainer.max_epochs", "1", "--trainer.logger", "false"]
    net = ["--model.net", "nets.resnet.ResNet", "--model.net.width", "4"]
    assert tasklight("fit", "--config", str(ROOT / "configs" / "cnn.yaml"), *few, *net)[0] == 0
    given = weights("runs/cnn/0/checkpoints/best.ckpt")
    assert tasklight(*FIT, "--model.teacher", "runs/cnn/0", "--trainer.max_epochs", "1")[0] == 0
    shutil.rmtree("runs/cnn")
    path = Path("runs/data_free/0/checkpoints/best.ckpt")
    task = DataFreeDistillationTask.load_from_checkpoint(path, weights_only=True)
    for name, value in task.teacher.state_dict().items():
        assert torch.equal(value, given[f"net.{name}"]), name
    assert torch.equal(task.mean, given["mean"]) and torch.equal(task.std, given["std"]) and float(task.std) < 1
    assert tasklight("test", "--config", CONFIG)[0] == 0
    resumed = ["--config", "runs/data_free/0/config.yaml", "--ckpt_path", "runs/data_free/0"]
    code, _, err = tasklight("fit", *resumed, "--trainer.max_epochs", "2")
    assert code == 0, err
    assert torch.load("runs/data_free/0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6


def test_no_held_out_picture_chooses_the_checkpoint(tasklight, monkeypatch):
    falling = iter([0.9, 0.5, 0.4, 0.3, 0.2])

    def report(task, stage, metrics):
        task.log(f"{stage}/accuracy", next(falling))
        metrics.reset()

    monkeypatch.setattr(data_free_distillation, "report", report)
    flags = ["--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "1"]
    assert tasklight(*FIT, *flags)[0] == 0
    best, last = (weights(f"runs/data_free/0/checkpoints/{name}.ckpt") for name in ("best", "last"))
    assert all(torch.equal(value, last[name]) for name, value in best.items())

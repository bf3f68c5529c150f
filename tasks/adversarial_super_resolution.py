"""Adversarial super-resolution: detail that looks real in the place of what is right on average."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torchmetrics import MeanMetric, MetricCollection

from engine.checkpoints import read_best
from engine.errors import UserError
from engine.schedules import WarmupCosine, progress, scheduled
from engine.turns import follow_schedules, in_turns, minimize
from nets.cnn import CNN
from tasks.adversarial_losses import discriminator_has_won
from tasks.judges import taught
from tasks.perceptual import EXEMPLARS, KINDS, PerceptualDistance, damaged, exemplars, lpips, vgg_distance
from tasks.super_resolution import SuperResolutionTask, resized

KNOWN = EXEMPLARS[0]
LESSON = 150  # batches that a net learns from before it judges
TEACHER, JUDGE = 16, 12  # widths of the net whose distance is minimized, and of that whose distance is measured


class AdversarialSuperResolutionTask(SuperResolutionTask):
    """A net against a discriminator; the perceptual distance of enlarged pictures to true ones, beside PSNR and SSIM.

    First the net learns pixels alone, or starts from a net that has; what it was then is kept as SRResNet, to compare
    with. Then it minimizes a sum of mean absolute error, perceptual distance, and what the discriminator holds against
    it. That perceptual distance is by torchvision's VGG19 if its weights were downloaded some day, else by a small net
    taught on the spot to tell kinds of damage apart. The distance that is measured is by another net, taught to know
    windows of photos again, so what was minimized is not what is measured; with the weights of AlexNet at hand,
    ``lpips`` is measured as well.

    Args:
        net: Network from small pictures (B, in_channels, H, W) to large ones (B, in_channels, scale * H, scale * W).
        discriminator: Network from large pictures to numbers (B,), the larger the more real they look.
        in_channels: Channels of a picture.
        optimizer: Optimizer of the network's parameters.
        optimizer_d: Optimizer of the discriminator's parameters.
        scale: How many times larger pictures become.
        init_from: Checkpoint or run folder of ``srresnet`` to start from; the discriminator is there from the start.
        pixels_first: Share of the training, in [0, 1], that otherwise learns pixels alone.
        loss: ``relativistic``: real pictures look more real than generated ones on average, and the other way round
            (https://arxiv.org/abs/1807.00734, as in ESRGAN); or ``plain``: real ones do, generated ones do not.
        pixel_weight: Weight of the mean absolute error.
        perceptual_weight: Weight of the perceptual distance.
        adversarial_weight: Weight of what the discriminator says.
        clip: Largest norm of a net's gradients; 0 for no limit.
        accumulate: Batches whose gradients make a step.
        scheduler: Learning rate schedule of both.
    """

    primary = "perceptual_distance"
    perfect = 0.0
    shown = ("bicubic", "SRResNet", "net")
    begun: Tensor

    def __init__(
        self,
        net: Callable[[int, int, int], nn.Module],
        discriminator: Callable[[int], nn.Module],
        in_channels: int,
        optimizer: OptimizerCallable,
        optimizer_d: OptimizerCallable,
        scale: int = 4,
        init_from: str | None = None,
        pixels_first: float = 0.6,
        loss: Literal["relativistic", "plain"] = "relativistic",
        pixel_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        adversarial_weight: float = 0.005,
        clip: float = 0.0,
        accumulate: int = 1,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__(net, in_channels, optimizer, scale, scheduler)
        self.save_hyperparameters()
        self.automatic_optimization = False
        if accumulate < 1:
            raise UserError(f"model.accumulate is {accumulate}; it must be 1 or more")
        self.discriminator = discriminator(in_channels)
        self.optimizer_d, self.init_from, self.pixels_first, self.loss = optimizer_d, init_from, pixels_first, loss
        self.pixel_weight, self.perceptual_weight = pixel_weight, perceptual_weight
        self.adversarial_weight, self.clip, self.accumulate = adversarial_weight, clip, accumulate
        self.adversarial = False  # whether the discriminator takes part in the training
        self.register_buffer("begun", torch.tensor(0))  # whether it ever has
        self.pixel_net = deepcopy(self.net).requires_grad_(False)  # the net as it was when the discriminator came
        self.teacher = PerceptualDistance(CNN(in_channels, KINDS, TEACHER).features)
        self.judge = PerceptualDistance(CNN(in_channels, KNOWN, JUDGE).features)
        self.vgg: list[PerceptualDistance] = []  # the teacher's place is its, if it is at hand; in no checkpoint
        self.lpips: list[Any] = []
        self.distances = MeanMetric()

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        device = self.trainer.strategy.root_device
        vgg = vgg_distance()
        if vgg:
            self.vgg = [vgg.to(device)]
        self.print(f"perceptual term by {'VGG19' if vgg else 'a net taught on the training photos'}")
        if self.trainer.ckpt_path:  # a checkpoint brings all but VGG
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        in_channels = self.hparams["in_channels"]
        make_teacher, make_judge = partial(CNN, in_channels, KINDS, TEACHER), partial(CNN, in_channels, KNOWN, JUDGE)
        teacher: Any = taught(make_teacher, data, KINDS, LESSON, device, 0, damaged)
        judge: Any = taught(make_judge, data, KNOWN, LESSON, device, 1, exemplars, EXEMPLARS)
        self.teacher.layers.load_state_dict(teacher.features.state_dict())
        self.judge.layers.load_state_dict(judge.features.state_dict())
        if self.init_from:
            self._start_from(self.init_from)
            self._begin()

    def _start_from(self, source: str) -> None:
        """Give the net the weights of a net that has learned pixels."""
        checkpoint = read_best(source, "model.init_from")
        facts = checkpoint["hyper_parameters"]
        state = {key.removeprefix("net."): v for key, v in checkpoint["state_dict"].items() if key.startswith("net.")}
        task = str(facts.get("_class_path")).rpartition(".")[2]
        if task not in (SuperResolutionTask.__name__, type(self).__name__):
            raise UserError(f"model.init_from: {source} is of {task}, not of super-resolution")
        for fact in ("scale", "in_channels"):
            if facts[fact] != self.hparams[fact]:
                raise UserError(f"model.init_from: {source} has {fact} {facts[fact]}, not {self.hparams[fact]}")
        wanted = self.net.state_dict()
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in wanted.items()}:
            raise UserError(f"model.init_from: {source} has another net: {facts['net']}")
        self.net.load_state_dict(state)

    def _begin(self) -> None:
        """Let the discriminator in, and keep the net as it is now."""
        self.pixel_net.load_state_dict(self.net.state_dict())
        self.begun.fill_(1)
        self.adversarial = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vgg"] = bool(self.vgg)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trainer = self._trainer
        if trainer and trainer.training and checkpoint["vgg"] != bool(self.vgg):
            raise UserError("the training cannot go on as it began: VGG19's weights have come or gone since")

    def on_train_start(self) -> None:
        self.adversarial = bool(self.begun)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        if not self.adversarial:
            batches = self.trainer.fit_loop.total_batch_idx + 1
            due = progress(self.trainer, batches) >= self.pixels_first
            if self.trainer.strategy.reduce_boolean_decision(due, all=False):  # all devices begin alike
                self._begin()
                # Adam would divide gradients of the whole sum by the size of those of pixels alone: steps ten times as
                # long as the learning rate says.
                self.trainer.optimizers[0].state.clear()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        optimizer, optimizer_d = in_turns(self)
        large, small = self._pair(batch["image"])
        fake = self(small).float()
        outputs = {"pixels": F.l1_loss(fake, large)}
        content = self.pixel_weight * outputs["pixels"]
        if not self.adversarial:
            minimize(self, optimizer, content, batch_idx, self.accumulate)
            follow_schedules(self)
            return {"loss": content.detach(), "pixels": outputs["pixels"].detach()}

        # Discriminator: true pictures up, the net's down.
        said_real, said_fake = self.discriminator(large).float(), self.discriminator(fake.detach()).float()
        outputs["discriminator"] = adversarial_loss(self.loss, said_real, said_fake)
        outputs["ranked_right"] = (said_real > said_fake).float().mean()
        minimize(self, optimizer_d, outputs["discriminator"], batch_idx, self.accumulate)

        # Net: near the truth in pixels and in what a net sees, and more real than real to who has just learned.
        distance = self.vgg[0] if self.vgg else self.teacher
        outputs["perceptual"] = distance(fake, large).mean()
        content = content + self.perceptual_weight * outputs["perceptual"]
        with torch.no_grad():
            said_real = self.discriminator(large).float()
        outputs["adversarial"] = fooling_loss(self.loss, said_real, self.discriminator(fake).float())
        loss = content + self.adversarial_weight * outputs["adversarial"]
        minimize(self, optimizer, loss, batch_idx, self.accumulate)
        follow_schedules(self)
        return {"loss": content.detach()} | {name: value.detach() for name, value in outputs.items()}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.clip:
            self.clip_gradients(optimizer, self.clip)

    def on_test_epoch_start(self) -> None:
        metric = lpips()
        self.lpips = [metric.to(self.device)] if metric else []

    def _compared(self, small: Tensor) -> list[Tensor]:
        return [resized(small, self.scale), self._by_pixels(small)]

    def _by_pixels(self, small: Tensor) -> Tensor:
        """Return what the net made of pictures (B, C, H, W) before the discriminator came."""
        return (self.pixel_net if self.begun else self.net)(small).float().clamp(0, 1)

    def _update(self, metrics: MetricCollection, enlarged: Tensor, large: Tensor) -> None:
        super()._update(metrics, enlarged, large)
        self.distances.update(self.judge(enlarged, large))
        for metric in self.lpips:
            metric.to(large.device).update(enlarged.expand(-1, 3, -1, -1), large.expand(-1, 3, -1, -1))

    def _values(self, metrics: MetricCollection) -> dict[str, Tensor]:
        values = {"perceptual_distance": self.distances.compute(), **super()._values(metrics)}
        self.distances.reset()
        for metric in self.lpips:
            values["lpips"] = metric.compute()
            metric.reset()
        return values

    def _caption(self, shown: list[Tensor], truth: Tensor) -> str:
        pictures = torch.stack(shown).to(self.device)
        distances = self.judge(pictures, truth.to(self.device).expand_as(pictures))
        return super()._caption(shown, truth) + "\n" + ", ".join(f"{distance:.2f}" for distance in distances.tolist())

    def ailments(self, values: dict[str, float]) -> dict[str, str]:
        """Return what is wrong, as the logged values show it; nothing before the discriminator has come."""
        loss, ranked_right = (values.get(f"train/{name}", 1.0) for name in ("discriminator", "ranked_right"))
        return discriminator_has_won(self.loss, loss, ranked_right)

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return the metrics of the net before the discriminator came."""
        return {"SRResNet": self._evaluate(datamodule, self._by_pixels)}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizers = [self.optimizer(self.net.parameters()), self.optimizer_d(self.discriminator.parameters())]
        return [scheduled(self.trainer, optimizer, self.scheduler(optimizer)) for optimizer in optimizers]


def adversarial_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """Return what a discriminator minimizes, given what it says of real and of generated pictures (B,)."""
    if kind == "relativistic":
        return (F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()) / 2
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def fooling_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """Return what a generator minimizes, given the same."""
    return adversarial_loss(kind, fake, real) if kind == "relativistic" else F.softplus(-fake).mean()

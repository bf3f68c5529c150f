"""Generative adversarial networks: pictures that nobody has taken, from a generator that a discriminator has taught."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from kornia.filters import gaussian_blur2d
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from torchmetrics import CatMetric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from engine.errors import UserError
from engine.pictures import grid, picture_of, show
from engine.schedules import WarmupCosine, scheduled
from engine.turns import follow_schedules, in_turns, minimize
from nets.cnn import CNN
from tasks.adversarial_losses import discriminator_has_won, discriminator_loss, generator_loss, slope_penalty
from tasks.differentiable_augmentation import augmented
from tasks.judges import TURNS, pictures_of, taught
from tasks.latents import NamedLatents, between, latents, latents_for, nearest_made

SHOWN = 10  # pictures in a row of samples
COMPARED = 100  # generated and held-out pictures whose nearest training pictures are looked for
INCEPTION = "checkpoints/weights-inception-2015-12-05-6726825d.pth"  # below torch.hub's folder, if it was downloaded


class GANTask(LightningModule):
    """A generator against a discriminator; the Fréchet distance of generated pictures to held-out ones.

    The distance is that of two Gaussians fitted to features of a net taught on the spot, the same for every training on
    the same data: of a small ``CNN`` that tells the training pictures' classes apart or, where they have none, their
    quarter turns. As many pictures are generated as are held out. With torch-fidelity and its Inception
    net at hand, ``fid`` and ``kid`` are measured as well. All figures are those of the generator's averaged weights.

    Args:
        net: Generator, from latent vectors (B, latent_dim) to pictures (B, in_channels, H, W) in [-1, 1].
        discriminator: Network from such pictures to numbers (B,), the larger the more real they look.
        in_channels: Channels of a picture.
        image_size: Height and width of a picture.
        optimizer: Optimizer of the generator's parameters.
        optimizer_d: Optimizer of the discriminator's parameters.
        num_classes: Number of classes that the judge is taught; without any, quarter turns.
        latent_dim: Length of the latent vector.
        loss: ``non_saturating`` (Goodfellow et al. 2014), ``hinge`` (Lim and Ye 2017) or ``wasserstein`` (Arjovsky et
            al. 2017).
        gradient_penalty: Weight of the penalty on a slope of the discriminator other than 1 between real and generated
            pictures (https://arxiv.org/abs/1704.00028); 0 for none.
        steps_d: Batches that the discriminator learns from for every one of the generator.
        augment: Whether the discriminator sees all pictures changed at random (https://arxiv.org/abs/2006.10738), which
            keeps it from learning few pictures by heart.
        ema_decay: Weight of the past in the moving average of the generator's weights, in [0, 1); less at the start.
        clip: Largest norm of a net's gradients; 0 for no limit.
        accumulate: Batches whose gradients make a step.
        scheduler: Learning rate schedule of both.
    """

    primary = "frechet_distance"
    perfect = 0.0
    net: Any

    def __init__(
        self,
        net: Callable[[int, int, int], nn.Module],
        discriminator: Callable[[int, int], nn.Module],
        in_channels: int,
        image_size: int,
        optimizer: OptimizerCallable,
        optimizer_d: OptimizerCallable,
        num_classes: int | None = None,
        latent_dim: int = 64,
        loss: Literal["non_saturating", "hinge", "wasserstein"] = "non_saturating",
        gradient_penalty: float = 0.0,
        steps_d: int = 1,
        augment: bool = False,
        ema_decay: float = 0.995,
        clip: float = 0.0,
        accumulate: int = 1,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        for name, value in (("latent_dim", latent_dim), ("steps_d", steps_d), ("accumulate", accumulate)):
            if value < 1:
                raise UserError(f"model.{name} is {value}; it must be 1 or more")
        try:
            self.net = net(latent_dim, in_channels, image_size)
            self.discriminator = discriminator(in_channels, image_size)
        except ValueError as error:  # pictures of a size that the nets cannot make
            raise UserError(str(error)) from error
        self.averaged = AveragedModel(self.net, multi_avg_fn=moving_average(ema_decay), use_buffers=True)
        self.averaged.eval()
        self.num_classes, self.latent_dim, self.loss = num_classes or 0, latent_dim, loss
        self.gradient_penalty, self.steps_d, self.augment = gradient_penalty, steps_d, augment
        self.clip, self.accumulate = clip, accumulate
        self.optimizer, self.optimizer_d, self.scheduler = optimizer, optimizer_d, scheduler
        self.judge = CNN(in_channels, self.num_classes if self.num_classes > 1 else TURNS, width=16)
        self.judge.requires_grad_(False).eval()
        self.val_metrics = self._metrics()
        self.test_metrics = self._metrics()
        self.inception: dict[str, Any] = {}  # metrics by the Inception net, if its weights are at hand
        self.classes = CatMetric()  # of generated pictures
        self.trained: Tensor | None = None

    def forward(self, z: Tensor) -> Tensor:
        """Map latent vectors (B, latent_dim) to pictures (B, in_channels, H, W) in [0, 1], by the averaged weights."""
        return self.averaged(z) / 2 + 0.5

    def setup(self, stage: str) -> None:
        if stage == "fit" and not self.trainer.ckpt_path:  # a checkpoint brings the judge along
            data: Any = getattr(self.trainer, "datamodule", None)
            for part in ("val", "test"):
                if (count := len(data.in_order(part).dataset)) < 4:  # two in each half
                    raise UserError(f"the {part} part has {count} picture(s); their spread needs at least four")
            device = self.trainer.strategy.root_device
            judge = taught(lambda: CNN(*self._judge_facts()), data, self.num_classes, 400, device)
            self.judge.load_state_dict(judge.state_dict())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        optimizer_d, optimizer_g = in_turns(self)
        its_turn = (self.global_step + 1) % self.steps_d == 0  # whether it is the generator's turn, too
        real = 2 * batch["image"] - 1
        fake = self.net(torch.randn(len(real), self.latent_dim, device=self.device))

        # Discriminator: real pictures up, generated ones down.
        said_real, said_fake = self._discriminated(real), self._discriminated(fake.detach())
        loss_d = discriminator_loss(self.loss, said_real, said_fake)
        outputs = {"ranked_right": (said_real > said_fake).float().mean()}
        if self.gradient_penalty:
            penalty = slope_penalty(self.discriminator, real, fake.detach())
            loss_d = loss_d + self.gradient_penalty * penalty
            outputs["gradient_penalty"] = penalty.detach()
        minimize(self, optimizer_d, loss_d, batch_idx, self.accumulate)

        # Generator: fool the discriminator that has just learned.
        if its_turn:
            loss_g = generator_loss(self.loss, self._discriminated(fake))
            if minimize(self, optimizer_g, loss_g, batch_idx, self.accumulate):
                self.averaged.update_parameters(self.net)
            outputs["generator_loss"] = loss_g.detach()
        follow_schedules(self)
        return {"loss": loss_d.detach(), **outputs}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.clip:
            self.clip_gradients(optimizer, self.clip)

    def _discriminated(self, pictures: Tensor) -> Tensor:
        """Return what the discriminator says of pictures (B, C, H, W) in [-1, 1]: numbers (B,)."""
        return self.discriminator(augmented(pictures) if self.augment else pictures).float()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._measure(self.val_metrics, batch["image"])

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def on_test_epoch_start(self) -> None:
        if find_spec("torch_fidelity") and Path(torch.hub.get_dir(), INCEPTION).exists():
            fid = FrechetInceptionDistance(normalize=True)
            kid = KernelInceptionDistance(normalize=True, subset_size=50)
            self.inception = {"fid": fid.to(self.device), "kid": kid.to(self.device)}

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._measure(self.test_metrics, batch["image"])
        for metric in self.inception.values():
            metric.update(coloured(batch["image"]), real=True)
            metric.update(coloured(self(latents_for(batch["image"], self.latent_dim))), real=False)

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)
        self.inception = {}
        ends = latents(range(6), self.latent_dim).to(self.device)
        rows = {}
        for number, (start, end) in enumerate(zip(ends[::2], ends[1::2], strict=True), start=1):
            walk = torch.stack([between(start, end, share) for share in torch.linspace(0, 1, SHOWN).tolist()])
            rows[f"walk {number}"] = [picture_of(picture) for picture in self(walk).float().cpu()]
        show(self, "latent_walk", grid(rows))

    def _measure(self, metric: FrechetInceptionDistance, real: Tensor) -> None:
        """Take held-out pictures and as many generated ones into account; equal pictures lead to equal ones."""
        fake = self(latents_for(real, self.latent_dim)).float()
        with torch.autocast(self.device.type, enabled=False):
            metric.update(self.judge.features(real.float()), real=True)
            features = self.judge.features(fake)
            metric.update(features, real=False)
            if self.num_classes > 1:
                self.classes.update(self.judge.head(features).argmax(1))

    def _report(self, stage: str, metric: FrechetInceptionDistance) -> None:
        """Log the distance, how many classes are made, and how new the pictures are; show samples."""
        self.log(f"{stage}/frechet_distance", metric.compute(), prog_bar=True, sync_dist=True)
        metric.reset()
        if self.num_classes > 1:
            shares = torch.bincount(self.classes.compute().long()) / self.classes.compute().numel()
            self.log(f"{stage}/class_entropy", torch.special.entr(shares).sum(), sync_dist=True)
            self.classes.reset()
        for name, inception in self.inception.items():
            value = inception.compute()
            self.log(f"{stage}/{name}", value[0] if name == "kid" else value, sync_dist=True)
        data: Any = getattr(self.trainer, "datamodule", None)
        trained = self._trained(data)
        held_out = pictures_of(data, stage)[0][:COMPARED]
        made = self(latents(range(COMPARED), self.latent_dim).to(self.device)).float().cpu()
        distances, places = nearest(made, trained)
        typical, _ = nearest(held_out / 255, trained)
        self.log(f"{stage}/novelty", distances.mean() / typical.mean(), sync_dist=True)
        rows = {"generated": made[:SHOWN], "nearest of\ntraining": trained[places[:SHOWN]] / 255}
        rows = {"held out": held_out[:SHOWN] / 255, **rows}
        show(
            self,
            f"{stage}_samples",
            grid({label: [picture_of(picture) for picture in pictures] for label, pictures in rows.items()}),
        )

    def _trained(self, datamodule: Any) -> Tensor:
        """Return the training pictures, uint8 (N, C, H, W), read once."""
        if self.trained is None:
            self.trained, _ = pictures_of(datamodule, "train")
        return self.trained

    def predict_prompts(self, prompts: Sequence[str]) -> NamedLatents:
        """Return latent vectors for names, whatever they are: the same name always makes the same picture."""
        return NamedLatents(prompts, self.latent_dim)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return the picture ``generated`` for a name; or, for the user's, the one most like it that can be made."""
        if "latent" in batch:
            generated = self(batch["latent"]).float()[0].cpu()
            return [{"path": batch["path"][0], "generated": picture_of(generated)}]
        generated, error = nearest_made(self, batch["image"], self.latent_dim)
        return [
            {
                "path": batch["path"][0],
                "input": picture_of(batch["image"][0].cpu()),
                "generated": picture_of(generated.cpu()),
                "difference": f"{error:.4f}",
            }
        ]

    def ailments(self, values: dict[str, float]) -> dict[str, str]:
        """Return what is wrong, as the logged values show it."""
        return discriminator_has_won(self.loss, values["train/loss"], values["train/ranked_right"])

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return two latent vectors."""
        return {"z": ("BD", torch.randn(2, self.latent_dim))}

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the distance of noise around the mean training picture, blurred."""
        pictures = self._trained(datamodule) / 255
        mean = gaussian_blur2d(pictures.mean(0, keepdim=True), (5, 5), (1.0, 1.0))
        count = len(pictures_of(datamodule, "test")[0])
        noise = torch.randn(count, *mean.shape[1:], generator=torch.Generator().manual_seed(0))
        return self._evaluate(datamodule, (mean + noise * pictures.std(0)).clamp(0, 1))

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return the distances between pictures that are real, which no generator can expect to undercut."""
        trained = self._trained(datamodule)
        tested = pictures_of(datamodule, "test")[0] / 255
        rows = torch.randperm(len(trained), generator=torch.Generator().manual_seed(0))[: len(tested)]
        halves = self._distance(tested[::2], tested[1::2])
        return {
            f"{len(rows)} training pictures": self._evaluate(datamodule, trained[rows] / 255),
            f"two halves of the {len(tested)} test pictures": {"test/frechet_distance": halves},
        }

    def _evaluate(self, datamodule: Any, pictures: Tensor) -> dict[str, float]:
        """Measure pictures (N, C, H, W) in [0, 1] against the test part."""
        return {"test/frechet_distance": self._distance(pictures_of(datamodule, "test")[0] / 255, pictures)}

    def _distance(self, real: Tensor, fake: Tensor) -> float:
        """Return the distance between two sets of pictures (N, C, H, W) in [0, 1]."""
        metric = self._metrics().to(self.device)
        for pictures, is_real in ((real, True), (fake, False)):
            for some in pictures.split(200):
                metric.update(self.judge.features(some.to(self.device)), real=is_real)
        return float(metric.compute())

    def _judge_facts(self) -> tuple[int, int, int]:
        """Return channels, classes and width of the judge."""
        return self.hparams["in_channels"], self.judge.head.out_features, self.judge.head.in_features // 4

    def _metrics(self) -> FrechetInceptionDistance:
        """Return the Fréchet distance between Gaussians; the formula is that of FID, the features are not."""
        given: Any = nn.Identity()
        given.num_features = self.judge.head.in_features
        return FrechetInceptionDistance(given)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizers = [self.optimizer_d(self.discriminator.parameters()), self.optimizer(self.net.parameters())]
        return [scheduled(self.trainer, optimizer, self.scheduler(optimizer)) for optimizer in optimizers]


Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return how averages follow weights: with a tenth of the steps so far as memory, until that is enough."""

    @torch.no_grad()
    def follow(averages: Tensors, weights: Tensors, steps: Tensor | int) -> None:
        steps = torch.as_tensor(steps)  # stays on the device, which need not wait for it
        share = 1 - ((1 + steps) / (10 + steps)).clamp(max=decay)
        for average, weight in zip(averages, weights, strict=True):
            if average.is_floating_point():
                average.lerp_(weight, share.to(average))
            else:
                average.copy_(weight)

    return follow


def nearest(pictures: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Return the root mean square difference of pictures to the nearest of others, and its place.

    Args:
        pictures: (N, C, H, W) in [0, 1].
        among: (M, C, H, W) uint8; as floating point numbers only a thousand are in memory at once.

    Returns:
        Differences (N,) and places (N,) in [0, M).
    """
    flat = pictures.flatten(1)
    distances = torch.cat([torch.cdist(flat, some.flatten(1) / 255) for some in among.split(1000)], 1)
    values, places = distances.min(1)
    return values / flat.shape[1] ** 0.5, places


def coloured(pictures: Tensor) -> Tensor:
    """Return pictures (B, 1 or 3, H, W) with three channels."""
    return pictures.float().expand(-1, 3, -1, -1)

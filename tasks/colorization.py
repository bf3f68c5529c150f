"""Colorization: colours for grey pictures."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from kornia.color import lab_to_rgb, rgb_to_lab
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio

from engine.errors import UserError
from engine.pictures import grid, picture_of, show, with_alpha
from engine.schedules import WarmupCosine, scheduled
from engine.similarity import SSIM

RANGE = 110.0  # the colours a and b of the Lab space, divided by it, lie in [-1, 1]
STEP = 20.0  # distance of two colour bins, in units of a and b
TEMPERATURE = (
    0.38  # by which scores of bins become a colour: 1 is their mean, 0 the most likely one (Zhang et al. 2016)
)
UNIFORM = 0.5  # share of a uniform distribution in the one by whose inverse bins are weighed (Zhang et al. 2016)
MAX_SIDE = (
    512  # colours of a larger picture are found at this size: the eye sees detail in the lightness, which is kept
)
SHOWN = 6  # pictures in a row of samples


class ColorizationTask(LightningModule):
    """Colours a and b of the Lab space from the lightness; PSNR, SSIM and colourfulness of the pictures.

    There is no one right answer: a jacket may be red or blue. Regression answers with the mean of all, which is grey;
    scores of colour bins, rare colours weighing more, answer with a colour (https://arxiv.org/abs/1603.08511).

    Args:
        net: Network from lightness (B, 1, H, W) in [0, 1] to two colours, or to scores of bins, (B, channels, H, W).
        in_channels: Channels of a training picture; grey ones cannot teach.
        optimizer: Optimizer of the network's parameters.
        loss: ``huber`` of colours in [-1, 1], or cross entropy of ``bins``.
        num_classes: Number of classes, if the pictures have some.
        class_weight: Weight of the cross entropy of the pictures' classes, which the net must find from what it sees of
            the whole picture, as in the paper of ``nets.colornet.ColorNet``; 0 for none.
        scheduler: Learning rate schedule.
    """

    primary = "psnr"
    perfect = math.inf
    exports = "coloured"
    net: Any
    bins: Tensor
    bin_weights: Tensor

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        in_channels: int,
        optimizer: OptimizerCallable,
        loss: Literal["huber", "bins"] = "huber",
        num_classes: int | None = None,
        class_weight: float = 0.0,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if in_channels != 3:
            raise UserError("the pictures are grey, all of them: there are no colours to learn")
        if class_weight and not num_classes:
            raise UserError("model.class_weight needs pictures that have classes")
        self.register_buffer("bins", colour_bins())
        self.register_buffer("bin_weights", torch.ones(len(self.bins)))
        self.net = net(1, 2 if loss == "huber" else len(self.bins))
        self.class_head = nn.Linear(self.net.num_global, num_classes) if class_weight and num_classes else None
        self.loss, self.class_weight = loss, class_weight
        self.optimizer, self.scheduler = optimizer, scheduler
        self.val_metrics = colour_metrics()
        self.test_metrics = colour_metrics()
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []  # lightness, coloured, true picture: to be shown

    def forward(self, lightness: Tensor) -> Tensor:
        """Map lightness (B, 1, H, W) in [0, 1] to colours (B, 2, H, W) in [-1, 1]."""
        answer = self.net(lightness).float()
        if self.loss == "huber":
            return answer.clamp(-1, 1)
        shares = (answer / TEMPERATURE).softmax(1)
        return torch.einsum("bqhw,qc->bchw", shares, self.bins)

    def coloured(self, image: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) in [0, 1], of which only the lightness counts, to coloured ones."""
        lightness, _ = split_lab(image)
        H, W = image.shape[2:]
        longer = torch.sym_max(H, W)  # these, not Python's, for an export does not know the sizes
        most = torch.sym_min(MAX_SIDE, longer)
        size: Any = [torch.sym_max(1, (2 * side * most + longer) // (2 * longer)) for side in (H, W)]  # rounded
        small = F.interpolate(lightness, size, mode="bilinear", antialias=True)
        return join_lab(lightness, F.interpolate(self(small), (H, W), mode="bilinear"))

    def setup(self, stage: str) -> None:
        data: Any = getattr(self.trainer, "datamodule", None)
        if stage != "fit" or self.loss != "bins" or self.trainer.ckpt_path:
            return
        counts = torch.zeros(len(self.bins))
        for batch in data.in_order("train"):
            _, colours = split_lab(data.on_after_batch_transfer(batch, 0)["image"])
            counts += self._shares(colours).sum((0, 2, 3))
        shares = counts / counts.sum()
        weights = 1 / ((1 - UNIFORM) * shares + UNIFORM / len(shares))
        self.bin_weights.copy_(weights / (shares * weights).sum())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        lightness, colours = split_lab(batch["image"])
        if self.class_head is None:
            return self._loss(self.net(lightness).float(), colours)
        answer, overall = self.net.with_global(lightness)
        named = F.cross_entropy(self.class_head(overall).float(), batch["label"])
        return self._loss(answer.float(), colours) + self.class_weight * named

    def _loss(self, answer: Tensor, colours: Tensor) -> Tensor:
        """Loss of the net's answer (B, channels, H, W) against colours (B, 2, H, W) in [-1, 1]."""
        if self.loss == "huber":
            return F.huber_loss(answer, colours, delta=0.1)
        truth = self._shares(colours)
        weights = torch.einsum("bqhw,q->bhw", truth, self.bin_weights)
        return -((truth * answer.log_softmax(1)).sum(1) * weights).mean()

    def _shares(self, colours: Tensor) -> Tensor:
        """Return how much of a colour (B, 2, H, W) lies in each bin, (B, bins, H, W), summing to 1."""
        distances = (colours[:, None] - self.bins[:, :, None, None]).square().sum(2)
        return (-distances / (2 * (0.5 * STEP / RANGE) ** 2)).softmax(1)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._measure(self.val_metrics, batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._measure(self.test_metrics, batch)

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)

    def _measure(self, metrics: MetricCollection, batch: dict[str, Tensor]) -> None:
        """Update the metrics, and keep what the pictures will show."""
        lightness, _ = split_lab(batch["image"])
        coloured = join_lab(lightness, self(lightness))
        update(metrics, coloured, batch["image"])
        new = slice(0, SHOWN - len(self.seen))
        shown = (lightness[new].cpu(), coloured[new].cpu(), batch["image"][new].cpu())
        self.seen += zip(*shown, strict=True)

    def _report(self, stage: str, metrics: MetricCollection) -> None:
        """Log PSNR, SSIM and colourfulness; show samples."""
        values = measured(metrics)
        self.log(f"{stage}/psnr", values.pop("psnr"), prog_bar=True, sync_dist=True)
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)
        rows = [[picture_of(picture) for picture in row] for row in zip(*self.seen, strict=True)]
        show(self, f"{stage}_samples", grid(dict(zip(("grey", "coloured", "truth"), rows, strict=True))))
        metrics.reset()
        self.seen = []

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a picture its ``path``, ``input``, which is its lightness, and ``coloured``, of the same size."""
        image = batch["image"].expand(-1, 3, -1, -1)
        coloured = with_alpha(picture_of(self.coloured(image)[0].cpu()), batch.get("alpha"))
        return [{"path": batch["path"][0], "input": picture_of(split_lab(image)[0][0].cpu()), "coloured": coloured}]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return two pictures."""
        return {"image": ("BCHW", torch.rand(2, 3, 48, 48))}

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the metrics of leaving the pictures grey."""
        return self._evaluate(datamodule, (0.0, 0.0))

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return the metrics of one colour for everything, the mean of the training part: a tinted photo."""
        total, count = torch.zeros(2), 0
        for batch in datamodule.in_order("train"):
            _, colours = split_lab(datamodule.on_after_batch_transfer(batch, 0)["image"])
            total, count = total + colours.sum((0, 2, 3)), count + colours[:, 0].numel()
        return {"mean colour": self._evaluate(datamodule, tuple((total / count).tolist()))}

    def _evaluate(self, datamodule: Any, colour: tuple[float, ...]) -> dict[str, float]:
        """Measure one colour for everything on the test part."""
        metrics = colour_metrics()
        for batch in datamodule.test_dataloader():
            image = datamodule.on_after_batch_transfer(batch, 0)["image"]
            lightness, colours = split_lab(image)
            update(metrics, join_lab(lightness, torch.tensor(colour)[:, None, None].expand_as(colours)), image)
        return {f"test/{name}": float(value) for name, value in measured(metrics).items()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))


def split_lab(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lightness (B, 1, H, W) in [0, 1] and the colours (B, 2, H, W) in [-1, 1] of pictures in [0, 1]."""
    with torch.autocast(image.device.type, enabled=False):  # a matrix product of colours would lose most of their bits
        lab = rgb_to_lab(image.float())
    return lab[:, :1] / 100, lab[:, 1:] / RANGE


def join_lab(lightness: Tensor, colours: Tensor) -> Tensor:
    """Return pictures (B, 3, H, W) in [0, 1] of lightness (B, 1, H, W) and colours (B, 2, H, W)."""
    with torch.autocast(lightness.device.type, enabled=False):
        return lab_to_rgb(torch.cat([lightness.float() * 100, colours.float() * RANGE], dim=1)).clamp(0, 1)


def colour_bins() -> Tensor:
    """Return the bins of a grid over the colours that a screen can show, (bins, 2) in [-1, 1]."""
    steps = torch.linspace(0, 1, 33)
    cube = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")).flatten(1)[None, :, :, None]
    _, colours = split_lab(cube)  # (1, 2, 33 ** 3, 1)
    places = (colours[0, :, :, 0].T * RANGE / STEP).round().unique(dim=0)
    return places * STEP / RANGE


def colourfulness(image: Tensor) -> Tensor:
    """Return the colourfulness (B,) of pictures (B, 3, H, W) in [0, 1], in 255ths (Hasler and Suesstrunk 2003)."""
    red, green, blue = (255 * image).unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1).flatten(2)  # (B, 2, pixels)
    deviation, mean = torch.std_mean(opponents, dim=2, correction=0)
    return deviation.norm(dim=1) + 0.3 * mean.norm(dim=1)


def colour_metrics() -> MetricCollection:
    """Return what is measured of coloured pictures, as means over pictures."""
    metrics: dict[str, Metric | MetricCollection] = {
        "psnr": PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3)),
        "ssim": SSIM(),
        "colourfulness": MeanMetric(),
        "true_colourfulness": MeanMetric(),
    }
    return MetricCollection(metrics, compute_groups=False)


def update(metrics: MetricCollection, coloured: Tensor, truth: Tensor) -> None:
    """Take pictures (B, 3, H, W) in [0, 1] into account."""
    for name in ("psnr", "ssim"):
        metrics[name].update(coloured, truth)
    metrics["colourfulness"].update(colourfulness(coloured))
    metrics["true_colourfulness"].update(colourfulness(truth))


def measured(metrics: MetricCollection) -> dict[str, Tensor]:
    """Return PSNR, SSIM, colourfulness, and the share of the true one that it is."""
    values = metrics.compute()
    share = values["colourfulness"] / values.pop("true_colourfulness").clamp(min=1e-6)
    return values | {"share_of_colourfulness": share}

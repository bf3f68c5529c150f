"""Super-resolution: pictures several times as large, with the detail that enlarging alone does not give."""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchmetrics.image import PeakSignalNoiseRatio

from engine.errors import UserError
from engine.pictures import grid, middle, picture_of, picture_of_bytes, show, with_alpha
from engine.schedules import WarmupCosine, scheduled
from engine.similarity import SSIM
from engine.tiles import in_tiles

SHOWN, ZOOM = 6, 96  # pictures in a row of samples, and side in pixels of the window of each that is shown


class SuperResolutionTask(LightningModule):
    """Mean absolute error of what a net makes of pictures that were scaled down; PSNR and SSIM of the luma.

    Pictures are scaled down by bicubic interpolation with antialiasing and rounded to bytes, and measured as in the
    literature: means over pictures, on the luma of BT.601, without a border as wide as the scale.

    Args:
        net: Network from small pictures (B, in_channels, H, W) to large ones (B, in_channels, scale * H, scale * W).
        in_channels: Channels of a picture.
        optimizer: Optimizer of the network's parameters.
        scale: How many times larger pictures become.
        scheduler: Learning rate schedule.
    """

    primary = "psnr_y"
    perfect = math.inf
    shown: tuple[str, ...] = ("bicubic", "net")  # rows of the pictures, above the truth

    def __init__(
        self,
        net: Callable[[int, int, int], nn.Module],
        in_channels: int,
        optimizer: OptimizerCallable,
        scale: int = 4,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if scale < 2:
            raise UserError(f"model.scale is {scale}; pictures can become 2, 3, 4, ... times as large")
        self.net = net(in_channels, in_channels, scale)
        self.scale, self.optimizer, self.scheduler = scale, optimizer, scheduler
        self.val_metrics = luma_metrics()
        self.test_metrics = luma_metrics()
        self.seen: list[tuple[Tensor, ...]] = []  # enlarged in the ways of ``shown``, and the true picture

    def forward(self, small: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) in [0, 1] to pictures (B, in_channels, scale * H, scale * W)."""
        return self.net(small)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor | dict[str, Tensor]:
        large, small = self._pair(batch["image"])
        return F.l1_loss(self(small).float(), large)

    def _pair(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return pictures (B, C, H, W), cut to a multiple of the scale, and the same scaled down, rounded to bytes."""
        H, W = (side - side % self.scale for side in pictures.shape[2:])
        if not H or not W:
            raise UserError(
                f"a picture of {pictures.shape[3]} x {pictures.shape[2]} pixels is too small for {self.scale}x"
            )
        large = pictures[..., :H, :W]
        return large, in_bytes(resized(large, 1 / self.scale))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._measure(self.val_metrics, batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._measure(self.test_metrics, batch)

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)

    def _measure(self, metrics: MetricCollection, batch: dict[str, Tensor]) -> None:
        """Update the metrics, and keep what the pictures will show: the middle of the first pictures."""
        large, small = self._pair(batch["image"])
        enlarged = in_bytes(self(small))
        self._update(metrics, enlarged, large)
        count = SHOWN - len(self.seen)
        if count > 0:
            shown = (*self._compared(small[:count]), enlarged[:count], large[:count])
            self.seen += zip(*(middle(pictures, ZOOM).cpu() for pictures in shown), strict=True)

    def _compared(self, small: Tensor) -> list[Tensor]:
        """Return what other ways than the net make of pictures (B, C, H, W): (B, C, scale * H, scale * W) each."""
        return [resized(small, self.scale)]

    def _update(self, metrics: MetricCollection, enlarged: Tensor, large: Tensor) -> None:
        """Take enlarged and true pictures (B, C, H, W) in [0, 1] into account."""
        metrics.update(self._measured(enlarged), self._measured(large))

    def _measured(self, pictures: Tensor) -> Tensor:
        """Return what of pictures (B, C, H, W) is measured: their luma without the border, (B, 1, H', W')."""
        border = self.scale if min(pictures.shape[2:]) > 2 * self.scale + 11 else 0  # SSIM's windows are 11 wide
        return luma(pictures)[..., border : pictures.shape[2] - border, border : pictures.shape[3] - border]

    def _values(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """Return what was measured, by name, and begin anew."""
        values = metrics.compute()
        metrics.reset()
        return values

    def _report(self, stage: str, metrics: MetricCollection) -> None:
        """Log what was measured; show windows of samples."""
        for name, value in self._values(metrics).items():
            self.log(f"{stage}/{name}", value, prog_bar=name == self.primary, sync_dist=True)
        rows = [[picture_of(picture) for picture in row] for row in zip(*self.seen, strict=True)]
        captions = [self._caption(shown, truth) for *shown, truth in self.seen]
        show(self, f"{stage}_samples", grid(dict(zip((*self.shown, "truth"), rows, strict=True)), captions))
        self.seen = []

    def _caption(self, shown: list[Tensor], truth: Tensor) -> str:
        """Return the PSNR of pictures (C, H, W)."""
        decibels = [
            peak_signal_noise_ratio(luma(picture[None]), luma(truth[None]), data_range=1.0) for picture in shown
        ]
        return ", ".join(f"{value:.1f}" for value in decibels) + " dB"

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a picture its ``path``, ``input``, and ``enlarged``, ``scale`` times as large."""
        image, alpha = batch["image"], batch.get("alpha")
        enlarged = with_alpha(picture_of_bytes(in_tiles(self, image, self.scale)), alpha)
        return [{"path": batch["path"][0], "input": picture_of(image[0].cpu()), "enlarged": enlarged}]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return two pictures."""
        return {"small": ("BCHW", torch.rand(2, self.hparams["in_channels"], 32, 32))}

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the metrics of bicubic interpolation."""
        return self._evaluate(datamodule, lambda small: resized(small, self.scale))

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return the metrics of repeating pixels."""
        return {"nearest pixel": self._evaluate(datamodule, lambda small: resized(small, self.scale, "nearest"))}

    @torch.inference_mode()
    def _evaluate(self, datamodule: Any, enlarge: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Measure a way to enlarge on the test part."""
        metrics = luma_metrics()
        for batch in datamodule.test_dataloader():
            large, small = self._pair(datamodule.on_after_batch_transfer(batch, 0)["image"])
            self._update(metrics, in_bytes(enlarge(small)), large)
        return {f"test/{name}": float(value) for name, value in self._values(metrics).items()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))


def resized(pictures: Tensor, scale: float, mode: str = "bicubic") -> Tensor:
    """Return pictures (B, C, H, W) at another size; bicubic is MATLAB's and Pillow's (a = -0.5), antialiased."""
    size = [round(side * scale) for side in pictures.shape[2:]]
    if mode == "nearest":
        return F.interpolate(pictures, size)
    return F.interpolate(pictures, size, mode=mode, antialias=True).clamp(0, 1)


def in_bytes(pictures: Tensor) -> Tensor:
    """Return pictures as they come back from a file: in [0, 1], of 256 values."""
    return (pictures.float().clamp(0, 1) * 255).round() / 255


def luma(pictures: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W) of BT.601, from 16/255 to 235/255, of pictures (B, 1 or 3, H, W) in [0, 1]."""
    weights = pictures.new_tensor([65.481, 128.553, 24.966]) / 255
    shares = weights if pictures.shape[1] == 3 else weights.sum(0, keepdim=True)
    return 16 / 255 + (pictures * shares[:, None, None]).sum(1, keepdim=True)


def luma_metrics() -> MetricCollection:
    """Return PSNR and SSIM (Wang et al. 2004: windows of 11 x 11, of a deviation of 1.5) as means over pictures."""
    return MetricCollection(
        {
            "psnr_y": PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3)),
            "ssim_y": SSIM(),
        }
    )

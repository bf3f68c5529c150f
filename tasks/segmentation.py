"""Semantic segmentation: one class for every pixel."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from PIL import Image
from skimage.filters import threshold_otsu
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from engine.pictures import grid, mask_picture, overlay, show
from engine.plots import bars
from engine.schedules import WarmupCosine, scheduled

IGNORE = 255  # class of pixels that count for nothing
SHOWN = 8  # pictures in a row of samples


class SegmentationTask(LightningModule):
    """Cross entropy plus Dice loss; mean intersection over union (IoU), summed over all pixels of the data set.

    Args:
        net: Network from pictures (B, in_channels, H, W) to class logits (B, num_classes, H, W).
        in_channels: Channels of a picture.
        num_classes: Number of classes, background included.
        class_names: Names of the classes.
        optimizer: Optimizer of the network's parameters.
        balanced: Whether cross entropy weighs a class by the root of its rarity among the training pixels.
        scheduler: Learning rate schedule.
    """

    primary = "iou"
    perfect = 1.0
    class_weights: Tensor

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        in_channels: int,
        num_classes: int,
        class_names: list[str],
        optimizer: OptimizerCallable,
        balanced: bool = False,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = net(in_channels, num_classes)
        self.class_names, self.balanced = class_names, balanced
        self.optimizer, self.scheduler = optimizer, scheduler
        self.register_buffer("class_weights", torch.ones(num_classes))
        self.val_metrics = segmentation_metrics(num_classes)
        self.test_metrics = segmentation_metrics(num_classes)
        self.seen: list[tuple[float, Tensor, Tensor, Tensor]] = []  # IoU, picture, prediction, truth: to be shown

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) in [0, 1] to class logits (B, num_classes, H, W)."""
        # Every picture is standardized by itself: exposure differs, and the checkpoint needs no statistics beside it.
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        deviation = images.std(dim=(1, 2, 3), keepdim=True)
        return self.net((images - mean) / (deviation + 0.01))

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and self.balanced and data:
            counts = torch.tensor(data.class_counts).clamp(min=1)
            weights = (counts.sum() / counts).sqrt()
            self.class_weights.copy_(weights / weights.mean())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self._loss(self(batch["image"]), batch["mask"])

    def _loss(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Loss of logits (B, num_classes, H, W) against class ids (B, H, W)."""
        log_shares = logits.float().log_softmax(dim=1)  # half precision cannot count pixels
        cross_entropy = F.nll_loss(log_shares, mask, self.class_weights, ignore_index=IGNORE)
        # Dice: overlap over size of each class in the whole batch, so that small classes count as much as large ones.
        counted = (mask != IGNORE).to(log_shares.dtype)
        truth = mask.where(mask != IGNORE, 0)  # (B, H, W)
        shares = log_shares.exp()
        right = shares.gather(1, truth[:, None])[:, 0] * counted
        empty = right.new_zeros(logits.shape[1])
        overlaps = empty.index_add(0, truth.flatten(), right.flatten())
        sizes = (shares * counted[:, None]).sum((0, 2, 3)).index_add(0, truth.flatten(), counted.flatten())
        return cross_entropy + 1 - ((2 * overlaps + 1) / (sizes + 1)).mean()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self(batch["image"])
        self.log("val/loss", self._loss(logits, batch["mask"]), batch_size=len(logits), sync_dist=True)
        self.val_metrics.update(logits, batch["mask"])
        self._remember(batch["image"], logits.argmax(1), batch["mask"])

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self(batch["image"])
        self.test_metrics.update(logits, batch["mask"])
        self._remember(batch["image"], logits.argmax(1), batch["mask"])

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)

    def _remember(self, images: Tensor, predicted: Tensor, masks: Tensor) -> None:
        """Keep what the pictures will show: the first samples and the worst."""
        for image, prediction, mask in zip(images, predicted, masks, strict=True):
            right = ((prediction == mask) & (mask > 0) & (mask != IGNORE)).sum()
            either = (((prediction > 0) | (mask > 0)) & (mask != IGNORE)).sum()
            self.seen.append((float(right / either.clamp(min=1)), image.cpu(), prediction.cpu(), mask.cpu()))
        worst = sorted(self.seen[SHOWN:], key=lambda sample: sample[0])[:SHOWN]
        self.seen = self.seen[:SHOWN] + worst

    def _report(self, stage: str, metrics: MetricCollection) -> None:
        """Log IoU, the IoU of every class and pixel accuracy; show samples, the worst of them, and the classes."""
        values = metrics.compute()
        metrics.reset()
        per_class = dict(zip(self.class_names, values["per_class"].tolist(), strict=True))
        self.log(f"{stage}/iou", values["iou"], prog_bar=True, sync_dist=True)
        self.log(f"{stage}/pixel_accuracy", values["pixel_accuracy"], sync_dist=True)
        self.log_dict({f"{stage}/iou_{name}": iou for name, iou in per_class.items()}, sync_dist=True)
        show(self, f"{stage}_samples", self._draw(self.seen[:SHOWN]))
        show(self, f"{stage}_worst", self._draw(sorted(self.seen, key=lambda sample: sample[0])[:SHOWN]))
        show(self, f"{stage}_iou_per_class", bars(per_class, f"{stage}/iou = {values['iou']:.3f}"))
        self.seen = []

    def _draw(self, samples: list[tuple[float, Tensor, Tensor, Tensor]]) -> Image.Image:
        rows: dict[str, list[Image.Image]] = {"input": [], "prediction": [], "truth": [], "overlay": []}
        for _, image, prediction, mask in samples:
            pixels = (image.movedim(0, -1).numpy() * 255).round().astype(np.uint8)
            rows["input"].append(Image.fromarray(np.broadcast_to(pixels, (*mask.shape, 3)).copy()))
            rows["prediction"].append(mask_picture(prediction.numpy(), len(self.class_names)))
            rows["truth"].append(mask_picture(mask.numpy(), len(self.class_names)))
            rows["overlay"].append(overlay(pixels, prediction.numpy(), len(self.class_names)))
        return grid(rows, [f"IoU of objects {iou:.2f}" for iou, *_ in samples])

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a file its ``path``, ``input``, and ``mask`` and ``overlay``, pictures of the file's own size."""
        height, width = (int(side) for side in batch["size"])
        logits = self(batch["image"])
        mask = torch.zeros(height, width, dtype=torch.uint8)
        highest = torch.full((height, width), -torch.inf)
        for c in range(logits.shape[1]):  # class by class: a large photo with many classes would not fit at once
            enlarged = F.interpolate(logits[:, c : c + 1].float(), (height, width), mode="bilinear")[0, 0].cpu()
            mask[enlarged > highest] = c
            highest = torch.maximum(highest, enlarged)
        pixels = F.interpolate(batch["image"], (height, width), mode="bilinear")[0].movedim(0, -1).cpu().numpy()
        ids, num_classes = mask.numpy(), len(self.class_names)
        pixels = (pixels * 255).round().astype(np.uint8)
        record = {"path": batch["path"][0], "input": overlay(pixels, np.zeros_like(ids), num_classes)}
        return [{**record, "mask": mask_picture(ids, num_classes), "overlay": overlay(pixels, ids, num_classes)}]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return two pictures."""
        return {"images": ("BCHW", torch.rand(2, self.hparams["in_channels"], 48, 48))}

    def baseline(self, datamodule: LightningDataModule) -> dict[str, float]:
        """Return the metrics of calling everything background."""
        return self._measure(datamodule, lambda image: torch.zeros_like(image[0], dtype=torch.long))

    def references(self, datamodule: LightningDataModule) -> dict[str, dict[str, float]]:
        """Return the metrics of Otsu's threshold (1979), bright on dark, where there are two classes."""
        if len(self.class_names) != 2:
            return {}

        def otsu(image: Tensor) -> Tensor:
            grey = image.mean(0).numpy()
            return torch.from_numpy(grey > threshold_otsu(grey)).long()

        return {"otsu": self._measure(datamodule, otsu)}

    def _measure(self, datamodule: LightningDataModule, predict: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Measure a method that maps a picture (C, H, W) in [0, 1] to class ids (H, W) on the test part."""
        metrics = segmentation_metrics(len(self.class_names)).to(self.device)
        for batch in datamodule.test_dataloader():
            batch = datamodule.on_after_batch_transfer(batch, 0)
            predicted = torch.stack([predict(image) for image in batch["image"]])
            metrics.update(predicted.to(self.device), batch["mask"].to(self.device))
        values = metrics.compute()
        return {"test/iou": float(values["iou"]), "test/pixel_accuracy": float(values["pixel_accuracy"])}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))


def segmentation_metrics(num_classes: int) -> MetricCollection:
    """Return mean IoU over the classes that occur, IoU per class, and pixel accuracy, each over the whole data set."""
    return MetricCollection(
        {
            "iou": MulticlassJaccardIndex(num_classes, average="macro", ignore_index=IGNORE),
            "per_class": MulticlassJaccardIndex(num_classes, average="none", ignore_index=IGNORE),
            "pixel_accuracy": MulticlassAccuracy(num_classes, average="micro", ignore_index=IGNORE),
        }
    )

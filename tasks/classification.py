"""Classification: one class for a picture, or for a row of numbers."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchvision.transforms.v2 import CutMix, MixUp

from engine.errors import UserError
from engine.pictures import grid, picture_of, show
from engine.plots import decision_regions
from engine.schedules import WarmupCosine, scheduled
from tasks.class_metrics import classification_metrics, filled_table, report, start_from

SHOWN = 8  # pictures in a row of samples
POINTS = 500  # that are drawn in a plane of decision regions


class ClassificationTask(LightningModule):
    """Cross entropy; accuracy (top-1, top-5, of every class), confusion and calibration on all samples of a part.

    Inputs are pictures (B, in_channels, H, W) or rows of numbers (B, in_channels).

    Args:
        net: Network from inputs to class logits (B, num_classes); its last layer is called ``head``.
        in_channels: Channels of a picture, or numbers in a row.
        num_classes: Number of classes.
        class_names: Names of the classes.
        optimizer: Optimizer of the network's parameters.
        label_smoothing: Share of the truth that is spread over all classes, in [0, 1).
        mixup: Alpha of mixup, which trains on weighted means of two pictures; 0 for none
            (https://arxiv.org/abs/1710.09412).
        cutmix: Alpha of cutmix, which puts a window of one picture into another; 0 for none. With mixup, each batch
            gets one of both (https://arxiv.org/abs/1905.04899).
        mirror: Whether an answer is the mean of those to a picture and to its mirror image; not while training.
        freeze: Whether only the last layer is trained.
        init_from: Checkpoint or run folder to start from; layers of another shape, such as the last one for another
            number of classes, start anew.
        scheduler: Learning rate schedule.
    """

    primary = "accuracy"
    perfect = 1.0
    net: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        in_channels: int,
        num_classes: int,
        class_names: list[str],
        optimizer: OptimizerCallable,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mirror: bool = False,
        freeze: bool = False,
        init_from: str | None = None,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not num_classes:
            raise UserError("the data have no labels; a folder of pictures needs a folder within it for each class")
        self.net = net(in_channels, num_classes)
        self.class_names, self.label_smoothing, self.init_from = class_names, label_smoothing, init_from
        self.mirror = mirror
        self.optimizer, self.scheduler = optimizer, scheduler
        self.mixers = [MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
        self.mixers += [CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
        self.register_buffer("mean", torch.zeros(in_channels))
        self.register_buffer("std", torch.ones(in_channels))
        self.val_metrics = classification_metrics(num_classes)
        self.test_metrics = classification_metrics(num_classes)
        self.seen: list[tuple[float, Tensor, Tensor, int]] = []  # loss, input, probabilities, truth: to be shown
        self.train_head_only(freeze)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) in [0, 1], or rows (B, in_channels), to class logits (B, num_classes)."""
        shape = (-1, *[1] * (inputs.ndim - 2))
        inputs = (inputs - self.mean.view(shape)) / self.std.view(shape)
        if self.mirror and not self.training and inputs.ndim == 4:  # rows have no mirror image
            return (self.net(inputs) + self.net(inputs.flip(-1))) / 2
        return self.net(inputs)

    def setup(self, stage: str) -> None:
        if stage != "fit" or self.trainer.ckpt_path:  # a checkpoint brings all of it
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        mean, std = data.statistics
        # Pretrained weights expect the statistics of the pictures that they were trained on.
        self.mean.copy_(torch.as_tensor(getattr(self.net, "mean", None) or mean))
        self.std.copy_(torch.as_tensor(getattr(self.net, "std", None) or std).clamp(min=1e-6))
        if self.init_from:
            self.print(start_from(self.net, self.init_from, self.class_names))

    def train_head_only(self, only: bool) -> None:
        """Train only the last layer, or all of them."""
        self.head_only = only
        self.net.requires_grad_(not only)
        self.net.head.requires_grad_(True)

    def train(self, mode: bool = True) -> "ClassificationTask":
        super().train(mode)
        if self.head_only:
            self.net.eval()  # else batch norm would go on averaging
        return self

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        inputs, truth = inputs_of(batch), batch["label"]
        if self.mixers:
            mixer = self.mixers[int(torch.randint(len(self.mixers), ()))]
            inputs, truth = mixer(inputs, truth)  # now (B, num_classes)
        return F.cross_entropy(self(inputs), truth, label_smoothing=self.label_smoothing)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self(inputs_of(batch))
        self.log("val/loss", F.cross_entropy(logits, batch["label"]), batch_size=len(logits), sync_dist=True)
        self._measure(self.val_metrics, logits, batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._measure(self.test_metrics, self(inputs_of(batch)), batch)

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)

    def _measure(self, metrics: MetricCollection, logits: Tensor, batch: dict[str, Tensor]) -> None:
        """Take logits (B, num_classes) into account, and keep what the pictures will show: first and worst samples."""
        inputs, label = inputs_of(batch), batch["label"]
        probabilities = logits.float().softmax(1)
        metrics.update(probabilities, label)
        losses = F.cross_entropy(logits.float(), label, reduction="none").tolist()
        self.seen += list(zip(losses, inputs.cpu(), probabilities.cpu(), label.tolist(), strict=True))
        first = SHOWN if inputs.ndim == 4 else POINTS
        self.seen = self.seen[:first] + sorted(self.seen[first:], key=lambda sample: -sample[0])[:SHOWN]

    def _report(self, stage: str, metrics: MetricCollection) -> None:
        """Log the metrics of a part; show samples, and the worst of them."""
        report(self, stage, metrics)
        if self.seen[0][1].ndim == 3:
            show(self, f"{stage}_samples", self._draw(self.seen[:SHOWN]))
            show(self, f"{stage}_most_confused", self._draw(sorted(self.seen, key=lambda s: -s[0])[:SHOWN]))
        elif len(self.mean) == 2:
            show(self, f"{stage}_decision_regions", self._draw_regions())
        self.seen = []

    def _draw(self, samples: list[tuple[float, Tensor, Tensor, int]]) -> Image.Image:
        """Draw pictures above what is said of them and, where that is not the truth, what they are."""
        rows = {"input": [picture_of(image) for _, image, _, _ in samples]}
        if hasattr(self.net, "attention_map"):
            images = torch.stack([image for _, image, _, _ in samples]).to(self.device)
            looked_at = self.net.attention_map((images - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1))
            rows["attention"] = [picture_of((place / place.max())[None]) for place in looked_at.float().cpu()]
        captions = []
        for _, _, probabilities, label in samples:
            said = int(probabilities.argmax())
            caption = f"{self.class_names[said]} {probabilities[said]:.2f}"
            captions.append(caption if said == label else f"{caption}, is {self.class_names[label]}")
        return grid(rows, captions)

    def _draw_regions(self) -> Image.Image:
        """Draw the class of every point of the plane."""
        points = torch.stack([point for _, point, _, _ in self.seen])  # (N, 2)
        labels = [label for *_, label in self.seen]
        low, high = points.amin(0), points.amax(0)
        margin = 0.25 * (high - low).clamp(min=1e-6)
        (x0, y0), (x1, y1) = (low - margin).tolist(), (high + margin).tolist()
        y, x = torch.meshgrid(torch.linspace(y0, y1, 120), torch.linspace(x0, x1, 120), indexing="ij")
        probabilities = self(torch.stack([x, y], dim=-1).view(-1, 2).to(self.device)).float().softmax(1)
        classes = probabilities.argmax(1).view(120, 120).cpu().numpy()
        right = sum(int(p.argmax()) == label for _, _, p, label in self.seen)
        title = f"{right} of {len(labels)} right after {self.global_step} steps"
        return decision_regions(classes, (x0, x1, y0, y1), points.numpy(), labels, self.class_names, title)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a picture its ``path``, ``input``, ``class``, ``probability`` and the next likely ``others``.

        For a table return its ``path`` and ``predictions``, its rows with the class and the probability of each.
        """
        inputs = batch["features"][0] if "table" in batch else batch["image"]
        path, probabilities = batch["path"][0], self(inputs).float().softmax(1).cpu()
        if "table" in batch:
            return [{"path": path, "predictions": filled_table(batch["table"][0], probabilities, self.class_names)}]
        best, *others = probabilities[0].argsort(descending=True)[:4].tolist()
        record = {"path": path, "input": picture_of(batch["image"][0].cpu()), "class": self.class_names[best]}
        named = {c: f"{probabilities[0, c]:.4f}" for c in (best, *others)}
        others_named = ", ".join(f"{self.class_names[c]} {named[c]}" for c in others)
        return [{**record, "probability": named[best], "others": others_named}]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return two pictures, or two rows."""
        side = getattr(datamodule, "image_size", None)  # rows have none
        shape = (2, len(self.mean), side, side) if side else (2, len(self.mean))
        return {"inputs": ("BCHW"[: len(shape)], torch.rand(shape))}

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the metrics of always naming the most frequent class of the training part, then the next ones."""
        labels = torch.cat([batch["label"] for batch in datamodule.in_order("train")])
        counts = torch.bincount(labels, minlength=len(self.class_names)).float()
        return self._evaluate(datamodule, lambda inputs: counts.expand(len(inputs), -1))

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return the metrics of naming the class whose mean training input is nearest."""
        sums, counts = torch.zeros(()), torch.zeros(len(self.class_names))
        for batch in datamodule.in_order("train"):
            batch = datamodule.on_after_batch_transfer(batch, 0)
            hot = F.one_hot(batch["label"], len(self.class_names)).float()
            sums, counts = sums + hot.T @ inputs_of(batch).flatten(1), counts + hot.sum(0)
        centroids = sums / counts[:, None]
        return {
            "nearest centroid": self._evaluate(datamodule, lambda inputs: -torch.cdist(inputs.flatten(1), centroids))
        }

    def _evaluate(self, datamodule: LightningDataModule, score: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Measure a method that maps inputs to scores (B, num_classes) on the test part."""
        metrics = classification_metrics(len(self.class_names))
        for batch in datamodule.test_dataloader():
            batch = datamodule.on_after_batch_transfer(batch, 0)
            metrics.update(score(inputs_of(batch)).softmax(1), batch["label"])
        values = metrics.compute()
        names = ("accuracy", "top5_accuracy")
        return {f"test/{name}": float(values[name]) for name in names if name in values}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))


def inputs_of(batch: dict[str, Tensor]) -> Tensor:
    """Return a batch's pictures (B, C, H, W), or its rows of numbers (B, C)."""
    return batch["image"] if "image" in batch else batch["features"]

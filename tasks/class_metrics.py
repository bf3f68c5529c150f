"""What classification of pictures, numbers and texts have in common: metrics, their pictures, where a net starts."""

import io
from typing import Any

import pandas as pd
import torch
from lightning import LightningModule
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
)

from engine.checkpoints import read_best
from engine.errors import UserError
from engine.pictures import show
from engine.plots import bars, heatmap, reliability


def classification_metrics(num_classes: int) -> MetricCollection:
    """Return what is measured of probabilities (B, num_classes), over all samples of a part."""
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "per_class": MulticlassAccuracy(num_classes, average="none"),
        "confusion": MulticlassConfusionMatrix(num_classes),
        "calibration_error": MulticlassCalibrationError(num_classes),
    }
    if num_classes > 5:
        metrics["top5_accuracy"] = MulticlassAccuracy(num_classes, average="micro", top_k=5)
    return MetricCollection(metrics, compute_groups=False)


def report(task: LightningModule, stage: str, metrics: MetricCollection) -> None:
    """Log accuracies and the calibration error of a part, of the test part show confusion and calibration, and forget.

    Args:
        task: A task that has ``class_names``.
        stage: ``val`` or ``test``.
        metrics: What ``classification_metrics`` has returned, of all samples.
    """
    names: Any = task.class_names
    values = metrics.compute()
    per_class = dict(zip(names, values["per_class"].tolist(), strict=True))
    task.log(f"{stage}/accuracy", values["accuracy"], prog_bar=True, sync_dist=True)
    if "top5_accuracy" in values:
        task.log(f"{stage}/top5_accuracy", values["top5_accuracy"], sync_dist=True)
    task.log(f"{stage}/calibration_error", values["calibration_error"], sync_dist=True)
    task.log_dict({f"{stage}/accuracy_{name}": share for name, share in per_class.items()}, sync_dist=True)
    if stage == "test":  # once: Matplotlib takes its time
        title = f"test/accuracy = {values['accuracy']:.3f}"
        show(task, "test_confusion", heatmap(values["confusion"].cpu().numpy(), names, title))
        show(task, "test_accuracy_per_class", bars(per_class, title))
        states: Any = metrics["calibration_error"]
        confidences, right = (torch.cat(state).cpu().numpy() for state in (states.confidences, states.accuracies))
        title = f"test/calibration_error = {values['calibration_error']:.3f}"
        show(task, "test_calibration", reliability(confidences, right, title))
    metrics.reset()


def filled_table(table: str, probabilities: Tensor, class_names: list[str]) -> pd.DataFrame:
    """Return the rows of a CSV file with the likeliest class of each, and its probability (N, num_classes)."""
    rows = pd.read_csv(io.StringIO(table), dtype=str, keep_default_na=False)
    highest, classes = probabilities.max(1)
    return rows.assign(prediction=[class_names[c] for c in classes], probability=highest.numpy())


def start_from(net: Any, source: str, class_names: list[str], tokenizer: str | None = None) -> str:
    """Give a net the weights of a checkpoint that fit its shapes, those of its last layer if the classes are the same.

    Args:
        net: The net, with its last layer as ``head``.
        source: A checkpoint, or a run folder, of which the best checkpoint is meant.
        class_names: Classes of the net.
        tokenizer: What the net's tokens are, as JSON, if it reads texts.

    Returns:
        A line on what starts anew.

    Raises:
        UserError: There is no such checkpoint, nothing of it fits, or its tokens are others.
    """
    checkpoint = read_best(source, "model.init_from")
    state, facts = checkpoint["state_dict"], checkpoint["hyper_parameters"]
    if tokenizer is not None and facts.get("tokenizer") != tokenizer:
        raise UserError(f"model.init_from: {source} has other tokens than the data; add --data.tokenizer_from {source}")
    given = {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
    wanted = net.state_dict(keep_vars=True)
    last = {id(parameter) for parameter in net.head.parameters()} if facts.get("class_names") != class_names else set()
    taken = {name: value for name, value in wanted.items() if id(value) not in last}
    fits = {name: name in taken and taken[name].shape == value.shape for name, value in given.items()}
    fitting = {name: value for name, value in given.items() if fits[name]}
    fresh = [name for name in wanted if name not in fitting]
    if not fitting:
        raise UserError(f"model.init_from: nothing of {source} fits the net")
    net.load_state_dict(fitting, strict=False)
    return f"started from {source}: {len(fitting)} of {len(wanted)} tensors fit; new: {', '.join(fresh) or 'none'}"

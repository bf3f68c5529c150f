"""What a training leaves in its folder: two checkpoints, curves, and a summary of what was measured."""

import math
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from engine.loggers import TableLogger
from engine.pictures import curves, show
from engine.runs import write_json


class Record(Callback):
    """Counts time and samples, logs the learning rate, and keeps both over a resumption."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.samples = 0
        self.since = 0.0
        self.validated_at = -1  # step of the newest validation

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.since = time.monotonic()
        for logger in trainer.loggers:
            if isinstance(logger, TableLogger):
                logger.cut(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        self.samples += len(next(value for value in batch.values() if isinstance(value, Tensor))) * trainer.world_size
        if trainer.global_step % trainer.log_every_n_steps == 0:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            for logger in trainer.loggers:
                logger.log_metrics({"epoch": trainer.current_epoch, "train/lr": rate}, trainer.global_step - 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated_at = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = self.elapsed()
        self.since = 0.0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TableLogger):
                logger.flush()  # a resumed run goes on behind what the checkpoint has seen

    def elapsed(self) -> float:
        """Return the seconds of training so far, those before a resumption included."""
        return self.seconds + (time.monotonic() - self.since if self.since else 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.elapsed(), "samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.samples = state_dict["seconds"], state_dict["samples"]


def checkpointing(folder: Path, task: LightningModule) -> ModelCheckpoint:
    """Return the callback that keeps ``best.ckpt``, by the validation twin of the task's primary metric, and ``last.ckpt``."""
    return ModelCheckpoint(
        folder / "checkpoints",
        filename="best",
        monitor=f"val/{task.primary}",
        mode="min" if task.perfect == 0 else "max",
        save_last=True,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


def finish_checkpoints(
    trainer: Trainer, task: LightningModule, datamodule: LightningDataModule, checkpoint: ModelCheckpoint, record: Record
) -> Path:
    """End every training with a validation, and return the best checkpoint, a copy of the last if that is the best.

    A training that stops within an epoch, at its last step say, has not been validated where it ended.
    """
    folder = Path(checkpoint.dirpath or "")
    best, last = folder / "best.ckpt", folder / "last.ckpt"
    if record.validated_at != trainer.global_step or not best.exists():
        earlier = checkpoint.best_model_score
        trainer.validate(task, datamodule=datamodule, verbose=False)
        score = trainer.callback_metrics[f"val/{task.primary}"]
        if not best.exists() or earlier is None or (score > earlier if checkpoint.mode == "max" else score < earlier):
            shutil.copyfile(last, best)
    return best


def skill(task: LightningModule, metric: float, baseline: float) -> float:
    """Return how far a metric is from the baseline on the way to perfection: 1 is perfect, below 0 worse than naive.

    Where there is no perfect value, as for decibels, it is the plain difference.
    """
    if math.isinf(task.perfect):
        return metric - baseline
    return (metric - baseline) / (task.perfect - baseline)


def summarize(
    trainer: Trainer, task: LightningModule, datamodule: LightningDataModule, record: Record, recipe: str, seed: int
) -> dict[str, Any]:
    """Measure the baseline and the references beside the task, write ``summary.json`` and the curves, and return it."""
    folder = Path(trainer.default_root_dir)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
    baseline = task.baseline(datamodule)
    primary = f"test/{task.primary}"
    device = trainer.strategy.root_device
    on_gpu = device.type == "cuda"
    kilo = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo
    summary = {
        "recipe": recipe,
        "task": type(task).__name__,
        "primary": primary,
        "metrics": metrics,
        "baseline": baseline,
        "skill": skill(task, metrics[primary], baseline[primary]),
        "references": task.references(datamodule),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(record.seconds, 1),
        "samples_per_second": round(record.samples / max(record.seconds, 1e-9), 1),
        "peak_memory_mb": round(peak / 2**20),
        "parameters": sum(parameter.numel() for parameter in task.parameters()),
        "seed": seed,
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads",
        "precision": str(trainer.precision),
        "checkpoint": "checkpoints/best.ckpt",
    }
    table = folder / "metrics.csv"
    if table.exists():
        show(task, "curves", curves(table))
    write_json(folder / "summary.json", summary)
    return summary

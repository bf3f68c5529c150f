"""What a training leaves in its folder: two checkpoints, curves, and a summary of what was measured."""

import math
import random
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, distributed

from engine.contract import Task
from engine.doctor import Doctor
from engine.loggers import DashboardLogger, TableLogger
from engine.pictures import show
from engine.plots import curves
from engine.runs import write_json


class Record(Callback):
    """What makes a resumed training the same as one that was never stopped, and a count of time and samples.

    Checkpoints hold the states of all random generators, and ``metrics.csv`` what was logged until then. The order of
    samples and the random changes to them need no state: they follow from the seed, the epoch and the sample.

    Args:
        steps: Training steps between two values of the training loss that are logged.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.seconds = 0.0
        self.samples = 0
        self.step = 0
        self.since = 0.0
        self.validated_at = -1  # step of the newest validation
        self.restored: dict[str, Any] = {}  # from the checkpoint of a training that is resumed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds, self.samples = self.restored.get("seconds", 0.0), self.restored.get("samples", 0)
        self.step, self.validated_at = self.restored.get("step", 0), self.restored.get("validated_at", -1)
        for logger in trainer.loggers:
            if isinstance(logger, TableLogger):
                logger.cut(self.step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.since = time.monotonic()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        if self.restored:  # any earlier, and making the data loaders would draw from them
            set_random_states(self.restored["random_states"])
            self.restored = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        self.step = trainer.global_step
        # What the step has returned goes to the loggers at once: every ``log`` of a module costs milliseconds.
        if trainer.global_step and trainer.global_step % self.steps == 0:
            values = {f"train/{name}": float(value) for name, value in outputs.items()}
            for logger in trainer.loggers:
                logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=trainer.global_step - 1)
        self.samples += len(next(value for value in batch.values() if isinstance(value, Tensor))) * trainer.world_size

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:  # each device has its own running means; those of the first are saved
            for buffer in pl_module.buffers():
                distributed.broadcast(buffer, 0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated_at = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = self.elapsed()
        self.since = 0.0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TableLogger | DashboardLogger):
                logger.flush()  # a resumed run goes on behind what the checkpoint has seen

    def elapsed(self) -> float:
        """Return the seconds of training so far, those before a resumption included."""
        return self.seconds + (time.monotonic() - self.since if self.since else 0.0)

    def state_dict(self) -> dict[str, Any]:
        counts = {"seconds": self.elapsed(), "samples": self.samples, "step": self.step}
        return counts | {"validated_at": self.validated_at, "random_states": random_states()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict


def random_states() -> dict[str, Any]:
    """Return the states of all random generators in types that a checkpoint may hold."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.array(keys, np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Set what ``random_states`` has returned."""
    name, keys, *rest = states["numpy"]
    random.setstate(states["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])


def checkpointing(folder: Path, task: Task) -> tuple[ModelCheckpoint, ModelCheckpoint]:
    """Return what keeps ``best.ckpt``, chosen by the primary metric on the val part, and what keeps ``last.ckpt``.

    A task whose ``monitor`` is None lets no held-out data choose: its best is the last that was validated.

    Two, in this order, for ``save_last`` would write the last only when it is the best, too.
    """
    best = ModelCheckpoint(
        folder / "checkpoints",
        filename="best",
        monitor=getattr(task, "monitor", f"val/{task.primary}"),
        mode="min" if task.perfect == 0 else "max",
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        folder / "checkpoints", filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    return best, last


def finish_checkpoints(
    trainer: Trainer,
    task: LightningModule,
    datamodule: LightningDataModule,
    checkpoint: ModelCheckpoint,
    record: Record,
) -> Path:
    """End every training with a validation, and return the best checkpoint, a copy of the last if that is the best.

    A training that stops within an epoch, at its last step say, has not been validated where it ended.
    """
    folder = Path(checkpoint.dirpath or "")
    best, last = folder / "best.ckpt", folder / "last.ckpt"
    if record.validated_at != trainer.global_step or not best.exists():
        earlier, monitor = checkpoint.best_model_score, checkpoint.monitor
        trainer.validate(task, datamodule=datamodule, verbose=False)
        is_best = True
        if monitor and earlier is not None and best.exists():
            score = trainer.callback_metrics[monitor]
            is_best = bool(score > earlier if checkpoint.mode == "max" else score < earlier)
        if is_best:
            if trainer.is_global_zero:
                shutil.copyfile(last, best)
            trainer.strategy.barrier()
    return best


def skill(task: Task, metric: float, baseline: float) -> float:
    """Return how far a metric is from the baseline on the way to perfection: 1 is perfect, below 0 worse than naive.

    Where there is no perfect value, as for decibels, or the baseline has reached it, it is the plain difference.
    """
    if math.isinf(task.perfect) or baseline == task.perfect:
        return metric - baseline
    return (metric - baseline) / (task.perfect - baseline)


def summarize(
    trainer: Trainer,
    task: LightningModule,
    datamodule: LightningDataModule,
    record: Record,
    doctor: Doctor,
    recipe: str,
    seed: int,
) -> dict[str, Any]:
    """Measure the baseline and the references beside the task, write ``summary.json`` and the curves, and return it."""
    folder = Path(trainer.default_root_dir)
    measured = cast(Task, task)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
    baseline = measured.baseline(datamodule)
    primary = f"test/{measured.primary}"
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
        "skill": skill(measured, metrics[primary], baseline[primary]),
        "references": measured.references(datamodule),
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
    tests: Any = datamodule.test_dataloader()
    summary["doctor"] = doctor.conclude(task, summary, len(tests.dataset))
    if trainer.is_global_zero:
        if (folder / "metrics.csv").exists():
            show(task, "curves", curves(folder / "metrics.csv"))
        write_json(folder / "summary.json", summary)
    return summary

"""Learning rates as a function of how far the training has come."""

import math
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupCosine(LRScheduler):
    """Linear warm-up, then half a cosine down to zero at the end of the training.

    The end is the run's own limit, in steps, epochs or time, whichever comes first: the schedule never has to be told.

    Args:
        optimizer: Optimizer whose learning rates are scaled.
        warmup: Share of the training, in [0, 1), during which the learning rate rises.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.05) -> None:
        self.warmup = warmup
        self.trainer: Trainer | None = None
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Any]:
        at = progress(self.trainer, self.last_epoch) if self.trainer else 0.0
        if at < self.warmup:
            scale = max(at / self.warmup, 0.01)
        else:
            scale = 0.5 * (1 + math.cos(math.pi * (at - self.warmup) / (1 - self.warmup)))
        return [base * scale for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in super().state_dict().items() if key != "trainer"}


def progress(trainer: Trainer, steps: int) -> float:
    """Return the share of the training that ``steps`` optimizer steps and the time so far make, in [0, 1]."""
    shares = [0.0]
    if trainer.max_steps > 0:
        shares.append(steps / trainer.max_steps)
    if trainer.max_epochs and trainer.max_epochs > 0:
        batches = trainer.max_epochs * trainer.num_training_batches
        shares.append(steps / max(1, batches // trainer.accumulate_grad_batches))
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    for timer in (callback for callback in callbacks if isinstance(callback, Timer)):
        remaining = timer.time_remaining()
        if remaining is not None:
            shares.append(timer.time_elapsed() / max(timer.time_elapsed() + remaining, 1e-9))
    return min(1.0, max(shares))


def scheduled(trainer: Trainer, optimizer: Optimizer, scheduler: LRScheduler) -> OptimizerLRSchedulerConfig:
    """Join optimizer and scheduler for ``configure_optimizers``: ours moves every step, torch's own once an epoch."""
    if isinstance(scheduler, WarmupCosine):
        scheduler.trainer = trainer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
    config: LRSchedulerConfigType = {"scheduler": scheduler, "interval": "epoch"}
    if monitor := getattr(scheduler, "monitor", None):  # only reducing on a plateau looks at a metric
        config["monitor"] = monitor
    return {"optimizer": optimizer, "lr_scheduler": config}


def parameter_groups(net: nn.Module) -> list[dict[str, Any]]:
    """Return a net's parameters for its optimizer: weight decay spares all but matrices, Muon also embeddings."""
    embedded = {id(module.weight) for module in net.modules() if isinstance(module, nn.Embedding)}
    matrices = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    return [
        {"params": [matrix for matrix in matrices if id(matrix) not in embedded]},
        {"params": [matrix for matrix in matrices if id(matrix) in embedded], "muon": False},
        {"params": [parameter for parameter in net.parameters() if parameter.ndim < 2], "weight_decay": 0.0},
    ]

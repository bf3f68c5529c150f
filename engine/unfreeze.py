"""Fine-tuning in two stages: first the new last layer alone, then the whole net."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from engine.errors import UserError
from engine.schedules import progress


class Unfreeze(Callback):
    """Trains all layers of a task that was started with ``--model.freeze true``, from some point on.

    Args:
        at: Share of the training, in [0, 1], after which all layers are trained.
    """

    def __init__(self, at: float = 0.3) -> None:
        self.at = at

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not hasattr(pl_module, "train_head_only"):
            raise UserError(f"{type(pl_module).__name__} has no layers to unfreeze")
        if trainer.world_size > 1:  # its gradients are averaged in groups that are made at the start
            raise UserError(
                "engine.unfreeze.Unfreeze works on one device only; leave it out, or use --trainer.devices 1"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        task: Any = pl_module
        if task.head_only and progress(trainer, trainer.global_step) >= self.at:
            task.train_head_only(False)
            task.train()

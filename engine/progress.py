"""The progress bar: counts from one, knows trainings without a last epoch, and leaves out what says nothing."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Lightning's rich progress bar with plainer words.

    Args:
        refresh_rate: Batches between two updates; each costs a tiny net as much as a step.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self.refresh_rate == 0 or trainer.is_last_batch:  # Lightning's would do it every time
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs or -1
        words = f"Epoch {current_epoch + 1}/{last}" if last > 0 else f"Epoch {current_epoch + 1}"
        return words.ljust(len(self.validation_description))  # else the bar would jump

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

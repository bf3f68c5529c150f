"""Stopping in good order: on a signal, when the loss is no number, and after a kill."""

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from engine.errors import UserError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # the last is SLURM's when the time is nearly up


class Stopped(BaseException):
    """A signal has ended the training behind a checkpoint.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Watch(Callback):
    """Keeps ``last.ckpt`` young and finite, and writes it once more when the training is told to stop.

    Args:
        last: The checkpoint.
        minutes: Time between two writings within an epoch.
        steps: Training steps between two looks at the loss; looking at every step would make a GPU wait.
    """

    def __init__(self, last: Path, minutes: float, steps: int) -> None:
        self.last, self.seconds, self.steps = last, 60 * minutes, steps
        self.saved = time.monotonic()
        self.signum = 0
        self.handlers: dict[int, Any] = {}
        self.first_bad = torch.tensor(-1)  # first batch of the epoch whose loss was no number; on the net's device

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved = time.monotonic()
        self.first_bad = torch.tensor(-1, device=pl_module.device)
        self.handlers = {signum: signal.signal(signum, self.handle) for signum in SIGNALS}

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Take note of the first signal; quit at the second."""
        if self.signum:
            os._exit(128 + signum)
        self.signum = signum
        print("\nstopping behind a checkpoint; once more to quit at once", flush=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            bad = ~loss.detach().isfinite().all() & (self.first_bad < 0)
            self.first_bad = torch.where(bad, batch_idx, self.first_bad)
        logged = trainer.global_step % self.steps == 0
        if logged:
            self.check(trainer)
        if (self.steps > 1 and logged) or trainer.is_last_batch:
            return  # what this step logs, and the validation behind an epoch, would be lost to a resumed training
        if trainer.world_size > 1 and (trainer.global_step - 1) % self.steps:
            return  # to agree, devices must wait for each other
        due = self.signum > 0 or time.monotonic() - self.saved > self.seconds
        if not trainer.strategy.reduce_boolean_decision(due, all=False):  # all devices decide alike
            return
        self.check(trainer)
        trainer.save_checkpoint(self.last)
        self.saved = time.monotonic()
        if trainer.strategy.reduce_boolean_decision(self.signum > 0, all=False):
            raise Stopped(self.signum or signal.SIGTERM)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved = time.monotonic()
        stop = trainer.current_epoch > 0 and self.signum > 0
        if trainer.strategy.reduce_boolean_decision(stop, all=False):
            raise Stopped(self.signum or signal.SIGTERM)  # the end of the epoch has written the checkpoint

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.release()

    def release(self) -> None:
        """Give the signals back."""
        for signum, handler in self.handlers.items():
            signal.signal(signum, handler)
        self.handlers = {}

    def check(self, trainer: Trainer) -> None:
        """Stop before weights that are no numbers reach a checkpoint."""
        batch = int(trainer.strategy.reduce(self.first_bad.float(), reduce_op="max"))
        if batch >= 0:
            raise UserError(
                f"the loss of batch {batch} of epoch {trainer.current_epoch} is not a finite number; the "
                f"last checkpoint is from before. Look for odd values in the data, or lower the learning rate"
            )

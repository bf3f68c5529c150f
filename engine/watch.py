"""Stopping in good order: on a signal, when the loss is no number, and after a kill."""

import math
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
from engine.not_finite import lost_weights, origin

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
        self.batch: dict[str, Any] = {}  # the newest, and its number within the epoch
        self.batch_idx = 0
        self.at_once = False  # whether to look at every loss before the weights learn from it

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved = time.monotonic()
        self.first_bad = torch.tensor(-1, device=pl_module.device)
        self.at_once = trainer.world_size == 1 and (pl_module.device.type == "cpu" or self.steps == 1)
        self.handlers = {signum: signal.signal(signum, self.handle) for signum in SIGNALS}

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Take note of the first signal; quit at the second."""
        if self.signum:
            os._exit(128 + signum)
        self.signum = signum
        print("\nstopping behind a checkpoint; once more to quit at once", flush=True)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batch, self.batch_idx = batch, batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if not self.at_once:
            bad = ~loss.detach().isfinite()
            self.first_bad = torch.where(bad & (self.first_bad < 0), self.batch_idx, self.first_bad)
        elif not math.isfinite(loss.item()):
            self.at_once = False  # the step is taken again, to find out where it comes from
            raise self.no_number(trainer, self.batch_idx, origin(trainer, pl_module, self.batch, self.batch_idx))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batch = {}
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
        self.check_weights(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer)
        self.check_weights(trainer, pl_module)

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
            advice = "look for odd values in the data, or lower the learning rate"
            raise self.no_number(trainer, batch, f"{advice}; --trainer.log_every_n_steps 1 names sample and layer")

    def check_weights(self, trainer: Trainer, task: LightningModule) -> None:
        """Stop where the newest step has spoilt the weights, though its loss was a number."""
        lost = lost_weights(trainer, task)
        if trainer.strategy.reduce_boolean_decision(lost is not None, all=False):
            raise UserError(
                f"behind batch {self.batch_idx} of epoch {trainer.current_epoch} {lost or 'weights are lost'}"
            )

    def no_number(self, trainer: Trainer, batch: int, why: str) -> UserError:
        """Return the complaint about the loss of a batch of the epoch."""
        line = f"the loss of batch {batch} of epoch {trainer.current_epoch} is not a finite number: {why}"
        return UserError(f"{line}. The last checkpoint is from before" if self.last.exists() else line)

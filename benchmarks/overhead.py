"""What our loop costs beside a bare one: ``python benchmarks/overhead.py unet``.

Three loops take turns in one process, some steps each: (a) that of ``train.py``; (b) a tuned bare loop with the same
net, batches, optimizer and memory format; (c) the loop that one would write otherwise, a DataLoader over single samples
with a plain optimizer and the default memory format. One thread, time of this process alone, medians over the turns.
What follows on an epoch's last step, validation and checkpoints, is no part of any loop.
"""

import copy
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, RandomSampler

ROOT = Path(__file__).parent.parent
STEPS, TURNS = 20, 11  # steps of a turn, and turns of each loop; the first is for warming up


class Singles(Dataset[dict[str, Any]]):
    """The training data one sample at a time, changed at random one by one.

    Args:
        datamodule: Our data.
    """

    def __init__(self, datamodule: LightningDataModule) -> None:
        self.datamodule = datamodule
        dataset: Any = datamodule.train_dataloader().dataset
        self.dataset: Any = getattr(dataset, "pairs", dataset)  # sentences, not batches of them

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self.datamodule.on_after_batch_transfer(self.dataset.__getitems__([index]), 0)
        return {key: value[0] if torch.is_tensor(value) else value for key, value in batch.items()}


def stacked(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Collate samples, padded to the longest; what is no tensor is about the whole batch."""
    whole = dict(samples[0])
    for key, value in whole.items():
        if torch.is_tensor(value):
            values = [sample[key] for sample in samples]
            whole[key] = torch.stack(values) if value.ndim == 0 else pad_sequence(values, batch_first=True)
    return whole


class Loop:
    """A training loop of a few lines.

    Args:
        task: A task of its own.
        optimizers: Optimizers of its parameters, in the order of ``configure_optimizers``.
        batches: Endless batches, ready for ``training_step``.
    """

    def __init__(self, task: LightningModule, optimizers: list[torch.optim.Optimizer], batches: Iterator[Any]) -> None:
        self.task, self.optimizers, self.batches = task, optimizers, batches
        self.waiting = 0.0  # seconds spent on data
        self.steps = 0  # taken so far: nets that take turns count them

    def run(self, steps: int) -> None:
        """Take some steps."""
        for step in range(steps):
            started = time.process_time()
            batch = next(self.batches)
            self.waiting += time.process_time() - started
            if self.task.automatic_optimization:
                loss: Any = self.task.training_step(batch, step)
                self.optimizers[0].zero_grad()
                loss.backward()
                self.optimizers[0].step()
            else:
                turns = patch.multiple(
                    sys.modules[type(self.task).__module__],
                    in_turns=lambda _: self.optimizers,
                    minimize=minimize,
                    follow_schedules=lambda _: None,
                )
                with turns, patch.object(type(self.task), "global_step", self.steps):
                    self.task.training_step(batch, step)
            self.steps += 1


def minimize(
    task: Any,
    optimizer: torch.optim.Optimizer,
    loss: torch.Tensor,
    batch_idx: int,
    accumulate: int,
    keep_graph: bool = False,
) -> bool:
    """Take a step as one would without Lightning, for tasks whose nets take turns."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    loss.backward(inputs=parameters, retain_graph=keep_graph)
    optimizer.step()
    optimizer.zero_grad()
    return True


class Turns(Callback):
    """Lets the other loops run between two turns of Lightning's, and takes the times of all."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {"a": [], "b": [], "c": []}
        self.loops: dict[str, Loop] = {}
        self.since = self.spent = 0.0  # when the clock was started, and what it has measured of this turn of ours

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.since = time.process_time()

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the other loops, of the task as it is after its first turn, which only warms up."""
        datamodule: Any = getattr(trainer, "datamodule", None)
        loader = datamodule.train_dataloader()

        def batches() -> Iterator[Any]:
            while True:
                for numbers in loader.batch_sampler:
                    yield datamodule.on_after_batch_transfer(loader.dataset.__getitems__(numbers), 0)

        def singles() -> Iterator[Any]:
            dataset = Singles(datamodule)
            size = loader.batch_size * len(dataset) // len(loader.dataset)  # of sentences, as many as a batch has
            sampler = RandomSampler(dataset, replacement=True, num_samples=STEPS * TURNS * size)
            yield from DataLoader(dataset, size, sampler=sampler, collate_fn=stacked)

        bare, plain = self.alone(pl_module), self.alone(pl_module).to(memory_format=torch.contiguous_format)
        configured: Any = pl_module.configure_optimizers()
        tuned = [config["optimizer"] for config in (configured if isinstance(configured, list) else [configured])]
        names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
        loops = {"b": (bare, batches()), "c": (plain, singles())}
        for loop, (task, source) in loops.items():
            own = dict(task.named_parameters())
            optimizers = []
            for optimizer in tuned:
                groups: Any = [
                    {**group, "params": [own[names[id(p)]] for p in group["params"]]}
                    for group in optimizer.param_groups
                ]
                if loop == "c":  # without settings
                    groups = [parameter for group in groups for parameter in group["params"]]
                optimizers.append(type(optimizer)(groups, lr=optimizer.defaults["lr"]))
            self.loops[loop] = Loop(task, optimizers, source)

    def alone(self, task: LightningModule) -> LightningModule:
        """Return a copy of a task that knows no trainer and logs nothing."""
        trainer, task.trainer = task.trainer, None
        twin = copy.deepcopy(task)
        task.trainer = trainer
        vars(twin)["log"] = lambda *_, **__: None
        return twin

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.spent += time.process_time() - self.since
        self.since = time.process_time()
        if trainer.global_step % STEPS == 0:
            self.seconds["a"].append(self.spent)
            if not self.loops:
                self.prepare(trainer, pl_module)
            for name, loop in self.loops.items():
                started = time.process_time()
                loop.run(STEPS)
                self.seconds[name].append(time.process_time() - started)
            self.since, self.spent = time.process_time(), 0.0


def main(recipe: str, flags: list[str]) -> None:
    """Measure a recipe and print its speeds; the last number is a / b."""
    sys.path.insert(0, str(ROOT))
    from engine.arguments import arrange
    from engine.command import Command

    turns = Turns()

    class Measured(Command):
        """A training with the turns among its callbacks."""

        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            trainer = super().instantiate_trainer(**kwargs)
            callbacks: list[Callback] = getattr(trainer, "callbacks", [])
            callbacks.append(turns)
            return trainer

    torch.set_num_threads(1)
    argv = ["fit", "--config", str(ROOT / "configs" / f"{recipe}.yaml"), f"--trainer.max_steps={STEPS * TURNS}"]
    argv += ["--trainer.limit_val_batches=1", "--test_after_fit=false", "--trainer.accelerator=cpu", *flags]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Measured(arrange(argv))
        os.chdir(ROOT)
    speed = {name: STEPS / statistics.median(seconds[1:]) for name, seconds in turns.seconds.items()}
    ratios = {
        other: statistics.median(theirs / ours for ours, theirs in zip(turns.seconds["a"], seconds, strict=True))
        for other, seconds in turns.seconds.items()
    }
    for name, meaning in (("a", "train.py"), ("b", "bare, tuned"), ("c", "bare, plain")):
        print(f"{name}  {meaning:12} {speed[name]:8.2f} steps/s")
    share = turns.loops["b"].waiting / sum(turns.seconds["b"])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"data take {share:.1%} of a bare step; peak memory {memory:.0f} MB")
    print(f"a/c = {ratios['c']:.3f}, a/b = {ratios['b']:.3f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

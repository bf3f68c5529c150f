"""The training doctor: what goes wrong in a training, in a line or two, when it shows, with what to do about it."""

import math
import time
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from engine.ailments import AILMENTS, CAUSES, LEAST_SKILL, LOOKS, Chart, no_better
from engine.not_finite import largest_rate
from engine.report import print_ailment

KEPT = 10  # looks whose figures are kept


def gradients(weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the gradients of weights that have one, and have it whole, not a shard of it on each device."""
    return {name: weight.grad for name, weight in weights.items() if type(weight.grad) is Tensor}


class Doctor(Callback):
    """Looks at a training from time to time, and says once of each ailment that it has it.

    It changes nothing: no random number is drawn, no layer is touched, and a device is not waited for but at a look.

    Args:
        steps: Training steps between two looks, less in a training of few steps.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.chart = Chart()
        self.said: list[dict[str, Any]] = []  # ailment, step, and what was said
        self.total = torch.zeros(())  # of the losses since the last validation, on the net's device
        self.count = 0
        self.looking = False
        self.started = self.ended = 0.0  # when the newest step did; no end where others come before the next step
        self.waits: list[float] = []  # seconds between two steps, since the last look
        self.weights: dict[int, dict[str, nn.Parameter]] = {}  # of the layers, for every optimizer
        self.biases: dict[int, dict[str, nn.Parameter]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = [trainer.max_steps] if trainer.max_steps > 0 else []
        if trainer.max_epochs and trainer.max_epochs > 0 and math.isfinite(trainer.num_training_batches):
            steps.append(trainer.max_epochs * int(trainer.num_training_batches))
        if steps:
            self.steps = min(self.steps, max(1, min(steps) // 20))
        self.chart.rate = largest_rate(trainer)
        self.chart.parameters = sum(weight.numel() for weight in pl_module.parameters() if weight.requires_grad)
        self.chart.takes_turns = not pl_module.automatic_optimization
        # The first layer is the first that calculates: a table of vectors gets a gradient where it is looked up.
        looked_up = {id(module.weight) for module in pl_module.modules() if isinstance(module, nn.Embedding)}
        for optimizer in trainer.optimizers:
            own = {id(weight) for group in optimizer.param_groups for weight in group["params"]} - looked_up
            named = {name: weight for name, weight in pl_module.named_parameters() if id(weight) in own}
            biases = [name for name in named if "bias" in name.rpartition(".")[2]]
            self.biases[id(optimizer)] = {
                name.removesuffix(".bias"): named[name]
                for name in biases
                if named[name].numel() > 1  # the last one of a Wasserstein critic lifts real and generated alike
            }
            self.weights[id(optimizer)] = {
                name.removesuffix(".weight"): weight
                for name, weight in named.items()
                if weight.ndim > 1 and name not in biases
            }

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        self.looking = trainer.global_step % self.steps == self.steps - 1
        self.started = self.now(pl_module)
        if self.ended:
            self.waits.append(self.started - self.ended)
        if not self.chart.samples and trainer.limit_train_batches == 1.0 and trainer.num_training_batches < math.inf:
            size = len(next(value for value in batch.values() if isinstance(value, Tensor))) * trainer.world_size
            loader: Any = trainer.train_dataloader  # leaves out a last batch that is not full
            self.chart.samples = max(len(loader.dataset), int(trainer.num_training_batches) * size)
            self.speak(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self.looking:
            return
        weights, biases = gradients(self.weights[id(optimizer)]), gradients(self.biases[id(optimizer)])
        if len(weights) > 1:
            sizes = torch.stack([gradient.float().square().mean().sqrt() for gradient in weights.values()]).tolist()
            looks = self.chart.gradients.setdefault(next(iter(weights)).split(".")[0], [])
            looks.append(dict(zip(weights, sizes, strict=True)))
            del looks[:-LOOKS]
        if biases:
            shares = torch.stack([(gradient == 0).float().mean() for gradient in biases.values()]).tolist()
            for name, share in zip(biases, shares, strict=True):
                self.chart.silent[name] = [*self.chart.silent.get(name, []), share][-LOOKS:]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        self.ended = self.now(pl_module)
        figures: dict[str, Any] = outputs if isinstance(outputs, dict) else {}
        if "loss" not in figures:
            return
        self.total = self.total + figures["loss"].detach()  # no look yet: a GPU would have to be waited for
        self.count += 1
        if math.isnan(self.chart.start):
            self.chart.start = self.mean(trainer, figures["loss"])
        if not self.looking:
            return
        for name, value in figures.items():
            values = self.chart.figures.setdefault(name, [])
            values.append(self.mean(trainer, value))
            del values[:-KEPT]
        if self.waits:
            self.chart.waited += sum(self.waits)
            self.chart.waits.append([sum(self.waits) / len(self.waits), self.ended - self.started])
            del self.chart.waits[:-LOOKS]
        self.waits, self.ended = [], 0.0  # what others do behind a look is no waiting for data
        self.speak(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = 0.0
        if trainer.sanity_checking or not self.count:
            return
        task: Any = pl_module
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        error = measured.get("val/loss", measured.get(f"val/{task.primary}") if task.perfect == 0 else None)
        if error is not None:
            self.chart.held_out.append(error)
            self.chart.learned.append(self.mean(trainer, self.total / self.count))
        self.total, self.count = torch.zeros_like(self.total), 0
        self.speak(trainer)
        if hasattr(task, "ailments") and self.chart.figures:
            means = {f"train/{name}": sum(values) / len(values) for name, values in self.chart.figures.items()}
            for name, line in task.ailments(measured | means).items():
                self.say(trainer, name, line)

    def now(self, task: LightningModule) -> float:
        """Return the time, at a look when the device has done what it was told."""
        if self.looking and task.device.type == "cuda":
            torch.cuda.synchronize(task.device)
        return time.monotonic()

    def mean(self, trainer: Trainer, value: Tensor) -> float:
        """Return the mean of what all devices have."""
        return float(trainer.strategy.reduce(value.detach().float().clone(), reduce_op="mean"))

    def speak(self, trainer: Trainer) -> None:
        """Say what the chart shows."""
        for ailment in AILMENTS:
            line = ailment(self.chart)
            if line:
                self.say(trainer, ailment.__name__, line)

    def say(self, trainer: Trainer, name: str, line: str) -> None:
        """Say of an ailment, once, that the training has it."""
        if not {said["ailment"] for said in self.said} & {name, *CAUSES.get(name, ())}:
            self.said.append({"ailment": name, "step": trainer.global_step, "says": line})
            print_ailment(line, behind_bar=True)

    def conclude(self, task: LightningModule, summary: dict[str, Any], tested: int) -> list[dict[str, Any]]:
        """Return all that was said and, where it is no cause, that a test on so many samples shows no gain."""
        known: Any = task
        if summary["baseline"][summary["primary"]] == known.perfect:
            return self.said
        line = no_better(self.chart, summary, known.perfect, getattr(task, "least_skill", LEAST_SKILL), tested)
        if line and not {said["ailment"] for said in self.said} - {"overfitting", "slow_data"}:
            self.said.append({"ailment": "no_better", "step": summary["steps"], "says": line})
        return self.said

    def state_dict(self) -> dict[str, Any]:
        return {"chart": asdict(self.chart), "said": list(self.said), "total": float(self.total), "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.chart, self.said = Chart(**state_dict["chart"]), state_dict["said"]
        self.total, self.count = torch.tensor(state_dict["total"]), state_dict["count"]

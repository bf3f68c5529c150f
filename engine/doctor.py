"""The training doctor: what goes wrong in a training, in a line or two, when it shows, with what to do about it."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from engine.not_finite import largest_rate
from engine.report import print_ailment

LOOKS = 3  # in a row that must agree; one alone may be chance
FEW, WEIGHTS_EACH = 100, 100  # samples, and weights for each of them, of a net that is sure to know them by heart
EXPLODED = 10.0  # times the loss of the first batch
VANISHED = 1e-5  # gradient of the first layer, beside that of the last
DEAD = 0.9  # share of a layer's units
RISEN, LEARNED = 1.5, 0.5  # held-out loss beside its lowest, and training loss beside the held-out one
UNMOVED = 0.95  # lowest held-out loss beside the loss of the first batch
FALLEN = 0.7  # training loss beside that of the first batch
LEAST_SKILL = 0.05  # of a training that has learned something
CHANCE = 3.0  # standard deviations of a share of samples
KEPT = 10  # looks whose figures are kept
WAITED = 10.0  # seconds of waiting for data that are worth a word


@dataclass
class Chart:
    """What is known of a training so far.

    Args:
        samples: Training samples in an epoch; 0 where that says nothing of the data.
        parameters: Weights that are trained.
        rate: Largest learning rate.
        takes_turns: Whether nets are trained against each other, whose losses tell nothing alone.
        start: Loss of the first batch.
        figures: What the last steps have returned that were looked at, oldest first.
        gradients: Of every net, for the last looks, oldest first: the root mean square of every layer's gradient.
        silent: Of every layer with a bias, for the last looks, oldest first: the share of its units without a gradient.
        learned: Mean training loss since the validation before, for every validation.
        held_out: Loss of the validation part, or another error that is 0 at best, for every validation.
        waits: Mean seconds that a step has waited for its batch, and seconds that a step has taken, at the last looks.
        waited: Seconds of waiting so far.
    """

    samples: int = 0
    parameters: int = 0
    rate: float = 0.0
    takes_turns: bool = False
    start: float = math.nan
    figures: dict[str, list[float]] = field(default_factory=dict)
    gradients: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    silent: dict[str, list[float]] = field(default_factory=dict)
    learned: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    waits: list[list[float]] = field(default_factory=list)
    waited: float = 0.0


def few_samples(chart: Chart) -> str | None:
    """Far too few samples for the net."""
    if not 0 < chart.samples < FEW or chart.parameters < WEIGHTS_EACH * chart.samples:
        return None
    return (
        f"{chart.samples} training samples for {chart.parameters:,} weights: the net can learn them all by heart\n"
        f"gather hundreds, take a smaller net, or start from one that has learned (configs/addons/finetune.yaml)"
    )


def exploding(chart: Chart) -> str | None:
    """A loss far above where it started."""
    losses = chart.figures.get("loss", [])[-LOOKS:]
    start = max(abs(chart.start), 1e-3)
    if chart.takes_turns or len(losses) < LOOKS or min(losses) < EXPLODED * start:
        return None
    times = losses[-1] / start
    return (
        f"the loss is {losses[-1]:.3g}, {times:.3g} times that of the first batch\n"
        f"the learning rate, {chart.rate:g}, is too high: try --model.optimizer.lr {lower(chart.rate):g}; "
        f"else look for far-off values in the data"
    )


def vanishing(chart: Chart) -> str | None:
    """Gradients that shrink from layer to layer on their way back."""
    for looks in chart.gradients.values():
        shares = [shrunk(layers) for layers in looks]
        if len(shares) == LOOKS and max(shares) < VANISHED:
            first, *_, last = looks[-1]
            return (
                f"the gradient of the first layer, {first}, is {shares[-1]:.1g} of that of the last, {last}: "
                f"the first layers learn nothing\n"
                f"take ReLU in the place of sigmoid or tanh (an MLP: --model.net.activation relu), normalization, "
                f"or fewer layers"
            )
    return None


def shrunk(layers: dict[str, float]) -> float:
    """Return the gradient of the first layer as a share of the last's, or 1 where it is not for shrinking on the way.

    Behind dead units there is none at all, and no small one on the way there.
    """
    sizes = list(layers.values())
    small = min((size for size in sizes if size > 0), default=0.0)
    return sizes[0] / sizes[-1] if 0 < small < VANISHED * sizes[-1] else 1.0


def dead(chart: Chart) -> str | None:
    """Units that are at their end for every sample, 0 behind ReLU, and so have no gradient and never learn again."""
    for name, shares in reversed(chart.silent.items()):
        if len(shares) == LOOKS and min(shares) >= DEAD:
            return (
                f"{shares[-1]:.0%} of the units of {name} are dead: they answer the same to every sample "
                f"(0 behind a ReLU), and have no gradient to learn from\n"
                f"start anew with a lower learning rate (--model.optimizer.lr {lower(chart.rate):g}), "
                f"normalization, or LeakyReLU or GELU in the place of ReLU"
            )
    return None


def overfitting(chart: Chart) -> str | None:
    """A held-out loss that rises while the training loss goes on falling."""
    if chart.takes_turns or len(chart.held_out) <= LOOKS:
        return None
    lowest, last, learned = min(chart.held_out), chart.held_out[-1], chart.learned[-1]
    if min(chart.held_out[-LOOKS:]) < RISEN * lowest or learned > LEARNED * last:
        return None
    best = chart.held_out.index(lowest) + 1
    seen = (
        f"the loss is {learned:.3g} in training and {last:.3g} on the validation part, where it was {lowest:.3g} "
        f"at validation {best} of {len(chart.held_out)}: the net learns samples by heart\n"
    )
    if lowest > UNMOVED * chart.start:
        return f"{seen}nothing of it has ever held there: look whether labels belong to their inputs"
    return f"{seen}more data, augmentation, dropout, a smaller net or fewer epochs help; best.ckpt stays the best"


def slow_data(chart: Chart) -> str | None:
    """A loader slower than the net."""
    if chart.waited < WAITED or len(chart.waits) < LOOKS or any(wait < step for wait, step in chart.waits):
        return None
    wait, step = chart.waits[-1]
    return (
        f"a step takes {1000 * step:.3g} ms and waits {1000 * wait:.3g} ms for its data: the net is mostly idle\n"
        f"smaller samples, fewer random changes or a faster disk save time; a larger net would cost little"
    )


AILMENTS: tuple[Callable[[Chart], str | None], ...] = (
    *(few_samples, exploding, vanishing, dead, overfitting, slow_data),
)


# What need not be said behind what has brought it about.
CAUSES = {"dead": {"exploding", "vanishing"}, "overfitting": {"few_samples", "exploding"}}


def no_better(chart: Chart, summary: dict[str, Any], perfect: float, least: float, tested: int) -> str | None:
    """A test metric no better than the baseline's, or not by more than chance, for which training showed no cause."""
    primary, skill, recent = summary["primary"], summary["skill"], chart.figures.get("loss", [])
    reached, naive = summary["metrics"][primary], summary["baseline"][primary]
    luck = CHANCE * math.sqrt(max(naive * (1 - naive), 1 / tested) / tested) if 0 <= naive < 1 else 0.0
    if skill >= least and (perfect != 1 or reached == 1 or reached - naive >= luck):
        return None
    said = f"{primary} is {reached:.4g} on {tested} samples, the baseline's {naive:.4g}"
    learned = sum(recent) / len(recent) if recent else math.nan
    if not chart.takes_turns and learned < FALLEN * chart.start:
        return (
            f"{said}, though the training loss has fallen from {chart.start:.3g} to {learned:.3g}\n"
            f"what was learned holds for the training samples only: look whether labels belong to their inputs, "
            f"and whether the parts are of one kind"
        )
    return (
        f"{said}: {'that may be chance' if skill >= least else 'the net has learned nothing of use'}\n"
        f"look whether labels belong to their inputs, and these can tell them; then train longer, or with another "
        f"--model.optimizer.lr (now {chart.rate:g})"
    )


def gradients(weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the gradients of weights that have one, and have it whole, not a shard of it on each device."""
    return {name: weight.grad for name, weight in weights.items() if type(weight.grad) is Tensor}


def lower(rate: float) -> float:
    """Return a learning rate to try after one that is too high."""
    return rate / 10 if rate < 0.1 else 1e-3


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

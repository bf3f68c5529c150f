"""What can be wrong with a training, as a few figures show it: a function for each ailment, and what to do about it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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


def lower(rate: float) -> float:
    """Return a learning rate to try after one that is too high."""
    return rate / 10 if rate < 0.1 else 1e-3

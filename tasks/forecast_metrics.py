"""How good forecasts are: errors beside those of persistence, and whether the difference is more than luck."""

import math

import torch
from scipy.stats import t as student
from torch import Tensor
from torchmetrics import Metric


class Forecasts(Metric):
    """The forecasts of a part, gathered from all devices in the order of time.

    They are ``last`` (N, 1), ``target`` and ``forecast`` (N, horizon), float64, and ``time`` (N, horizon), int64.
    """

    full_state_update = False
    last: list[Tensor]
    target: list[Tensor]
    forecast: list[Tensor]
    time: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("last", "target", "forecast", "time"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, batch: dict[str, Tensor], forecast: Tensor) -> None:
        """Add the forecasts (B, horizon) for a batch."""
        self.last.append(batch["past"][:, -1:])
        self.target.append(batch["target"])
        self.forecast.append(forecast)
        self.time.append(batch["time"])

    def compute(self) -> dict[str, Tensor]:
        """Return the columns."""
        found = {name: getattr(self, name) for name in ("last", "target", "forecast", "time")}
        rows = {name: torch.cat(value) if isinstance(value, list) else value for name, value in found.items()}
        rows = {name: value.detach().cpu() for name, value in rows.items()}
        order = rows["time"][:, 0].argsort()
        return {name: value[order] if name == "time" else value[order].double() for name, value in rows.items()}


def changes(rows: dict[str, Tensor]) -> Tensor:
    """Return how far the truth is from the last value: the errors of persistence (N, horizon)."""
    return rows["target"] - rows["last"]


def measured(rows: dict[str, Tensor]) -> dict[str, float]:
    """Return the metrics of ``Forecasts``: over all steps, and the relative error of each where there are several."""
    errors, moves = rows["forecast"] - rows["target"], changes(rows)
    values = {
        "relative_mae": float(errors.abs().sum() / moves.abs().sum()),
        "mae": float(errors.abs().mean()),
        "rmse": float(errors.square().mean().sqrt()),
        "direction_accuracy": direction_accuracy(rows["forecast"] - rows["last"], moves),
        "p_value": diebold_mariano((errors.abs() - moves.abs()).mean(1), errors.shape[1]),
    }
    return values | per_step(rows) if errors.shape[1] > 1 else values


def per_step(rows: dict[str, Tensor]) -> dict[str, float]:
    """Return the relative error of every step of the forecasts."""
    ratios = (rows["forecast"] - rows["target"]).abs().sum(0) / changes(rows).abs().sum(0)
    return {f"relative_mae_{step}": ratio for step, ratio in enumerate(ratios.tolist(), start=1)}


def direction_accuracy(forecast: Tensor, truth: Tensor) -> float:
    """Return the share of changes whose sign is forecast; those of zero count for nothing, a zero forecast is wrong."""
    moved = truth != 0
    return float(((forecast.sign() == truth.sign()) & moved).sum() / moved.sum().clamp(min=1))


def diebold_mariano(differences: Tensor, horizon: int) -> float:
    """Return the two-sided p value of "both forecasts are equally good on average".

    Diebold and Mariano 1995 (https://doi.org/10.1080/07350015.1995.10524599) with the correction for small samples of
    Harvey, Leybourne and Newbold 1997 (https://doi.org/10.1016/S0169-2070(96)00719-4).

    Args:
        differences: Loss of one forecast less that of the other (N,), in the order of time.
        horizon: Steps of a forecast: neighbours that overlap are correlated.
    """
    count = len(differences)
    if count <= horizon:
        return 1.0
    centred = differences - differences.mean()
    covariances = [float(centred[lag:] @ centred[: count - lag]) / count for lag in range(horizon)]
    variance = covariances[0] + 2 * sum(covariances[1:])
    if variance <= 0:  # which the sum may become
        variance = covariances[0]
    if variance == 0:
        return 1.0 if float(differences.mean()) == 0 else 0.0
    correction = (count + 1 - 2 * horizon + horizon * (horizon - 1) / count) / count
    statistic = float(differences.mean()) / math.sqrt(variance / count) * math.sqrt(max(correction, 0.0))
    return float(2 * student.sf(abs(statistic), count - 1))

"""Forecasting: the next values of a series from its past."""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from engine.pictures import ACCENT, INK, MUTED, rendered, show
from engine.schedules import WarmupCosine, scheduled

LOSSES = {"mae": F.l1_loss, "mse": F.mse_loss, "huber": F.smooth_l1_loss}
RECENT = 5  # values whose mean is a reference
ZOOM = 60  # forecasts shown from near


class ForecastingTask(LightningModule):
    """A loss on changes from the last value; mean absolute error relative to that of persistence, summed over the part.

    Persistence, the forecast that nothing changes, is what prices near to a random walk leave little to improve on:
    1 is as good, less is better. Beside it stand errors in the series' own unit, the share of right signs, and the p
    value of a Diebold-Mariano test against persistence.

    Args:
        net: Network from a window (B, T, num_features) to standardized forecasts (B, num_outputs).
        num_features: Columns whose past the net reads.
        num_outputs: Steps to be forecast.
        optimizer: Optimizer of the network's parameters.
        predict: What the net reads and tells: the ``change`` from the last value, in units of the window's mean size
            times the usual change from step to step in training, or the ``level``, in units of the largest value in
            training, for comparison with a common mistake.
        loss: Mean absolute or squared error, or squared for small and absolute for large errors.
        scheduler: Learning rate schedule.
    """

    primary = "relative_mae"
    perfect = 0.0
    least_skill = -0.1  # to be as good as persistence is no ailment: nothing better is known of prices
    size: Tensor
    spread: Tensor

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        num_features: int,
        num_outputs: int,
        optimizer: OptimizerCallable,
        predict: Literal["change", "level"] = "change",
        loss: Literal["mae", "mse", "huber"] = "mae",
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = net(num_features, num_outputs)
        self.predict, self.loss = predict, LOSSES[loss]
        self.optimizer, self.scheduler = optimizer, scheduler
        # Of every feature and, last, of the target, in training: the mean size, and what the net takes for 1.
        self.register_buffer("size", torch.ones(num_features + 1))
        self.register_buffer("spread", torch.ones(num_features + 1))
        self.val_forecasts, self.test_forecasts = Forecasts(), Forecasts()

    def forward(self, series: Tensor, past: Tensor) -> Tensor:
        """Map features (B, T, num_features) and target (B, T) until now to forecasts (B, num_outputs) in its unit."""
        window, last, scale = self._standardized(series, past)
        return last + scale * self.net(window).float()

    def _standardized(self, series: Tensor, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the net reads (B, T, num_features), and the target's zero and unit (B, 1) in its answer."""
        columns = torch.cat([series, past[:, :, None]], dim=2)  # (B, T, num_features + 1)
        if self.predict == "level":
            return (columns / self.spread)[:, :, :-1], torch.zeros_like(past[:, -1:]), self.spread[-1]
        unit = self._unit(columns) * self.spread
        return ((columns - columns[:, -1:]) / unit)[:, :, :-1], past[:, -1:], unit[:, 0, -1:]

    def _unit(self, columns: Tensor) -> Tensor:
        """Return the size (B, 1, columns) of windows (B, T, columns): a price of 10 and one of 500 look alike in it."""
        return columns.abs().mean(1, keepdim=True) + 0.01 * self.size  # a window of zeros has no size of its own

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and data:
            windows = data.training_windows
            columns = torch.cat([windows["series"], windows["past"][:, :, None]], dim=2)
            self.size.copy_(columns.abs().mean((0, 1)))
            if self.predict == "level":
                self.spread.copy_(columns.abs().amax((0, 1)))
            else:
                steps = columns.diff(dim=1) / self._unit(columns)
                self.spread.copy_(steps.square().mean((0, 1)).sqrt())
            self.spread.clamp_(min=1e-12)  # of a column that never changes

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self._loss(batch)

    def _loss(self, batch: dict[str, Tensor]) -> Tensor:
        window, last, scale = self._standardized(batch["series"], batch["past"])
        return self.loss(self.net(window).float(), (batch["target"] - last) / scale)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val/loss", self._loss(batch), batch_size=len(batch["past"]), sync_dist=True)
        self.val_forecasts.update(batch, self(batch["series"], batch["past"]))

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_forecasts)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.test_forecasts.update(batch, self(batch["series"], batch["past"]))

    def on_test_epoch_end(self) -> None:
        rows = self._report("test", self.test_forecasts)
        show(self, "test_forecast", draw_forecast(rows))
        show(self, "test_errors", draw_errors(rows))
        if rows["target"].shape[1] > 1:
            show(self, "test_relative_mae_per_step", draw_steps(rows))

    def _report(self, stage: str, forecasts: "Forecasts") -> dict[str, Tensor]:
        """Log the metrics of a part and return its forecasts."""
        rows = forecasts.compute()
        forecasts.reset()
        values = measured(rows)
        self.log(f"{stage}/relative_mae", values.pop("relative_mae"), prog_bar=True, sync_dist=True)
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)
        return rows

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a file its ``path``, a table ``forecast``, and a ``picture`` of it behind the last window."""
        forecast = self(batch["series"], batch["past"])[0].double().cpu().numpy()  # (horizon,)
        steps = np.arange(1, len(forecast) + 1)
        dates = {"date": [date for (date,) in batch["dates"]]} if batch["dates"] else {}
        table = pd.DataFrame({"step": steps, **dates, "forecast": forecast})
        past = batch["past"][0].cpu().numpy()
        return [{"path": batch["path"][0], "forecast": table, "picture": draw_window(past, forecast)}]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return two windows."""
        values = self.size * (1 + 0.1 * torch.rand(2, datamodule.window, len(self.size)))
        return {"series": ("BTC", values[:, :, :-1]), "past": ("BT", values[:, :, -1])}

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the metrics of persistence, and of the sign that most changes in training have."""
        rows = self._collect(datamodule, lambda past, horizon: past[:, -1:].expand(-1, horizon))
        windows = datamodule.training_windows
        up = (windows["target"] - windows["past"][:, -1:]).sign().sum() >= 0
        values = measured(rows)
        del values["p_value"]  # of a comparison with itself
        values["direction_accuracy"] = direction_accuracy(
            torch.full_like(rows["target"], 1 if up else -1), changes(rows)
        )
        return {f"test/{name}": value for name, value in values.items()}

    def references(self, datamodule: LightningDataModule) -> dict[str, dict[str, float]]:
        """Return the metrics of the drift method, a line from the window's first value on, and of a mean."""

        def drift(past: Tensor, horizon: int) -> Tensor:
            steps = torch.arange(1, horizon + 1, device=past.device)
            return past[:, -1:] + steps * (past[:, -1:] - past[:, :1]) / max(1, past.shape[1] - 1)

        def recent(past: Tensor, horizon: int) -> Tensor:
            return past[:, -RECENT:].mean(1, keepdim=True).expand(-1, horizon)

        methods = {"drift": drift, f"mean of {RECENT}": recent}
        found = {name: measured(self._collect(datamodule, method)) for name, method in methods.items()}
        return {name: {f"test/{key}": value for key, value in values.items()} for name, values in found.items()}

    def _collect(self, datamodule: LightningDataModule, method: Callable[[Tensor, int], Tensor]) -> dict[str, Tensor]:
        """Return the forecasts of a method that maps a past (B, T) to as many steps as it is told, on the test part."""
        forecasts = Forecasts().to(self.device)
        for batch in datamodule.test_dataloader():
            batch = {name: value.to(self.device) for name, value in batch.items()}
            forecasts.update(batch, method(batch["past"], batch["target"].shape[1]))
        return forecasts.compute()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))


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


def draw_forecast(rows: dict[str, Tensor]) -> Image.Image:
    """Return truth, forecast and persistence over a part, and its end from near; of several steps the farthest."""
    horizon = rows["target"].shape[1]
    time = rows["time"][:, -1].numpy().astype("datetime64[s]")
    truth, forecast = rows["target"][:, -1], rows["forecast"][:, -1]
    figure = Figure(figsize=(10, 7), dpi=110, layout="constrained")
    for axis, first in zip(figure.subplots(2, 1), (0, max(0, len(time) - ZOOM)), strict=True):
        # Broad below narrow: forecast and persistence often coincide.
        axis.plot(time[first:], rows["last"][first:, 0], color=MUTED, linewidth=4, label="persistence")
        axis.plot(time[first:], truth[first:], color=INK, linewidth=1.2, label="truth")
        axis.plot(time[first:], forecast[first:], color=ACCENT, linewidth=1.2, label="forecast")
        tidy(axis)
    steps = "1 step" if horizon == 1 else f"{horizon} steps"
    axis.set_title(f"the last {min(ZOOM, len(time))} from near", fontsize=10, color=INK)
    figure.axes[0].set_title(f"forecasts {steps} ahead", fontsize=10, color=INK)
    figure.axes[0].legend(fontsize=8, frameon=False)
    return rendered(figure)


def draw_errors(rows: dict[str, Tensor]) -> Image.Image:
    """Return the histogram of the errors over that of persistence's."""
    errors, moves = (rows["forecast"] - rows["target"]).flatten(), -changes(rows).flatten()
    reach = float(torch.cat([errors, moves]).abs().quantile(0.99))  # a crash of one day would hide the others
    edges = np.linspace(-reach, reach, 42).tolist()
    figure = Figure(figsize=(6, 3.6), dpi=110, layout="constrained")
    axis = figure.subplots()
    axis.hist(moves.numpy().clip(-reach, reach), edges, color=MUTED, label="persistence")
    axis.hist(errors.numpy().clip(-reach, reach), edges, color=ACCENT, histtype="step", linewidth=1.5, label="forecast")
    axis.set_xlabel("forecast less truth; the outermost bars hold all beyond", fontsize=8)
    axis.set_title(f"relative MAE {measured(rows)['relative_mae']:.3f}", fontsize=10, color=INK)
    axis.legend(fontsize=8, frameon=False)
    tidy(axis)
    return rendered(figure)


def draw_steps(rows: dict[str, Tensor]) -> Image.Image:
    """Return the relative error of every step."""
    values = list(per_step(rows).values())
    figure = Figure(figsize=(6, 3.2), dpi=110, layout="constrained")
    axis = figure.subplots()
    drawn = axis.bar(range(1, len(values) + 1), values, color=ACCENT)
    axis.bar_label(drawn, fmt="%.3f", padding=3, fontsize=8, color=INK)
    axis.axhline(1, color=INK, linewidth=1, linestyle="--")
    axis.set_xlabel("steps ahead", fontsize=8)
    axis.set_title("mean absolute error relative to persistence (dashed)", fontsize=10, color=INK)
    tidy(axis)
    return rendered(figure)


def draw_window(past: np.ndarray, forecast: np.ndarray) -> Image.Image:
    """Return a past (T,) and its forecast (horizon,)."""
    figure = Figure(figsize=(7, 3.2), dpi=110, layout="constrained")
    axis = figure.subplots()
    axis.plot(range(1 - len(past), 1), past, color=INK, linewidth=1.2, label="past")
    joined = [past[-1], *forecast]
    axis.plot(range(len(joined)), joined, color=ACCENT, marker="o", markersize=3, linewidth=1.2, label="forecast")
    axis.set_xlabel("steps from the last row", fontsize=8)
    axis.legend(fontsize=8, frameon=False)
    tidy(axis)
    return rendered(figure)


def tidy(axis: Any) -> None:
    """Small ticks, and no lines above and to the right."""
    axis.tick_params(labelsize=8, colors=INK)
    axis.spines[["top", "right"]].set_visible(False)

"""Forecasting: the next values of a series from its past."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from engine.pictures import show
from engine.schedules import WarmupCosine, scheduled
from tasks.forecast_metrics import Forecasts, changes, direction_accuracy, measured
from tasks.forecast_plots import draw_errors, draw_forecast, draw_steps, draw_window

LOSSES = {"mae": F.l1_loss, "mse": F.mse_loss, "huber": F.smooth_l1_loss}
RECENT = 5  # values whose mean is a reference


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

    def _report(self, stage: str, forecasts: Forecasts) -> dict[str, Tensor]:
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

"""Regression: numbers predicted from a row of numbers."""

import io
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
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score

from engine.errors import UserError
from engine.pictures import ACCENT, INK, MUTED, show
from engine.plots import rendered
from engine.schedules import WarmupCosine, scheduled

LARGE = 10_000  # rows from which on scikit-learn advises to boost on histograms
IMPORTANT, SHUFFLES = 1000, 10  # rows, and turns of dealing them out, from which the importance of a column is known
SHOWN = 20  # columns in a picture


class RegressionTask(LightningModule):
    """The error of standardized values; MAE, RMSE and R2 in the target's own units.

    Features and target are standardized with the means and deviations of the training rows, which the checkpoint keeps.

    Args:
        net: Network from features (B, num_features) to values (B, num_outputs). One of several members returns
            (B, members, num_outputs) in training, where each is taught by itself, and their mean otherwise.
        num_features: Numbers in a row.
        num_outputs: Numbers to predict for a row.
        optimizer: Optimizer of the network's parameters.
        loss: Mean squared error, mean absolute error, Huber's (1964) error, which is squared up to one standard
            deviation and absolute beyond, or the root of the mean squared error.
        scheduler: Learning rate schedule.
    """

    primary = "rmse"
    perfect = 0.0
    feature_mean: Tensor
    feature_deviation: Tensor
    target_mean: Tensor
    target_deviation: Tensor

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        num_features: int,
        num_outputs: int,
        optimizer: OptimizerCallable,
        loss: Literal["mse", "mae", "huber", "rmse"] = "mse",
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = net(num_features, num_outputs)
        self.loss, self.optimizer, self.scheduler = loss, optimizer, scheduler
        for name, size in (("feature", num_features), ("target", num_outputs)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_deviation", torch.ones(size))
        self.val_metrics = regression_metrics()
        self.test_metrics = regression_metrics()
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []  # features, predictions, truths: to be shown

    def forward(self, features: Tensor) -> Tensor:
        """Map rows (B, num_features) to values (B, num_outputs) in the target's own units."""
        return self._standardized(features) * self.target_deviation + self.target_mean

    def _standardized(self, features: Tensor) -> Tensor:
        return self.net((features - self.feature_mean) / self.feature_deviation)

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and data:
            rows = all_rows(data, "train")
            for name, values in (("feature", rows["features"]), ("target", rows["target"])):
                deviation, mean = torch.std_mean(values.double(), dim=0, correction=0)
                getattr(self, f"{name}_mean").copy_(mean)
                getattr(self, f"{name}_deviation").copy_(deviation.where(deviation > 0, 1))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self._loss(self._standardized(batch["features"]), batch["target"])

    def _loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Loss of standardized values (B, num_outputs), or those of (B, members, num_outputs), against targets."""
        target = (target - self.target_mean) / self.target_deviation
        if predicted.ndim == 3:
            target = target[:, None].expand_as(predicted)
        if predicted.shape != target.shape:  # (B,) against (B, 1) would compare each with each
            raise UserError(f"the net answers {tuple(predicted.shape)} where {tuple(target.shape)} is asked for")
        if self.loss == "mae":
            return F.l1_loss(predicted, target)
        if self.loss == "huber":
            return F.huber_loss(predicted, target)
        squared = F.mse_loss(predicted, target)
        return squared if self.loss == "mse" else (squared + 1e-12).sqrt()  # the root is too steep at 0

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        predicted = self._standardized(batch["features"])
        self.log("val/loss", self._loss(predicted, batch["target"]), batch_size=len(predicted), sync_dist=True)
        self._measure(self.val_metrics, batch, predicted)

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._measure(self.test_metrics, batch, self._standardized(batch["features"]))

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)

    def _measure(self, metrics: MetricCollection, batch: dict[str, Tensor], predicted: Tensor) -> None:
        """Update the metrics, and keep what the pictures will show."""
        predicted = predicted.float() * self.target_deviation
        # From the mean, not from zero, for the sake of a target that is large beside its deviation.
        metrics.update(predicted, batch["target"] - self.target_mean)
        self.seen.append((batch["features"].cpu(), (predicted + self.target_mean).cpu(), batch["target"].cpu()))

    def _report(self, stage: str, metrics: MetricCollection) -> None:
        """Log the metrics; show predictions beside truths, the residuals and, in a test, the columns' importance."""
        values = metrics.compute()
        metrics.reset()
        self.log(f"{stage}/rmse", values["rmse"], prog_bar=True, sync_dist=True)
        self.log(f"{stage}/mae", values["mae"], sync_dist=True)
        self.log(f"{stage}/r2", values["r2"], sync_dist=True)
        features, predicted, truth = (torch.cat(tensors) for tensors in zip(*self.seen, strict=True))
        self.seen = []
        title = f"{stage}/rmse = {values['rmse']:.4g}"
        show(self, f"{stage}_predictions", draw_predictions(predicted.numpy(), truth.numpy(), title))
        columns = getattr(getattr(self.trainer, "datamodule", None), "features_of", {})
        if stage == "test" and columns:
            show(self, "test_importance", draw_importance(self._importance(features, truth, columns)))

    def _importance(self, features: Tensor, truth: Tensor, columns: dict[str, list[int]]) -> dict[str, float]:
        """Return by how much RMSE grows when a column's entries are dealt out anew among the rows (Breiman 2001)."""
        features, truth = features[:IMPORTANT].to(self.device), truth[:IMPORTANT].to(self.device)
        generator = torch.Generator().manual_seed(0)

        def error(features: Tensor) -> float:
            return float((self(features).float() - truth).square().mean().sqrt())

        unshuffled, grown = error(features), {}
        for name, indices in columns.items():
            errors = []
            for _ in range(SHUFFLES):
                shuffled = features.clone()
                order = torch.randperm(len(features), generator=generator)
                shuffled[:, indices] = features[order.to(self.device)][:, indices]
                errors.append(error(shuffled))
            grown[name] = float(np.mean(errors)) - unshuffled
        return grown

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a file its ``path``, and ``predictions``, its rows with what is predicted for each."""
        rows = pd.read_csv(io.StringIO(batch["table"][0]), dtype=str, keep_default_na=False)
        values = self(batch["features"][0]).float().cpu().numpy()
        names = ["prediction"] if values.shape[1] == 1 else [f"prediction_{i}" for i in range(values.shape[1])]
        rows[names] = values
        return [{"path": batch["path"][0], "predictions": rows}]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return two rows."""
        rows = self.feature_mean + self.feature_deviation * torch.randn(2, len(self.feature_mean))
        return {"features": ("BC", rows)}

    def baseline(self, datamodule: LightningDataModule) -> dict[str, float]:
        """Return the metrics of predicting the mean of the training targets everywhere."""
        train, test = (all_rows(datamodule, part)["target"] for part in ("train", "test"))
        return scores(train.mean(0).expand_as(test), test)

    def references(self, datamodule: LightningDataModule) -> dict[str, dict[str, float]]:
        """Return the metrics of ridge regression and of gradient boosting, taught with the training rows."""
        train, test = (
            {name: values.double().numpy() for name, values in all_rows(datamodule, part).items()}
            for part in ("train", "test")
        )
        # The strength of ridge is chosen by leaving out each training row in turn; boosting is scikit-learn's default.
        boosting = GradientBoostingRegressor if len(train["features"]) < LARGE else HistGradientBoostingRegressor
        methods = {
            "ridge": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13))),
            "gradient_boosting": MultiOutputRegressor(boosting(random_state=0)),
        }
        measured = {}
        for name, method in methods.items():
            predicted = method.fit(train["features"], train["target"]).predict(test["features"])
            measured[name] = scores(torch.from_numpy(predicted), torch.from_numpy(test["target"]))
        return measured

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))


def all_rows(datamodule: LightningDataModule, part: str) -> dict[str, Tensor]:
    """Return ``features`` (N, num_features) and ``target`` (N, num_outputs) of all rows of a part."""
    tables: Any = datamodule
    return tables.rows(part)


def regression_metrics() -> MetricCollection:
    """Return root mean squared error, mean absolute error and R2, each over the whole data set."""
    return MetricCollection({"rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError(), "r2": R2Score()})


def scores(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """Return the test metrics of predictions (N, num_outputs)."""
    shift = truth.mean(0)  # which changes no metric, but spares digits
    values = regression_metrics()(predicted.reshape(truth.shape) - shift, truth - shift)
    return {f"test/{name}": float(value) for name, value in values.items()}


def draw_predictions(predicted: np.ndarray, truth: np.ndarray, title: str) -> Image.Image:
    """Return predictions against truths, with the line where they agree, beside the histogram of their differences."""
    figure = Figure(figsize=(9, 4.2), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    ends = [min(predicted.min(), truth.min()), max(predicted.max(), truth.max())]
    left.plot(ends, ends, color=MUTED, linewidth=1)
    left.scatter(truth, predicted, s=np.clip(4000 / len(truth), 2, 20), color=ACCENT, alpha=0.5, linewidths=0)
    left.set(xlabel="truth", ylabel="prediction")
    right.hist((predicted - truth).ravel(), bins=30, color=ACCENT)
    right.axvline(0, color=INK, linewidth=1)
    right.set(xlabel="prediction - truth", ylabel="rows")
    return finished(figure, title)


def draw_importance(grown: dict[str, float]) -> Image.Image:
    """Return a bar for each of the columns that matter most."""
    most = sorted(grown.items(), key=lambda item: -item[1])[:SHOWN]
    figure = Figure(figsize=(7, 0.28 * len(most) + 1.1), dpi=110, layout="constrained")
    axis = figure.subplots()
    names, values = zip(*most, strict=True)
    axis.bar_label(axis.barh(names, values, color=ACCENT), fmt="%.3g", padding=3, fontsize=8, color=INK)
    axis.invert_yaxis()
    axis.margins(x=0.1)
    return finished(figure, "growth of RMSE when a column is shuffled")


def finished(figure: Figure, title: str) -> Image.Image:
    """Give a figure its title and plain axes, and draw it."""
    figure.suptitle(title, fontsize=10, color=INK)
    for axis in figure.axes:
        axis.tick_params(labelsize=8, colors=INK)
        axis.spines[["top", "right"]].set_visible(False)
    return rendered(figure)

"""Forecasting: metrics computed by hand, series with a known optimum, and CSV files as people have them."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from lightning.pytorch import Trainer
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from datamodules.csv_files import CSVFile
from datamodules.timeseries import NetflixDataModule, TimeSeriesCSVDataModule, Windows
from engine.errors import UserError
from nets.nlinear import NLinear
from nets.rnn import RNN
from tasks.forecast_metrics import Forecasts, diebold_mariano, direction_accuracy, measured
from tasks.forecasting import ForecastingTask


def columns(last, target, forecast) -> dict[str, torch.Tensor]:
    rows = {"last": last, "target": target, "forecast": forecast}
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in rows.items()}


def write_series(path: Path, values: np.ndarray, dates: pd.DatetimeIndex | None = None) -> Path:
    dates = pd.date_range("2001-01-01", periods=len(values)) if dates is None else dates
    pd.DataFrame({"day": dates, "value": values}).to_csv(path, index=False)
    return path


def data_of(path: Path, **options) -> TimeSeriesCSVDataModule:
    data = TimeSeriesCSVDataModule(str(path), "value", "day", **options)
    data.prepare_data()
    return data


def refusal(path: Path, content: str | bytes, **options) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        data_of(path, **options)
    return str(caught.value)


def rows_of(count: int) -> list[str]:
    return [f"{np.datetime64('2020-01-01') + i},{i + i % 3}" for i in range(count)]


def learned(data: TimeSeriesCSVDataModule, net, epochs: int = 20) -> dict[str, float]:
    """Train as the recipes do and return the metrics of the test part."""
    torch.manual_seed(0)
    optimizer = partial(torch.optim.AdamW, lr=3e-3, fused=True)
    task = ForecastingTask(net, data.num_features, data.num_outputs, optimizer)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(task, datamodule=data)
    rows = Forecasts()
    for batch in data.test_dataloader():
        with torch.no_grad():
            rows.update(batch, task.eval()(batch["series"], batch["past"]))
    return measured(rows.compute())


# Metrics


def test_metrics_of_known_forecasts():
    rows = columns([[10.0], [10.0], [20.0]], [[12.0], [9.0], [20.0]], [[11.0], [11.0], [20.0]])
    values = measured(rows)  # errors 1, 2, 0; those of persistence 2, 1, 0
    assert values["relative_mae"] == 1.0 and values["mae"] == 1.0
    assert values["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert values["direction_accuracy"] == 0.5  # the third did not move
    assert values["p_value"] == 1.0


def test_relative_mae_is_summed_over_the_part_and_told_per_step():
    rows = columns([[0.0], [0.0]], [[1.0, 2.0], [3.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]])
    values = measured(rows)
    assert values["relative_mae"] == pytest.approx(4 / 8)
    assert values["relative_mae_1"] == pytest.approx(2 / 4) and values["relative_mae_2"] == pytest.approx(2 / 4)


def test_direction_leaves_out_what_did_not_move():
    truth, forecast = torch.tensor([1.0, -2.0, 0.0, 3.0]), torch.tensor([0.1, 1.0, 1.0, 0.0])
    assert direction_accuracy(forecast, truth) == pytest.approx(1 / 3)


def test_diebold_mariano_of_one_step_is_the_t_test():
    differences = torch.tensor([1.0, 2.0, 3.0, -1.0, 0.5], dtype=torch.float64)
    assert diebold_mariano(differences, 1) == pytest.approx(ttest_1samp(differences.numpy(), 0).pvalue)
    assert diebold_mariano(-differences, 1) == pytest.approx(diebold_mariano(differences, 1))
    assert diebold_mariano(torch.zeros(5), 1) == 1.0 and diebold_mariano(torch.ones(5), 1) == 0.0


def test_diebold_mariano_of_two_steps_by_hand():
    differences = torch.tensor([3.0, 3.0, 1.0, 1.0], dtype=torch.float64)  # mean 2, deviations 1, 1, -1, -1
    variance = 1 + 2 * (1 - 1 + 1) / 4  # lag 0, and twice lag 1
    statistic = 2 / math.sqrt(variance / 4) * math.sqrt((4 + 1 - 4 + 2 / 4) / 4)
    assert diebold_mariano(differences, 2) == pytest.approx(2 * student.sf(statistic, 3))


def test_forecasts_come_in_the_order_of_time_from_any_batches():
    data = NetflixDataModule(horizon=3)
    whole, parts = Forecasts(), Forecasts()
    dataset = Windows(data.series, "test", 30, 3)
    everything = dataset.__getitems__(list(range(len(dataset))))
    whole.update(everything, everything["past"][:, -3:])
    for indices in np.array_split(np.random.default_rng(0).permutation(len(dataset)), 7):
        batch = dataset.__getitems__(indices.tolist())
        parts.update(batch, batch["past"][:, -3:])
    assert measured(whole.compute()) == measured(parts.compute())


# What the net reads


@pytest.mark.parametrize("net", [NLinear, RNN])
def test_an_untrained_task_is_persistence(net):
    task = ForecastingTask(net, 1, 4, torch.optim.AdamW)
    past = 500 + torch.randn(5, 30)
    assert torch.equal(task(past[:, :, None], past), past[:, -1:].expand(5, 4))


def test_forecasts_scale_with_the_prices():
    task = ForecastingTask(NLinear, 1, 1, torch.optim.AdamW)
    torch.nn.init.normal_(task.net.linear.weight)
    task.size.zero_()
    past = 50 + torch.randn(5, 30)
    torch.testing.assert_close(task(7 * past[:, :, None], 7 * past), 7 * task(past[:, :, None], past))


# What can be learned


def changes_that_go_on(rows: int, share: float, start: float) -> np.ndarray:
    noise, change = np.random.default_rng(0).normal(size=rows), np.zeros(rows)
    for i in range(1, rows):
        change[i] = share * change[i - 1] + noise[i]
    return start + change.cumsum()


@pytest.mark.parametrize("net", [NLinear, RNN])
@pytest.mark.parametrize("start", [1000.0, 0.0])  # far from zero, and across it
def test_what_can_be_learned_is_learned(tmp_path, net, start):
    """A change is 0.8 of the one before and noise: the best error is sqrt(1 - 0.8²) = 0.6 of persistence's."""
    data = data_of(write_series(tmp_path / "s.csv", changes_that_go_on(4000, 0.8, start)))
    test = Windows(data.series, "test", 30, 1)
    past, target = test.past.double(), test.target[:, 0].double()
    oracle = past[:, -1] + 0.8 * (past[:, -1] - past[:, -2])
    best = float((oracle - target).abs().sum() / (past[:, -1] - target).abs().sum())
    assert best == pytest.approx(0.6, abs=0.03)
    values = learned(data, net, epochs=2 if net is RNN else 10)
    assert values["relative_mae"] < best + 0.05 and values["p_value"] < 1e-6 and values["direction_accuracy"] > 0.7


def test_a_random_walk_leaves_nothing_to_learn(tmp_path):
    walk = 1000 + np.random.default_rng(1).normal(size=4000).cumsum()
    values = learned(data_of(write_series(tmp_path / "walk.csv", walk)), NLinear)
    assert 0.98 < values["relative_mae"] < 1.03


# Windows


def test_windows_hold_what_they_say():
    data = NetflixDataModule(features=["Open", "Volume"], window=30, horizon=5)
    data.prepare_data()
    assert data.num_features == 2 and data.num_outputs == 5
    batch = next(iter(data.train_dataloader()))
    assert batch["series"].shape == (256, 30, 2) and batch["past"].shape == (256, 30)
    assert batch["target"].shape == batch["time"].shape == (256, 5)
    frame = pd.read_csv(data.root, comment="#")
    days = frame["Date"].astype("datetime64[s]").astype(np.int64).to_numpy()
    for k in range(3):
        first = int(np.flatnonzero(days == int(batch["time"][k, 0]))[0])
        np.testing.assert_allclose(batch["target"][k], frame["Adj Close"][first : first + 5], rtol=1e-6)
        np.testing.assert_allclose(batch["past"][k], frame["Adj Close"][first - 30 : first], rtol=1e-6)
        np.testing.assert_allclose(batch["series"][k, :, 0], frame["Open"][first - 30 : first], rtol=1e-6)


def test_no_row_is_in_two_parts_and_every_row_is_in_one():
    data = NetflixDataModule(window=30, horizon=2)
    values, counted = [], 0
    for part in ("train", "val", "test"):
        windows = Windows(data.series, part, 30, 2)
        stamps = windows.time.unique()
        values.append((int(stamps[0]), int(stamps[-1])))
        counted += len(stamps) + 30  # the first window's past
    assert values[0][1] < values[1][0] and values[1][1] < values[2][0]
    assert counted == len(data.series.target) == 2699


def test_what_follows_the_training_part_does_not_change_it(tmp_path):
    values = 100 + np.random.default_rng(0).normal(size=500).cumsum()
    before = data_of(write_series(tmp_path / "a.csv", values)).training_windows
    values[350:] *= 3
    after = data_of(write_series(tmp_path / "b.csv", values)).training_windows
    torch.testing.assert_close(before, after)


def test_a_short_series_comes_several_times_an_epoch(tmp_path):
    data = data_of(write_series(tmp_path / "s.csv", np.sin(np.arange(400.0))), stride=50)
    loader = data.train_dataloader()
    assert len(loader.dataset) == 5 and len(loader) == (32_768 + 2) // 256
    assert {len(batch["past"]) for batch in loader} == {256}


def test_dates_go_on_by_their_rule(tmp_path):
    for rule, expected in (
        ("D", "2001-02-10"),
        ("h", "2001-01-02 16:00:00"),
        ("MS", "2004-05-01"),
        ("B", "2001-02-26"),
    ):
        path = write_series(tmp_path / "s.csv", np.arange(40.0), pd.date_range("2001-01-01", periods=40, freq=rule))
        data = TimeSeriesCSVDataModule(str(path), "value", "day")
        assert data.predict_dataset([path])[0]["dates"] == [expected]
    dates = pd.date_range("2001-01-01", periods=41).delete(20)
    path = write_series(tmp_path / "s.csv", np.arange(40.0), dates)
    assert TimeSeriesCSVDataModule(str(path), "value", "day").predict_dataset([path])[0]["dates"] == []


# Files


def test_files_as_people_have_them(tmp_path):
    expected = np.arange(4) + 0.5
    header, rows = "Größe", [f"2020-01-0{i + 1}" for i in range(4)]
    plain = "\n".join([f"day,{header}", *(f"{day},{v}" for day, v in zip(rows, expected, strict=True))])
    german = "\r\n".join(
        [f"day;{header}", *(f"{d};{v}".replace(".", ",") for d, v in zip(rows, expected, strict=True))]
    )
    contents = {
        "bom": b"\xef\xbb\xbf" + plain.encode(),
        "windows": plain.encode("cp1252"),
        "utf16": plain.encode("utf-16"),
        "german": german.encode("cp1252"),
        "tabs": plain.replace(",", "\t").encode(),
        "comment": f"# a, b, c\n\n{plain}\n\n".encode(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(CSVFile(tmp_path / name).numbers(header), expected, name)


def test_dates_as_people_write_them(tmp_path):
    for text in ("2020-01-31", "31.01.2020", "01/31/2020", "31/01/2020", "2020-01-31 00:00:00-05:00", "Jan 31, 2020"):
        (tmp_path / "d.csv").write_text(f'day;value\n"{text}";1\n')
        assert CSVFile(tmp_path / "d.csv").dates("day")[0] == np.datetime64("2020-01-31"), text


def test_unordered_rows_are_sorted_and_gaps_told(tmp_path):
    lines = rows_of(400)
    path = tmp_path / "s.csv"
    path.write_text("\n".join(["day,value", *lines[:100], *reversed(lines[150:])]))
    data = data_of(path, window=20)
    assert (np.diff(data.series.dates) > np.timedelta64(0, "s")).all()
    assert "sorted" in str(data) and "1 gap(s), the widest of 51 days" in str(data)


def test_bad_files_are_refused_by_line_and_column(tmp_path):
    path, head, good = tmp_path / "s.csv", "day,value\n", rows_of(330)
    assert "line 5, column 'value': 'ten' is no finite number" in refusal(
        path, head + "\n".join([*good[:3], "2020-01-04,ten", *good[4:]])
    )
    assert "line 5, column 'value': the value is missing" in refusal(
        path, head + "\n".join([*good[:3], "2020-01-04,", *good[4:]])
    )
    assert "(null)" in refusal(path, head + "\n".join([*good[:3], "2020-01-04,null", *good[4:]]))
    assert "line 5, column 'day': 'soon' is no date like" in refusal(
        path, head + "\n".join([*good[:3], "soon,4", *good[4:]])
    )
    assert "line 5: 3 cells, but the header has 2" in refusal(
        path, head + "\n".join([*good[:3], "2020-01-04,4,4", *good[4:]])
    )
    assert "line 6: 2020-01-04 stands in line 5 already" in refusal(
        path, head + "\n".join([*good[:4], "2020-01-04,7", *good[4:]])
    )
    assert "did you mean 'Value'?" in refusal(path, "day,Value\n" + "\n".join(good))
    assert "has no column" in refusal(path, "a,b\n" + "\n".join(good))
    assert "never changes in the val part" in refusal(
        path, head + "\n".join([*good[:200], *(f"{g[:10]},1" for g in good[200:])])
    )
    message = refusal(path, head + "\n".join(good[:100]))
    assert "100 row(s)" in message and "need 310" in message and "--data.window of at most 9" in message
    assert "1 row(s)" in refusal(path, head + good[0])
    assert "is empty" in refusal(path, "") and "no rows" in refusal(path, head)
    assert "is no text" in refusal(path, b"PK\0\0")


def test_prediction_skips_what_it_cannot_use_and_needs_the_columns(tmp_path):
    path = write_series(tmp_path / "good.csv", np.arange(40.0))
    (tmp_path / "short.csv").write_text("day,value\n2020-01-01,1\n")
    data = TimeSeriesCSVDataModule(str(path), "value", "day", horizon=2)
    files = data.predict_dataset([tmp_path])
    assert files.paths == [path] and len(files.skipped) == 1 and "1 rows; a window has 30" in files.skipped[0]
    with pytest.raises(UserError, match="nowhere"):
        data.predict_dataset([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="reads 2 column"):
        data.load_state_dict({"num_features": 2, "window": 30, "horizon": 1})


def test_several_steps_are_forecast_measured_and_written(tasklight, tmp_path):
    config = str(ROOT / "configs" / "stock_linear.yaml")
    flags = ["--data.horizon", "5", "--trainer.max_epochs", "1", "--trainer.logger", "false"]
    code, out, err = tasklight("fit", "--config", config, *flags)
    assert code == 0, err
    assert all(f"test/relative_mae_{step}" in out for step in range(1, 6)) and "test/p_value" in out
    assert Path("runs/stock_linear/0/pictures/test_relative_mae_per_step.png").is_file()
    prices = write_series(tmp_path / "prices.csv", 100 + np.sin(np.arange(40.0)))
    flags = ["--data.target", "value", "--data.time", "day"]
    assert tasklight("predict", "--config", config, "--input", str(prices), *flags)[0] == 0
    table = pd.read_csv("runs/stock_linear/0/predictions/prices_forecast.csv")
    assert table["step"].tolist() == [1, 2, 3, 4, 5] and table["date"][0] == "2001-02-10"
    assert table["forecast"].between(90, 110).all()

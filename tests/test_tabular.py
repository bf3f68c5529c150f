"""Tables: what becomes of their cells, how rows are split, and bad input refused by file, line and column."""

from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import write_homes

from datamodules.boston_housing import BostonHousingDataModule
from datamodules.csv_table import read_csv
from datamodules.tabular import TabularCSVDataModule
from engine.errors import UserError


def write(path: Path, *lines: str, encoding: str = "utf-8") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return str(path)


def homes(path: Path, count: int = 80, seed: int = 0) -> list[str]:
    """Write homes and return the lines, the header first, for a test to change."""
    write_homes(path, count, seed)
    return path.read_text().splitlines()


def data_of(path: Path | str, target: str = "price", **options) -> TabularCSVDataModule:
    data = TabularCSVDataModule(str(path), target, **options)
    data.prepare_data()
    return data


def refusal(path: Path | str, target: str = "price", **options) -> str:
    with pytest.raises(UserError) as caught:
        data_of(path, target, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_table_of_numbers_and_categories(tmp_path):
    homes(tmp_path / "homes.csv")
    data = data_of(tmp_path / "homes.csv", batch_size=16)
    assert data.features_of == {"size": [0, 1], "age": [2, 3, 4], "town": [5, 6]}
    assert data.num_features == data.in_channels == 7 and data.num_outputs == 1
    batch = next(iter(data.train_dataloader()))
    assert batch["features"].shape == (16, 7) and batch["features"].dtype == torch.float32
    assert batch["target"].shape == (16, 1) and batch["target"].dtype == torch.float32
    assert [len(data.rows(part)["features"]) for part in ("train", "val", "test")] == [64, 8, 8]
    for words in ("64 train / 8 val / 8 test rows", "of age", "split off by content"):
        assert words in str(data)


def test_medians_roots_and_statistics_are_those_of_the_training_rows(tmp_path):
    write(tmp_path / "train.csv", "x,t", "4,1", "4,2", "8,3", ",4", "20,5")
    write(tmp_path / "val.csv", "x,t", "100,1", ",2", "0,3")
    write(tmp_path / "test.csv", "x,t", "7,1", "7,2")
    data = data_of(tmp_path, "t")
    assert data.rows("train")["features"][:, 0].tolist() == [4, 4, 8, 6, 20]  # 6 is the median of 4, 4, 8 and 20
    assert data.rows("train")["features"][:, 2].tolist() == [0, 0, 0, 1, 0]
    # The root of the distance from 4; what lies below is as near as can be.
    torch.testing.assert_close(
        data.rows("val")["features"], torch.tensor([[100, 96**0.5, 0], [6, 2**0.5, 1], [0, 0, 0]])
    )
    mean, deviation = data.statistics
    assert mean[0] == pytest.approx(42 / 5) and deviation[0] == pytest.approx(np.std([4, 4, 8, 6, 20]))


def test_classes_by_text_and_by_number(tmp_path):
    lines = homes(tmp_path / "homes.csv")
    data = data_of(tmp_path / "homes.csv", "town")
    assert data.class_names == ["Bay", "Inland"] and data.num_classes == 2
    batch = next(iter(data.train_dataloader()))
    assert batch["label"].shape == (64,) and batch["label"].dtype == torch.int64
    with pytest.raises(UserError, match="holds text such as Bay"):
        _ = data.num_outputs
    write(tmp_path / "sold.csv", *(f"{line},{'sold' if i == 0 else i % 11}" for i, line in enumerate(lines)))
    with pytest.raises(UserError, match=r"--data.categories '\[sold\]'"):
        _ = data_of(tmp_path / "sold.csv", "sold").num_classes
    assert data_of(tmp_path / "sold.csv", "sold", categories=["sold"]).class_names == [str(i) for i in range(11)]


def test_rows_that_differ_in_nothing_but_the_target_stay_on_one_side(tmp_path):
    rows = [f"{i // 3 % 7},{i // 3},{i}" for i in range(90)]
    data = data_of(write(tmp_path / "thrice.csv", "a,b,t", *rows), "t")
    table, _, _ = data.source
    for b in set(table.cells["b"]):
        assert len(set(data.parts[(table.cells["b"] == b).to_numpy()])) == 1
    assert [int((data.parts == part).sum()) for part in ("train", "val", "test")] == [72, 9, 9]


def test_the_split_does_not_depend_on_the_order_of_rows(tmp_path):
    lines = homes(tmp_path / "homes.csv")
    write(tmp_path / "turned.csv", lines[0], *reversed(lines[1:]))
    there, back = data_of(tmp_path / "homes.csv"), data_of(tmp_path / "turned.csv")
    assert there.parts.tolist() == back.parts.tolist()[::-1]


def test_columns_that_tell_nothing_are_left_out(tmp_path):
    lines = homes(tmp_path / "homes.csv")
    extra = [f"{i},{line},home {i},yes,{i % 5}" for i, line in enumerate(lines[1:])]
    data = data_of(write(tmp_path / "more.csv", f",{lines[0]},name,sold,agent", *extra), ignore=["agent"])
    assert list(data.features_of) == ["size", "age", "town"]
    for words in ("column 1 (row numbers)", "name (another text", "sold (the same everywhere)", "agent (as told)"):
        assert words in str(data)
    assert data.parts.tolist() == data_of(tmp_path / "homes.csv").parts.tolist()  # they do not shift the split either


def test_many_categories(tmp_path):
    rows = [f"c{i % 150 if i < 400 else i % 50},{i}" for i in range(2000)]
    data = data_of(write(tmp_path / "many.csv", "x,t", *rows), "t")
    assert data.num_features == 100 and "unknown to training" in str(data)


def test_rows_without_a_target_are_dropped_and_counted(tmp_path):
    lines = homes(tmp_path / "homes.csv")
    lines[3], lines[9] = lines[3].rpartition(",")[0] + ",", lines[9].rpartition(",")[0] + ",NaN"
    data = data_of(write(tmp_path / "gaps.csv", *lines))
    assert len(data.parts) == 78 and "dropped 2 rows without a target" in str(data)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_encodings(tmp_path, encoding):
    table = read_csv(Path(write(tmp_path / "t.csv", "größe,straße", "1,Nürnberger Straße", encoding=encoding)))
    assert list(table.cells) == ["größe", "straße"] and table.cells["straße"][0] == "Nürnberger Straße"


def test_semicolons_and_decimal_commas(tmp_path):
    table = read_csv(Path(write(tmp_path / "t.csv", 'a;b;"c;d"', "1,5;1.234,5;2.5", "-2;7;1.000")))
    assert table.values.to_numpy().tolist() == [[1.5, 1234.5, 2.5], [-2, 7, 1]]
    tabs = read_csv(Path(write(tmp_path / "tabs.csv", "a\tb", "1\t2")))
    assert tabs.values.to_numpy().tolist() == [[1, 2]]


def test_an_unknown_category_is_none_of_the_known_and_is_told(tmp_path):
    write_homes(tmp_path / "all" / "train.csv", 40)
    lines = homes(tmp_path / "all" / "test.csv", 20, seed=1)
    write(tmp_path / "all" / "test.csv", *lines, "80,20,Sea,150")
    data = data_of(tmp_path / "all")
    assert data.rows("test")["features"][-1, 5:].tolist() == [0, 0]
    assert "1 rows have a category that is unknown to training: town 'Sea' is unknown" in str(data)


def test_prediction_needs_nothing_but_the_state(tmp_path):
    homes(tmp_path / "homes.csv")
    trained, fresh = data_of(tmp_path / "homes.csv"), TabularCSVDataModule("nowhere.csv", "price")
    torch.save(trained.state_dict(), tmp_path / "state")
    fresh.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    write(tmp_path / "new" / "a.csv", "town,size,age,remark", "Bay,100,30,x", "Sea,,40,y")
    write(tmp_path / "new" / "lacks.csv", "town,size", "Bay,100")
    write(tmp_path / "new" / "torn.csv", "town,size,age", "Bay,100,old")
    (tmp_path / "new" / "empty.csv").touch()
    dataset = fresh.predict_dataset([tmp_path / "new"])
    assert len(dataset) == 1 and len(dataset.skipped) == 3
    assert "empty.csv is empty" in dataset.skipped[0] and "no column age" in dataset.skipped[1]
    assert "torn.csv, line 2: 'old'" in dataset.skipped[2]
    sample = dataset[0]
    assert sample["features"].shape == (2, trained.num_features)
    assert sample["features"][1, 0] == trained.columns[0].median
    assert sample["table"].splitlines() == [
        "town,size,age,remark,note",
        "Bay,100,30,x,",
        "Sea,,40,y,size is missing; town 'Sea' is unknown",
    ]


def test_boston_is_tested_once_in_five_folds():
    folds = [BostonHousingDataModule(fold) for fold in range(5)]
    for data in folds:
        data.prepare_data()
    tested = np.stack([data.parts == "test" for data in folds])
    assert (tested.sum(0) == 1).all()
    assert all((data.parts == "val").sum() in (50, 51) for data in folds)
    assert "b" not in folds[0].features_of and "left out: b (as told)" in str(folds[0])
    with pytest.raises(UserError, match="0 to 4"):
        BostonHousingDataModule(5)


# Bad input: each is named, with its file, line and column.


def test_missing_files_and_columns(tmp_path):
    assert "nowhere.csv" in refusal(tmp_path / "nowhere.csv")
    assert "train.csv" in refusal(tmp_path)
    homes(tmp_path / "homes.csv")
    message = refusal(tmp_path / "homes.csv", "prise")
    assert "no column 'prise', but size, age, town, price; did you mean price?" in message
    assert "did you mean town?" in refusal(tmp_path / "homes.csv", ignore=["twon"])


def test_text_in_a_column_of_numbers(tmp_path):
    lines = homes(tmp_path / "homes.csv")
    lines[4] = "big" + lines[4][lines[4].index(",") :]
    message = refusal(write(tmp_path / "text.csv", *lines))
    assert "'size'" in message and "text.csv, line 5: 'big'" in message and "1 cell(s)" in message
    lines[4] = "inf" + lines[4][3:]
    assert "line 5: 'inf'" in refusal(write(tmp_path / "text.csv", *lines))
    lines = homes(tmp_path / "homes.csv")
    lines[2] = lines[2].rpartition(",")[0] + ",cheap"
    assert "'price'" in (message := refusal(write(tmp_path / "target.csv", *lines))) and "line 3: 'cheap'" in message


def test_empty_and_short_tables(tmp_path):
    assert "empty.csv is empty" in refusal(write(tmp_path / "empty.csv", ""))
    assert "no rows" in refusal(write(tmp_path / "header.csv", "size,price"))
    assert "one.csv has 1 row(s) with a 'price'" in refusal(write(tmp_path / "one.csv", "size,age,price", "1,2,3"))
    few = [f"{i},{i * i},{i}" for i in (5, 3, 8, 1)]
    assert "fewer than 2 for val" in refusal(write(tmp_path / "few.csv", "size,age,price", *few))
    assert "no column to tell 'price' by" in refusal(write(tmp_path / "alone.csv", "price", "1", "2", "3", "9"))
    rows = [f"{i},5" for i in (3, 9, 4, 2, 7)] * 9
    assert "the target 'price' is 5 in every training row" in refusal(write(tmp_path / "c.csv", "size,price", *rows))


def test_rows_that_do_not_fit_the_header(tmp_path):
    assert "row.csv, line 3: 3 cells, but the header has 2" in refusal(
        write(tmp_path / "row.csv", "a,price", "1,2", "1,2,3")
    )
    assert "more than one column named a" in refusal(write(tmp_path / "twice.csv", "a,a,price", "1,2,3"))


def test_parts_that_do_not_fit_each_other(tmp_path):
    lines = homes(tmp_path / "train.csv")
    write(tmp_path / "test.csv", *(line.rpartition(",")[0] for line in lines))
    assert "test.csv has no column price" in refusal(tmp_path)
    write(tmp_path / "test.csv", *lines, "50,20,Sea,100")
    assert "the class 'Sea' occurs only outside the training part" in (message := refusal(tmp_path, "town"))
    assert "test.csv, line 82" in message

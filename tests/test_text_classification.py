"""Text classification: splits, padding, tables as users have them, and starting from a net that has read."""

import csv
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from recipes import reviews
from test_engine import one_line
from torch.nn import functional as F

from datamodules.docstrings import PLACES, DocstringsDataModule
from datamodules.text_classification import TextClassificationCSVDataModule, hash_of
from engine.errors import UserError
from nets.bert import BERTClassifier
from tasks.text_classification import TextClassificationTask

BERT_CONFIG, CONFIG = (str(ROOT / "configs" / f"{name}.yaml") for name in ("bert", "bert_classifier"))
TABLE = "datamodules.text_classification.TextClassificationCSVDataModule"
TINY = ["--model.net.dim", "16", "--trainer.max_epochs", "1", "--trainer.logger", "false"]


def table(folder: Path, text: str, name: str = "table.tsv") -> Path:
    (folder / name).write_text(text, "utf-8")
    return folder / name


def refusal(root: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        TextClassificationCSVDataModule(str(root), **options).prepare_data()
    return str(caught.value)


def test_docstrings_are_of_one_package_and_in_one_part():
    data = DocstringsDataModule()
    data.prepare_data()
    texts = data.texts
    assert data.class_names == sorted(PLACES) and len(texts.texts) == len(set(texts.texts)) > 1500
    parts: dict[str, set[str]] = {}
    for text, part in zip(texts.texts, texts.parts, strict=True):
        parts.setdefault(hash_of(text), set()).add(part)
    assert max(map(len, parts.values())) == 1
    assert texts.parts.count("val") == pytest.approx(len(texts.texts) / 10, abs=10)
    assert texts.parts.count("test") == pytest.approx(len(texts.texts) / 10, abs=10)


def test_texts_that_differ_in_digits_and_punctuation_only_are_the_same():
    assert hash_of("재밌다!! 10점") == hash_of("재밌다 9점...") != hash_of("재미없다 10점")
    assert hash_of("?!") != hash_of("!!!")  # of which no letter is left


def test_few_labels_are_of_all_classes_whatever_the_order_of_the_rows(tmp_path):
    rows = [f"a review, number {chr(97 + i // 26)}{chr(97 + i % 26)}\t{i // 100}" for i in range(200)]
    ways = []
    for order in (rows, rows[::-1]):
        root = table(tmp_path, "text\tlabel\n" + "\n".join(order))
        data = TextClassificationCSVDataModule(str(root), num_train=40)
        texts, labels = data.of_part("train")
        assert len(texts) == 40 and 8 < labels.sum() < 32
        ways.append({part: set(data.of_part(part)[0]) for part in ("train", "val", "test")})
    assert ways[0] == ways[1]
    assert not ways[0]["train"] & ways[0]["test"]


def test_batches_are_filled_up_with_what_is_no_token(tmp_path):
    reviews(tmp_path / "own")
    data = TextClassificationCSVDataModule(str(tmp_path / "own" / "reviews.tsv"), "document", kind="words", context=6)
    for batch in [next(iter(data.train_dataloader())), next(iter(data.test_dataloader()))]:
        tokens, padding = batch["tokens"], data.datasets["train"].padding
        assert tokens.dtype == batch["label"].dtype == torch.int64 and tokens.shape[1] <= 6
        for row, text in zip(tokens, batch["text"], strict=True):
            kept = row[row != padding]
            assert torch.equal(row[: len(kept)], kept)
            assert data.datasets["train"].padding not in kept and len(kept) == min(6, len(text.split()))


def test_what_fills_texts_up_changes_nothing():
    torch.manual_seed(0)
    net = BERTClassifier(21, 3, dim=16, depth=2, num_heads=2).eval()
    tokens = torch.randint(20, (2, 7))
    longer = F.pad(tokens, (0, 4), value=20)
    torch.testing.assert_close(net(longer), net(tokens))
    assert net(tokens).shape == (2, 3)
    net(longer).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())


def test_an_encoder_that_has_read_is_taken_over_whole(tasklight):
    small = [*TINY, "--data.num_train"]
    assert tasklight("fit", "--config", BERT_CONFIG, *small, "9000")[0] == 0
    start = ["fit", "--config", CONFIG, *small, "200", "--model.init_from", "runs/bert/0"]
    code, _, err = tasklight(*start)
    assert code == 2 and "--data.tokenizer_from runs/bert/0" in one_line(err)
    code, out, err = tasklight(*start, "--data.tokenizer_from", "runs/bert/0", "--model.optimizer.lr", "0")
    assert code == 0, err
    assert "new: head.weight, head.bias" in out
    weights = [
        torch.load(f"runs/{name}/0/checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for name in ("bert", "bert_classifier")
    ]
    shared = [name for name in weights[0] if name.startswith("net.encoder.")]
    assert shared and all(torch.equal(weights[0][name], weights[1][name]) for name in shared)
    code, _, err = tasklight(*start, "--data.tokenizer_from", "nowhere")
    assert code == 2 and "data.tokenizer_from" in one_line(err) and "nowhere" in err


def test_a_longer_text_is_read_from_its_start(tmp_path):
    root = table(
        tmp_path, "text\tlabel\n" + "".join(f"{['good', 'bad'][i % 2]} {'x ' * i}\t{i % 2}\n" for i in range(60))
    )
    data = TextClassificationCSVDataModule(str(root), kind="words", context=4)
    assert "are cut off there" in str(data)
    assert {len(tokens) for tokens in data.datasets["train"].tokens} <= {1, 2, 3, 4}


@pytest.mark.parametrize(
    "content, words",
    [
        ("text\tlabel\n좋다\t1\n".encode("cp949"), ["UTF-8", "line 2"]),
        (b"", ["empty"]),
        (b"text\tlabel\n", ["no rows"]),
        (b"txt\tlabel\ngood\t1\nbad\t0\n", ["'text'", "'txt'"]),
        (b"text\tlabel\ngood\t1\nbad\t0\t0\n", ["line 3", "3 cells"]),
        (b"text\tlabel\ngood\t1\nbetter\t1\nbest\t1\nwell\t1\n", ["one class", "'1'"]),
        (b"text\tlabel\ngood\t1\nbad\t0\n", ["2 text(s)"]),
        (b"text\tlabel\n\t1\nbad\t\n", ["no row with both"]),
    ],
)
def test_odd_tables_are_told_in_a_line(tmp_path, content, words):
    (tmp_path / "odd.tsv").write_bytes(content)
    said = refusal(tmp_path / "odd.tsv")
    assert "\n" not in said and all(word in said for word in words)


def test_odd_folders_are_told_in_a_line(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nowhere")
    table(tmp_path, "text\tlabel\na\t1\n", "ratings_test.txt")
    assert "'train'" in refusal(tmp_path)
    for name in ("train.tsv", "ratings_train.txt"):
        table(tmp_path, "text\tlabel\ngood\t1\n", name)
    assert "two files for train" in refusal(tmp_path)
    (tmp_path / "train.tsv").unlink()
    table(tmp_path, "text\tlabel\ngood\t1\nbad\t0\nfine\t1\nawful\t0\n", "ratings_train.txt")
    table(tmp_path, "text\tlabel\nworse\t2\n", "ratings_test.txt")
    assert "no training texts" in refusal(tmp_path)


def test_quotes_are_part_of_texts_but_in_csv(tmp_path):
    rows = [f'"so said {name}' for name in ("one", "two", "three", "four", "five", "six")]
    root = table(tmp_path, "text\tlabel\n" + "".join(f"{row}\t{i % 2}\n" for i, row in enumerate(rows)))
    assert TextClassificationCSVDataModule(str(root)).texts.texts == rows
    root = table(tmp_path, 'label,text\n1,"one, ""two""\nand three"\n0,four\n1,five\n', "table.csv")
    assert TextClassificationCSVDataModule(str(root)).texts.texts[0] == 'one, "two"\nand three'


def test_rows_without_text_or_class_are_left_out_and_counted(tmp_path):
    rows = "".join(f"review {name}\t{i % 2}\n" for i, name in enumerate(["a", "bb", "ccc", "dddd", "e", "ff"]))
    data = TextClassificationCSVDataModule(str(table(tmp_path, f"text\tlabel\n{rows}\t1\nnone\t\n")))
    assert len(data.texts.texts) == 6 and "left out 2" in str(data)


def test_a_table_is_predicted_row_by_row_as_texts_are_one_by_one(tasklight, tmp_path):
    reviews(tmp_path / "own")
    flags = ["--data", TABLE, "--data.text", "document", "--data.root", str(tmp_path / "own" / "reviews.tsv")]
    assert tasklight("fit", "--config", CONFIG, *TINY, *flags)[0] == 0
    table(tmp_path, 'id\tdocument\n007\t정말 "재밌다\n8\t지루하다\n', "new.tsv")
    assert tasklight("predict", "--ckpt_path", "runs/bert_classifier/0", "--input", str(tmp_path / "new.tsv"))[0] == 0
    folder = Path("runs/bert_classifier/0/predictions")
    with (folder / "new_predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["007", "8"] and rows[0]["document"] == '정말 "재밌다'
    typed = ["--prompt", '정말 "재밌다', "지루하다"]
    assert tasklight("predict", "--ckpt_path", "runs/bert_classifier/0", *typed)[0] == 0
    with (folder / "predictions.csv").open(encoding="utf-8") as file:
        alone = list(csv.DictReader(file))
    assert [row["class"] for row in alone] == [row["prediction"] for row in rows]
    assert float(alone[0]["probability"]) == pytest.approx(float(rows[0]["probability"]), abs=1e-3)


def test_the_baseline_names_the_most_frequent_class_and_words_tell_more(tmp_path):
    reviews(tmp_path / "own")
    data = TextClassificationCSVDataModule(str(tmp_path / "own" / "reviews.tsv"), "document")
    net = partial(BERTClassifier, dim=16, depth=1, num_heads=2)
    task = TextClassificationTask(net, data.tokenizer, 2, data.class_names, torch.optim.AdamW)
    (_, trained), (_, tested) = data.of_part("train"), data.of_part("test")
    frequent = int(trained.mean() > 0.5)
    assert task.baseline(data)["test/accuracy"] == pytest.approx((tested == frequent).mean(), abs=1e-6)
    assert task.references(data)["logistic regression on words"]["test/accuracy"] == 1

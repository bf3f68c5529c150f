"""``check``: every fault that is planted is found, with its file and line, and clean data raise no alarm."""

import io
import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from PIL import Image, ImageOps
from recipes import own_pictures, random_walk, write_homes
from test_captcha import some_texts, write_captchas
from test_engine import one_line

from engine.recipes import recipes

CLASSES = ["--data", "datamodules.classification.ImageFolderDataModule", "--data.root"]
MASKS = ["--data", "datamodules.segmentation.SegmentationFolderDataModule", "--data.root"]
PHOTOS = ["--data", "datamodules.photos.PhotoFolderDataModule", "--data.crop", "32", "--data.root"]
TABLE = ["--data", "datamodules.tabular.TabularCSVDataModule", "--data.target", "price", "--data.root"]
SERIES = ["--data", "datamodules.timeseries.TimeSeriesCSVDataModule", "--data.target", "load", "--data.time", "day"]
SERIES += ["--data.root"]
TEXT = ["--data", "datamodules.text.TextFolderDataModule", "--data.context", "16", "--data.root"]
REVIEWS = ["--data", "datamodules.text_classification.TextClassificationCSVDataModule", "--data.root"]
PAIRS = ["--data", "datamodules.translation.ParallelTextDataModule", "--data.vocab_size", "400", "--data.root"]
CAPTCHAS = ["--data", "datamodules.captcha.CaptchaFolderDataModule", "--data.root"]


class Checked:
    """What ``check`` said.

    Args:
        code: Exit code.
        out: What it printed.
        err: Its errors.
    """

    def __init__(self, code: int, out: str, err: str, recipe: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.page = (Path("runs") / recipe / "check" / "report.html").read_text("utf-8") if code < 2 else ""

    def sections(self, kind: str) -> list[str]:
        """Return what is ``broken``, or ``odd``, with the places."""
        found = re.findall(rf'<section class="{kind}">(.*?)</section>', self.page, re.S)
        return [re.sub(r"<[^>]+>", " ", section).replace("&#x27;", "'").replace("&quot;", '"') for section in found]

    def says(self, kind: str, *words: str) -> bool:
        """Tell whether one section of a kind has all words."""
        return any(all(word in section for word in words) for section in self.sections(kind))


@pytest.fixture
def check(tasklight: Callable) -> Callable[..., Checked]:
    """Return a function that types ``check``."""

    def type_check(recipe: str, *flags: str) -> Checked:
        command = ["check", "--config", str(ROOT / "configs" / f"{recipe}.yaml"), *flags]
        return Checked(*tasklight(*command, "--trainer.accelerator", "cpu"), recipe)

    return type_check


def calm(checked: Checked) -> None:
    """Assert that nothing is broken or odd."""
    assert checked.code == 0, checked.out + checked.err
    assert not checked.sections("broken") and not checked.sections("odd"), checked.out
    assert "nothing is broken, nothing is odd" in checked.out


def expect(checked: Checked, kind: str, planted: list[tuple[str, ...]]) -> None:
    """Assert that everything that was planted is found, each in one finding."""
    for words in planted:
        assert checked.says(kind, *words), f"{words} not in {checked.sections(kind)}"


def scene(rng: np.random.Generator, bright: int) -> Image.Image:
    """Return a smooth colour picture of 40 x 40 with bright squares on it."""
    coarse = Image.fromarray(rng.integers(0, 160, (6, 6, 3), dtype=np.uint8))
    picture = coarse.resize((40, 40), Image.Resampling.BICUBIC)
    for _ in range(bright):
        left, top = (int(place) for place in rng.integers(0, 28, 2))
        picture.paste((250, 250, 200), (left, top, left + 10, top + 10))
    return picture


def write_scenes(root: Path, classes: tuple[str, ...] = ("disc", "frame"), seed: int = 0) -> None:
    """Write pictures of every class, a folder for each, in three parts."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", 14), ("val", 6), ("test", 6)):
        for number, name in enumerate(classes, start=1):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                scene(rng, number).save(root / part / name / f"{i:02d}.png")


def bomb() -> bytes:
    """Return the start of a picture of 50,000 x 50,000 pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def write_broken(folder: Path) -> list[str]:
    """Write files that cannot be read as pictures; return what is said of each."""
    file = io.BytesIO()
    scene(np.random.default_rng(9), 3).resize((200, 200)).save(file, "JPEG")
    (folder / "half.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    (folder / "zero.png").write_bytes(b"")
    (folder / "words.png").write_text("no picture")
    (folder / "bomb.png").write_bytes(bomb())
    names = ("half.jpg (cannot", "zero.png (empty file)", "words.png (cannot", "bomb.png (too many pixels)")
    return [f"{folder.name}/{name}" for name in names]


def test_pictures_with_classes(check, tasklight, tmp_path):
    root = tmp_path / "clean"
    write_scenes(root)
    calm(check("cnn", *CLASSES, str(root)))
    broken = write_broken(root / "train" / "disc")
    (root / "train" / "empty").mkdir()
    (root / "test" / "oval").mkdir()
    scene(np.random.default_rng(5), 4).save(root / "test" / "oval" / "strange.png")
    copied = Image.open(root / "train" / "disc" / "03.png")
    copied.save(root / "test" / "disc" / "copied.png")
    Image.open(root / "train" / "frame" / "04.png").save(root / "val" / "frame" / "again.jpg", quality=90)
    ImageOps.mirror(Image.open(root / "train" / "frame" / "06.png")).save(root / "test" / "frame" / "mirrored.png")
    Image.open(root / "train" / "disc" / "05.png").save(root / "train" / "frame" / "torn.png")
    scene(np.random.default_rng(6), 1).convert("CMYK").save(root / "train" / "disc" / "inks.tif")
    Image.new("RGB", (40, 40), "red").save(root / "val" / "disc" / "blank.png")
    (root / "train" / "rare").mkdir()
    for i in range(3):
        scene(np.random.default_rng(20 + i), 5).save(root / "train" / "rare" / f"{i}.png")
    found = check("cnn", *CLASSES, str(root))
    assert found.code == 1
    planted = [("are broken", *broken), ("train/empty", "holds no pictures"), ("'oval'", "/test", "has no folder")]
    planted += [("test sample(s) are in the training part", "test/disc/copied.png = ", "train/disc/03.png")]
    planted += [("near copies", "val/frame/again.jpg = ", "train/frame/04.png")]
    planted += [("near copies", "test/frame/mirrored.png = ", "train/frame/06.png")]
    expect(found, "broken", planted)
    odd = [("another class", "train/disc/05.png", "train/frame/torn.png"), ("CMYK", "inks.tif"), ("blank.png", "same")]
    expect(found, "odd", [*odd, ("fewer than 10", "rare (3)")])
    code, _, err = tasklight("fit", "--config", str(ROOT / "configs" / "cnn.yaml"), *CLASSES, str(root))
    assert code == 2 and "empty" in one_line(err)  # a training stops at the first


def write_masked(root: Path) -> None:
    """Write pictures and masks of their bright squares, in three parts."""
    rng = np.random.default_rng(1)
    for part, count in (("train", 8), ("val", 3), ("test", 3)):
        for kind in ("images", "masks"):
            (root / part / kind).mkdir(parents=True)
        for i in range(count):
            picture = scene(rng, 1)
            picture.save(root / part / "images" / f"{i}.png")
            ids = (np.asarray(picture)[:, :, 0] > 245).astype(np.uint8)
            Image.fromarray(ids).save(root / part / "masks" / f"{i}.png")


def test_pictures_with_masks(check, tmp_path):
    root = tmp_path / "masked"
    write_masked(root)
    calm(check("unet", *MASKS, str(root)))
    rng, images, masks = np.random.default_rng(7), root / "train" / "images", root / "train" / "masks"
    scene(rng, 1).save(images / "alone.png")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(masks / "lonely.png")
    for name, size in (("colours", 40), ("large", 50), ("half", 40)):
        scene(rng, 1).save(images / f"{name}.png")
        Image.fromarray(np.eye(size, dtype=np.uint8)).save(masks / f"{name}.png")
    scene(rng, 1).save(masks / "colours.png")
    (images / "half.png").write_bytes((images / "0.png").read_bytes()[:200])
    strange = np.zeros((40, 40), np.uint8)
    strange[5:9] = 2
    Image.fromarray(strange).save(root / "test" / "masks" / "0.png")
    Image.open(images / "1.png").save(root / "val" / "images" / "0.png")
    found = check("unet", *MASKS, str(root))
    assert found.code == 1
    planted = [("have no mask", "alone"), ("have no picture", "lonely"), ("not pictures of class ids", "colours.png")]
    planted += [("differ from their pictures in size", "large.png is 50 x 50"), ("are broken", "half.png")]
    planted += [("class 2", "only outside the training part", "test/masks/0.png")]
    planted += [("are in the training part too", "val/masks/0.png = train/masks/1.png")]
    expect(found, "broken", planted)


def test_photos(check, tmp_path):
    root, rng = tmp_path / "photos", np.random.default_rng(2)
    for part, count in (("train", 8), ("val", 3), ("test", 3)):
        (root / part).mkdir(parents=True)
        for i in range(count):
            scene(rng, 2).save(root / part / f"{i}.png")
    calm(check("dncnn", *PHOTOS, str(root)))
    broken = write_broken(root / "train")
    scene(rng, 1).resize((30, 20)).save(root / "train" / "small.png")
    Image.open(root / "train" / "2.png").save(root / "test" / "again.png")
    found = check("dncnn", *PHOTOS, str(root))
    assert found.code == 1
    expect(found, "broken", [("are broken", *broken), ("are in the training part too", "test/again.png = train/2.png")])
    expect(found, "odd", [("smaller than a window", "train/small.png (30 x 20)")])


def test_pictures_without_labels(check, tmp_path):
    flags = own_pictures(tmp_path / "pictures")
    calm(check("dcgan", *flags))
    broken = write_broken(tmp_path / "pictures")
    found = check("dcgan", *flags)
    assert found.code == 1
    expect(found, "broken", [("are broken", *(name.split("/")[1] for name in broken))])


def test_a_table(check, tmp_path):
    clean = tmp_path / "homes.csv"
    write_homes(clean, 120)
    full = [line for line in clean.read_text().splitlines() if ",," not in line]  # no age is missing
    clean.write_text("\n".join(full) + "\n")
    calm(check("housing", *TABLE, str(clean)))
    rows = [f"{line},{float(line.split(',')[3]) * 0.9 + 7:.2f}" for line in full[1:]]
    rows[2] = rows[2].replace(rows[2].split(",")[0], "big", 1)
    rows[4] = rows[4].replace(rows[4].split(",")[1], "inf", 1)
    rows[6] = rows[6] + ",more"
    rows[8] = ",".join([*rows[8].split(",")[:3], "", rows[8].split(",")[4]])
    rows[10] = rows[10].replace(rows[10].split(",")[1], "nan", 1)
    rows[12] = rows[12].replace(rows[12].split(",")[2], "Zürich")
    dirty = tmp_path / "dirty.csv"
    dirty.write_bytes("\n".join([full[0] + ",euros", *rows]).encode("cp1252"))
    found = check("housing", *TABLE, str(dirty))
    assert found.code == 1
    planted = [("'size' holds numbers", "dirty.csv, line 4: 'big'"), ("'age' holds numbers", "line 6: 'inf'")]
    planted += [("do not fit the header", "dirty.csv, line 8: 6 cells"), ("'euros' says the target 'price'",)]
    expect(found, "broken", planted)
    odd = [("without a 'price'", "dirty.csv, line 10"), ("'age' lacks 1 of", "dirty.csv, line 12")]
    expect(found, "odd", [*odd, ("is not UTF-8", "Windows-1252", "line 14")])


def test_a_table_in_parts(check, tmp_path):
    write_homes(tmp_path / "all.csv", 120)
    head, *rows = (tmp_path / "all.csv").read_text().splitlines()
    parts = {"train": rows[:90], "val": [*rows[90:105], rows[3]], "test": [*rows[105:], "50,20,Sea,100"]}
    for part, lines in parts.items():
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "parts" / f"{part}.csv").write_text("\n".join([head, *lines]))
    found = check("housing", *TABLE, str(tmp_path / "parts"))
    assert found.code == 1
    expect(found, "broken", [("are in the training part too", "val.csv, line 17 = ", "train.csv, line 5")])
    expect(found, "odd", [("that the training part lacks", "test.csv, line 17", "'Sea'")])
    kinds = ["--data.target", "town"]
    found = check("xor", *TABLE[:2], "--data.root", str(tmp_path / "parts"), *kinds)
    expect(found, "broken", [("class 'Sea' occurs only outside the training part", "test.csv, line 17")])


def write_load(path: Path, change: Callable[[list[str]], list[str]] = list) -> None:
    """Write a daily series, and what it is a day later."""
    days = np.datetime64("2020-01-01") + np.arange(400)
    walk = random_walk(401)
    rows = [f"{day},{now:.4f},{later:.4f}" for day, now, later in zip(days, walk, walk[1:], strict=False)]
    path.write_text("\n".join(["day,load,later", *change(rows)]) + "\n")


def test_a_series(check, tmp_path):
    write_load(tmp_path / "clean.csv")
    calm(check("stock_linear", *SERIES, str(tmp_path / "clean.csv")))

    def spoil(rows: list[str]) -> list[str]:
        rows[3] = rows[3].replace(rows[3].split(",")[1], "ten")
        rows[5] = f"{rows[5][:10]},,7"
        rows[7] = "soon" + rows[7][10:]
        rows[9] = rows[8]
        rows[11], rows[12] = rows[12], rows[11]
        rows[14] += ",9"
        return rows[:200] + rows[230:]

    write_load(tmp_path / "dirty.csv", spoil)
    found = check("stock_linear", *SERIES, str(tmp_path / "dirty.csv"), "--data.features", "[load, later]")
    assert found.code == 1
    planted = [("hold no number", "dirty.csv, line 5", "'ten'", "dirty.csv, line 7", "the value is missing")]
    planted += [("hold no date", "dirty.csv, line 9", "'soon'"), ("come twice", "dirty.csv, line 11: 2020-01-09")]
    planted += [("do not fit the header", "dirty.csv, line 16: 4 cells"), ("'later' changes as 'load' does",)]
    expect(found, "broken", planted)
    odd = [("not in the order of time", "dirty.csv, line 14"), ("gap(s) in time", "2020-07-18 to 2020-08-18")]
    expect(found, "odd", odd)


def test_windows_that_overlap_are_found(check, tmp_path, monkeypatch):
    from datamodules import timeseries

    monkeypatch.setitem(timeseries.PARTS, "train", (0.0, 0.9))  # val begins at 0.7
    write_load(tmp_path / "load.csv")
    found = check("stock_linear", *SERIES, str(tmp_path / "load.csv"))
    assert found.code == 1
    expect(found, "broken", [("val part begins before the training part ends",)])


def stories(count: int, seed: int) -> list[str]:
    """Return lines of words, no two of them the same."""
    words = (
        "river",
        "stone",
        "bird",
        "house",
        "green",
        "walks",
        "sings",
        "under",
        "over",
        "near",
        "far",
        "away",
        "two",
    )
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=14)) + "." for _ in range(count)]


def test_text(check, tmp_path):
    root = tmp_path / "texts"
    for part, count in (("train", 60), ("val", 12), ("test", 12)):
        (root / part).mkdir(parents=True)
        (root / part / "a.txt").write_text("\n".join(stories(count, len(part))) + "\n")
    calm(check("gpt", *TEXT, str(root)))
    (root / "train" / "empty.txt").write_text("")
    (root / "train" / "latin.txt").write_bytes("first line\nZürich is a town\nand Köln".encode("cp1252"))
    (root / "train" / "lost.txt").write_text("fine\nZ\ufffdrich\n", "utf-8")
    train = (root / "train" / "a.txt").read_text().splitlines()
    (root / "test" / "b.txt").write_text("\n".join([*train[3:5], "ξένη γλώσσα " * 3]) + "\n", "utf-8")
    found = check("gpt", *TEXT, str(root))
    assert found.code == 1
    planted = [("are empty", "train/empty.txt"), ("latin.txt is not UTF-8", "in line 2", "latin.txt:3")]
    expect(found, "broken", [*planted, ("stand in the training part, too", "line 14 of the test part", train[3][:40])])
    expect(found, "odd", [("lost letter", "lost.txt:2"), ("test part are unknown", "'ξ'")])


def test_texts_with_classes(check, tmp_path):
    root = tmp_path / "reviews"
    root.mkdir()
    for part, count in (("train", 60), ("val", 20), ("test", 20)):
        lines = [f"{i} {line}\t{'good' if i % 2 else 'bad'}" for i, line in enumerate(stories(count, len(part)))]
        (root / f"{part}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    calm(check("bert_classifier", *REVIEWS, str(root)))
    train = (root / "train.tsv").read_text().splitlines()
    with (root / "train.tsv").open("a") as file:
        file.write(f"\tgood\nwhat is it?\t\n{train[3].split(chr(9))[0]}\tgood\nfoo\tbad\tmore\n")
    with (root / "test.tsv").open("a") as file:
        file.write(f"a new thing\tugly\n{train[5]}\n{train[7].replace(' ', '  ').replace('.', '!').capitalize()}\n")
    found = check("bert_classifier", *REVIEWS, str(root))
    assert found.code == 1
    planted = [("'ugly' has no training texts", "test.tsv, line 22"), ("fit the header", "train.tsv, line 65: 3 cells")]
    planted += [("are in the training part too", "test.tsv, line 23 = ", "train.tsv, line 6", "line 24 = ", "line 8")]
    expect(found, "broken", planted)
    odd = [
        ("without a text or a class", "train.tsv, line 62", "train.tsv, line 63"),
        ("different classes", "bad, good"),
    ]
    expect(found, "odd", odd)
    (root / "train.tsv").write_bytes("text\tlabel\nfine\tgood\nZürich\tbad\n".encode("cp1252"))
    expect(check("bert_classifier", *REVIEWS, str(root)), "broken", [("train.tsv is not UTF-8", "line 3")])


def test_translations(check, tmp_path):
    root = tmp_path / "pairs"
    root.mkdir()
    for part, count in (("train", 80), ("val", 12), ("test", 12)):
        lines = [f"{line}\t{line[::-1]}" for line in stories(count, len(part))]
        (root / f"{part}.tsv").write_text("\n".join(lines) + "\n")
    flags = [*PAIRS, str(root), "--data.kind", "characters", "--data.longest", "200"]
    calm(check("transformer", *flags))
    train = (root / "train.tsv").read_text().splitlines()
    with (root / "train.tsv").open("ab") as file:
        file.write("no translation\nempty\t\nZürich\tTown\n".encode("cp1252"))
        file.write(("long " * 60 + "\tshort\n").encode())
    with (root / "test.tsv").open("a", encoding="utf-8") as file:
        file.write(f"ξένη\tgreek\n{train[7]}\n")
    found = check("transformer", *flags)
    assert found.code == 1
    planted = [("no text in the columns", "train.tsv, line 81", "train.tsv, line 82"), ("is not UTF-8", "in line 83")]
    planted += [("are in the training part too", "test.tsv, line 14 = ", "train.tsv, line 8")]
    expect(found, "broken", planted)
    expect(found, "odd", [("longer than 200 tokens", "train.tsv, line 84"), ("source characters", "test.tsv, line 13")])


def test_aligned_translations(check, tmp_path):
    lines = stories(60, 3)
    (tmp_path / "train.en").write_text("\n".join(lines) + "\n")
    (tmp_path / "train.ne").write_text("\n".join([*(line[::-1] for line in lines[:50]), "", *lines[51:59]]) + "\n")
    flags = [*PAIRS, str(tmp_path), "--data.source", "en", "--data.target", "ne"]
    found = check("transformer", *flags)
    assert found.code == 1
    expect(found, "broken", [("train.en has 60 lines", "train.ne has 59")])
    expect(found, "odd", [("are empty", "line 51"), ("their own translations", "train.en, line 53")])


def test_captchas(check, tmp_path):
    root, texts = tmp_path / "captchas", some_texts(60)
    random.Random(0).shuffle(texts)
    for part, chosen in (("train", texts[:40]), ("val", texts[40:50]), ("test", texts[50:])):
        write_captchas(root / part, chosen)
    calm(check("captcha_crnn", *CAPTCHAS, str(root)))
    broken = write_broken(root / "train")
    write_captchas(root / "test", ["zz1a"])
    Image.open(root / "train" / f"{texts[0]}.png").save(root / "val" / f"{texts[0]}.png")
    found = check("captcha_crnn", *CAPTCHAS, str(root))
    assert found.code == 1
    planted = [("are broken", *broken), ("no picture with z", "test/zz1a.png")]
    planted += [("are in the training part too", f"val/{texts[0]}.png = ", f"train/{texts[0]}.png")]
    expect(found, "broken", planted)


def test_texts_that_are_too_long_for_the_net(check, tmp_path):
    write_captchas(tmp_path / "long", some_texts(40, "ab", 9))
    found = check("captcha_crnn", *CAPTCHAS, str(tmp_path / "long"), "--data.width", "64")
    assert found.code == 1
    expect(found, "broken", [("time steps", "data.width")])


def test_captchas_by_a_list(check, tmp_path):
    root = tmp_path / "listed"
    write_captchas(root, texts := some_texts(40))
    lines = [f"{text}.png,{text}" for text in texts]
    lines[4], lines[6] = lines[4].split(",")[0], "gone.png,abc"
    (root / "labels.csv").write_text("\n".join(["file,text", *lines]))
    found = check("captcha_crnn", *CAPTCHAS, str(root))
    assert found.code == 1
    expect(found, "broken", [("no file and text", "labels.csv, line 6"), ("not there", "gone.png (line 8)")])


def test_numbers_that_are_none_are_named(check, tmp_path, monkeypatch):
    from datamodules.points import XorRows

    original = XorRows.__getitems__

    def spoilt(rows, numbers):
        batch = original(rows, numbers)
        return batch | {"features": batch["features"] / (batch["features"][:, :1] - 1)}  # 0 / 0 in the third row

    monkeypatch.setattr(XorRows, "__getitems__", spoilt)
    found = check("xor")
    assert found.code == 1
    expect(found, "broken", [("NaN or infinity", "train sample 2")])


def test_a_task_that_does_not_fit(check, tmp_path):
    write_homes(tmp_path / "homes.csv", 120)
    found = check("xor", *TABLE, str(tmp_path / "homes.csv"))
    assert found.code == 1
    planted = ("ClassificationTask cannot learn", "the target 'price' holds numbers", "configs/housing.yaml")
    expect(found, "broken", [planted])
    found = check("housing", *TABLE, str(tmp_path / "homes.csv"), "--data.target", "town")
    expect(found, "broken", [("RegressionTask cannot learn", "holds text such as", "configs/xor.yaml")])
    write_masked(tmp_path / "masked")
    found = check("cnn", *MASKS, str(tmp_path / "masked"))
    expect(found, "broken", [("ClassificationTask cannot learn from batches of image, mask", "configs/unet.yaml")])


def test_a_target_of_a_few_whole_numbers_may_be_classes(check, tmp_path):
    write_homes(tmp_path / "homes.csv", 120)
    head, *rows = (tmp_path / "homes.csv").read_text().splitlines()
    starred = [f"{row},{i % 5}" for i, row in enumerate(rows)]
    (tmp_path / "homes.csv").write_text("\n".join([head + ",stars", *starred]))
    found = check("housing", *TABLE, str(tmp_path / "homes.csv"), "--data.target", "stars")
    assert found.code == 0
    expect(found, "odd", [("'stars' has 5 different values", "--data.categories '[stars]'")])


def test_a_net_that_ignores_neighbours_is_told(check, tmp_path):
    write_scenes(tmp_path / "scenes")
    assert "ignores which are neighbours" in check("mlp", *CLASSES, str(tmp_path / "scenes")).page
    assert "ignores which are neighbours" not in check("cnn", *CLASSES, str(tmp_path / "scenes")).page


def test_classes_out_of_balance(check, tmp_path):
    lines = stories(400, 1)
    rows = [f"{line},{'rare' if i < 12 else 'usual'}" for i, line in enumerate(lines)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows]))
    found = check("bert_classifier", *REVIEWS, str(tmp_path / "texts.csv"))
    assert found.code == 0
    expect(found, "odd", [("out of balance", "'usual'", "'rare'", "weigh the loss by")])


@pytest.mark.parametrize(
    "kind", [CLASSES, MASKS, PHOTOS, CAPTCHAS, TABLE, SERIES, TEXT, REVIEWS, PAIRS], ids=lambda k: k[1]
)
def test_what_cannot_be_read_is_answered_by_a_line(check, tmp_path, kind):
    names = ("cnn", "unet", "dncnn", "captcha_crnn", "housing", "stock_linear", "gpt", "bert_classifier", "transformer")
    kinds = (CLASSES, MASKS, PHOTOS, CAPTCHAS, TABLE, SERIES, TEXT, REVIEWS, PAIRS)
    recipe = names[kinds.index(kind)]
    found = check(recipe, *kind, str(tmp_path / "nowhere"))
    assert found.code == 2 and "nowhere" in one_line(found.err)
    (tmp_path / "empty").mkdir()
    assert check(recipe, *kind, str(tmp_path / "empty")).code == 2
    if kind in (TABLE, SERIES, REVIEWS):
        (tmp_path / "empty.csv").write_text("")
        found = check(recipe, *kind, str(tmp_path / "empty.csv"))
        assert found.code == 2 and "empty.csv" in one_line(found.err)


def test_a_folder_that_may_not_be_read(check, tmp_path, monkeypatch):
    write_scenes(tmp_path / "scenes")

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)  # root may read everything
    found = check("cnn", *CLASSES, str(tmp_path / "scenes"))
    assert found.code == 2 and "Permission denied" in one_line(found.err) and "scenes" in found.err


def test_a_checkpoint_is_refused_and_a_recipe_asked_for(tasklight):
    code, _, err = tasklight("check", "--config", str(ROOT / "configs/xor.yaml"), "--ckpt_path", "last")
    assert code == 2 and "--ckpt_path" in one_line(err)
    code, _, err = tasklight("check")
    assert code == 2 and "needs a recipe" in one_line(err)


def test_the_report_needs_no_other_file_and_counts_as_no_run(check, tasklight):
    found = check("xor")
    assert set(re.findall(r'src="([^"]{5})', found.page)) == {"data:"} and "http" not in found.page
    assert [path.name for path in Path("runs/xor").iterdir()] == ["check"]
    code, *_ = tasklight("fit", "--config", str(ROOT / "configs/xor.yaml"), "--trainer.max_epochs", "1")
    assert code == 0 and Path("runs/xor/0/summary.json").exists()
    code, out, err = tasklight("check", "--config", "runs/xor/0/config.yaml")
    assert code == 0 and "runs/xor/check/report.html" in out, err


def test_a_training_names_what_is_odd(tasklight, tmp_path):
    write_homes(tmp_path / "homes.csv", 120)
    text = (tmp_path / "homes.csv").read_text().replace("Bay", "Bär")
    (tmp_path / "homes.csv").write_bytes(text.encode("cp1252"))
    flags = [*TABLE, str(tmp_path / "homes.csv"), "--trainer.max_epochs", "1"]
    code, out, err = tasklight("fit", "--config", str(ROOT / "configs/housing.yaml"), *flags)
    assert code == 0 and "odd  " in out and "read as Windows-1252" in out, err


@pytest.mark.parametrize("count", [1, 2, 3])
def test_hardly_any_data(check, tmp_path, count):
    for i in range(count):
        (tmp_path / "few" / f"class{i}").mkdir(parents=True)
        scene(np.random.default_rng(i), 1).save(tmp_path / "few" / f"class{i}" / "a.png")
    found = check("cnn", *CLASSES, str(tmp_path / "few"))
    assert found.code == 1
    expect(found, "broken", [(f"{count} picture(s) leave none for test",)])
    (tmp_path / "few.csv").write_text("\n".join(["size,price", *(f"{i},{i * i}" for i in range(count))]))
    assert check("housing", *TABLE, str(tmp_path / "few.csv")).code in (1, 2)


def test_every_recipe_asks_what_its_data_are_for():
    from engine.check import KINDS

    named = [name for _, _, names in KINDS for name in names]
    assert sorted(named) == [path.stem for path in recipes()]
    tasks = {path.stem: yaml.safe_load(path.read_text())["model"]["class_path"] for path in recipes()}
    for _, _, names in KINDS:
        assert all(name in tasks for name in names)


QUICK = ("housing", "xor", "stock_linear", "dncnn")


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(p.stem, marks=() if p.stem in QUICK else pytest.mark.slow) for p in recipes()],
)
def test_embedded_data_raise_no_alarm(check, recipe):
    found = check(recipe)
    calm(found)
    assert "regression or classification?" in found.out and found.page

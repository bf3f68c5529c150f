"""Recipes on real data, laid out as a user would have them, below the folder that ``REAL_DATA`` names."""

import csv
import json
import math
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT, UNET

from datamodules.captcha import CaptchaFolderDataModule
from datamodules.classification import ImageFolderDataModule
from datamodules.restoration_sets import RestorationSetsDataModule
from datamodules.segmentation import SegmentationFolderDataModule
from datamodules.tabular import TabularCSVDataModule
from datamodules.text_classification import TextClassificationCSVDataModule
from datamodules.translation import ParallelTextDataModule
from nets.srresnet import SRResNet
from tasks.super_resolution import SuperResolutionTask

HOUSING = str(ROOT / "configs" / "housing.yaml")
TABLE_DATA = "datamodules.tabular.TabularCSVDataModule"
FOLDER_DATA = "datamodules.segmentation.SegmentationFolderDataModule"


def real_data(name: str) -> str:
    """Return a folder below ``REAL_DATA``, or skip the test."""
    root = os.environ.get("REAL_DATA")
    if not root or not Path(root, name).is_dir():
        pytest.skip(f"REAL_DATA names no folder with {name}")
    return str(Path(root, name))


def accuracy(tasklight, recipe: str, *flags: str) -> float:
    """Train with all cores, and return the accuracy on the test part."""
    torch.set_num_threads(os.cpu_count() or 1)
    assert tasklight("fit", "--config", str(ROOT / "configs" / f"{recipe}.yaml"), *flags)[0] == 0
    return json.loads(Path(f"runs/{recipe}/0/summary.json").read_text())["metrics"]["test/accuracy"]


def test_nuclei_are_understood():
    data = SegmentationFolderDataModule(real_data("nuclei"))
    data.prepare_data()
    assert data.in_channels == 1 and data.class_names == ["background", "object"]
    assert [data.store.parts.count(part) for part in ("train", "val", "test")] == [316, 44, 40]
    assert not data.store.skipped


def test_camvid_is_understood():
    data = SegmentationFolderDataModule(real_data("camvid"), ignore_index=11)
    data.prepare_data()
    assert data.in_channels == 3 and data.num_classes == 11
    assert [data.store.parts.count(part) for part in ("train", "val", "test")] == [367, 101, 233]


def test_california_is_understood():
    data = TabularCSVDataModule(f"{real_data('housing')}/california_housing.csv", "median_house_value")
    data.prepare_data()
    assert [int((data.parts == part).sum()) for part in ("train", "val", "test")] == [16512, 2064, 2064]
    assert len(data.columns) == 9 and len(data.features_of["ocean_proximity"]) == 5
    assert "missing: 207 of total_bedrooms" in str(data)


@pytest.mark.slow
def test_housing_is_no_worse_than_boosting_on_five_splits(tasklight):
    errors = []
    for fold in range(5):
        assert tasklight("fit", "--config", HOUSING, "--data.fold", str(fold), "--seed_everything", str(fold))[0] == 0
        summary = json.loads(Path(f"runs/housing/{fold}/summary.json").read_text())
        errors.append((summary["metrics"]["test/rmse"], summary["references"]["gradient_boosting"]["test/rmse"]))
    ours, boosting = (sum(column) / 5 for column in zip(*errors, strict=True))
    assert ours <= boosting


@pytest.mark.slow
def test_housing_learns_california_by_flags_alone(tasklight):
    flags = ["--data", TABLE_DATA, "--data.root", f"{real_data('housing')}/california_housing.csv"]
    flags += ["--data.target", "median_house_value", "--trainer.max_time", "00:00:03:00"]
    code, printed, _ = tasklight("fit", "--config", HOUSING, *flags)
    assert code == 0 and "207 of total_bedrooms" in printed
    summary = json.loads(Path("runs/housing/0/summary.json").read_text())
    assert summary["metrics"]["test/rmse"] < 52_000 < summary["references"]["ridge"]["test/rmse"]


@pytest.mark.parametrize("recipe", ["stock_linear", "stock_rnn"])
@pytest.mark.parametrize("ticker", ["AMZN", "FB", "GOOG"])
def test_prices_are_forecast_no_worse_than_by_persistence(tasklight, recipe, ticker):
    configs = [str(ROOT / "configs" / f"{name}.yaml") for name in (recipe, "addons/data_daily_prices")]
    root = str(Path(real_data("stocks")) / f"{ticker}.csv")
    code, out, err = tasklight("fit", "--config", configs[0], "--config", configs[1], "--data.root", root)
    assert code == 0, err
    summary = json.loads(Path(f"runs/{recipe}/0/summary.json").read_text())
    assert 0.97 < summary["metrics"]["test/relative_mae"] <= 1.01 and "test/p_value" in out
    assert summary["seconds"] < 60


def test_folder_of_cifar_is_understood():
    data = ImageFolderDataModule(f"{real_data('cifar10')}")
    data.prepare_data()
    assert data.in_channels == 3 and data.num_classes == 10 and "airplane" in data.class_names
    assert [int((data.pictures.parts == part).sum()) for part in ("train", "val", "test")] == [44000, 6000, 10000]
    assert not data.pictures.skipped


def test_bicubic_enlarging_of_set5_has_the_published_figure():
    real_data("t91")
    data = RestorationSetsDataModule(["T91"], "Set5", str(Path(real_data("set5")).parent))
    data.prepare_data()
    task = SuperResolutionTask(partial(SRResNet, width=4, depth=2), data.in_channels, torch.optim.AdamW)
    assert task.baseline(data)["test/psnr_y"] == pytest.approx(28.42, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe, addon, sets, flags, promised",
    [
        (
            *("dncnn", "data_bsd68", ["bsds500", "bsd68"]),
            ["--model.net.width", "64", "--model.net.depth", "14"],
            {"test/psnr_25": 28.6},
        ),
        ("srresnet", "data_set5", ["bsds500", "t91", "set5"], [], {"test/psnr_y": 30.9}),
        ("colorization", "data_bsds500", ["bsds500"], [], {"test/share_of_colourfulness": 1 / 3}),
    ],
)
def test_photos_are_restored_in_half_an_hour(tasklight, recipe, addon, sets, flags, promised):
    (root,) = {str(Path(real_data(name)).parent) for name in sets}
    torch.set_num_threads(os.cpu_count() or 1)
    configs = [
        part for name in (recipe, f"addons/{addon}") for part in ("--config", str(ROOT / f"configs/{name}.yaml"))
    ]
    flags = [*flags, "--data.root", root, "--trainer.max_time", "00:00:30:00"]
    assert tasklight("fit", *configs, *flags)[0] == 0
    summary = json.loads(Path(f"runs/{recipe}/0/summary.json").read_text())
    for key, value in promised.items():
        assert summary["metrics"][key] > value
    for key in ("test/psnr", "test/psnr_y", "test/ssim", "test/ssim_y"):
        if key in summary["metrics"]:
            assert summary["metrics"][key] > summary["baseline"][key]


@pytest.mark.slow
def test_what_looks_real_is_nearer_to_the_judge_than_what_is_right_on_average(tasklight):
    (root,) = {str(Path(real_data(name)).parent) for name in ("bsds500", "t91", "set14")}
    data = ["--config", str(ROOT / "configs/addons/data_set5.yaml"), "--data.root", root, "--data.test", "Set14"]
    data += ["--trainer.precision", "bf16-mixed"]
    pixels, adversarial = (
        ["fit", "--config", str(ROOT / f"configs/{name}.yaml"), *data] for name in ("srresnet", "srgan")
    )
    assert tasklight(*pixels, "--trainer.max_time", "00:00:15:00")[0] == 0
    flags = ["--model.init_from", "runs/srresnet/0", "--model.optimizer.lr", "2e-4"]
    flags += ["--data.crop", "64", "--data.batch_size", "8", "--trainer.max_time", "00:00:15:00"]
    assert tasklight(*adversarial, *flags)[0] == 0
    summary = json.loads(Path("runs/srgan/0/summary.json").read_text())
    ours, pixels_alone = summary["metrics"], summary["references"]["SRResNet"]
    assert ours["test/perceptual_distance"] < 0.9 * pixels_alone["test/perceptual_distance"]
    assert ours["test/psnr_y"] > summary["baseline"]["test/psnr_y"]


@pytest.mark.slow
def test_captchas_of_a_website_are_read_in_twenty_minutes(tasklight):
    torch.set_num_threads(os.cpu_count() or 1)
    flags = ["--data", "datamodules.captcha.CaptchaFolderDataModule", "--data.root", real_data("captcha")]
    config = str(ROOT / "configs" / "captcha_crnn.yaml")
    assert tasklight("fit", "--config", config, *flags, "--trainer.max_time", "00:00:20:00")[0] == 0
    summary = json.loads(Path("runs/captcha_crnn/0/summary.json").read_text())
    assert summary["metrics"]["test/exact_match"] >= 0.92


def test_captchas_of_a_website_are_understood():
    data = CaptchaFolderDataModule(real_data("captcha"))
    data.prepare_data()
    assert data.charset == "2345678bcdefgmnpwxy" and {len(text) for text in data.texts.texts} == {5}
    assert [len(data.of(part)) for part in ("train", "val", "test")] == [720, 90, 90]


def test_reviews_are_understood():
    data = TextClassificationCSVDataModule(f"{real_data('nsmc')}/reviews.tsv", "document")
    data.prepare_data()
    assert data.class_names == ["0", "1"] and data.texts.dropped == []
    assert [data.texts.parts.count(part) for part in ("train", "val", "test")] == [64000, 8000, 8000]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "addon", "data", "flags", "minutes", "promised"),
    [
        (
            "transformer",
            "data_multi30k",
            "multi30k",
            [
                *("--data.vocab_size", "4000", "--data.batch_tokens", "1536"),
                *("--model.net.depth", "4", "--model.net.dropout", "0.15"),
            ],
            30,
            ("test/bleu", 33),
        ),
        (
            "translation_attention",
            "data_multi30k",
            "multi30k",
            [
                *("--data.source", "de", "--data.target", "en", "--data.vocab_size", "4000"),
                *("--model.net.dim", "192", "--model.net.width", "256", "--model.net.dropout", "0.25"),
            ],
            30,
            ("test/bleu", 27),
        ),
    ],
)
def test_captions_are_translated_in_an_hour_of_a_core(tasklight, recipe, addon, data, flags, minutes, promised):
    torch.set_num_threads(os.cpu_count() or 1)
    configs = [
        part for name in (recipe, f"addons/{addon}") for part in ("--config", str(ROOT / f"configs/{name}.yaml"))
    ]
    root = str(Path(real_data(data)).parent)
    assert tasklight("fit", *configs, "--data.root", root, *flags, "--trainer.max_time", f"00:00:{minutes}:00")[0] == 0
    key, value = promised
    assert json.loads(Path(f"runs/{recipe}/0/summary.json").read_text())["metrics"][key] >= value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "flags", "nats"),
    [
        ("gpt", ["--model.net.dim", "192", "--model.net.num_heads", "6"], 1.65),
        ("text_lstm", ["--model.net.width", "512", "--model.net.dropout", "0.2"], 1.70),
    ],
)
def test_shakespeare_is_learned_in_twenty_minutes_of_a_core(tasklight, recipe, flags, nats):
    configs = [f"configs/{recipe}.yaml", "configs/addons/data_tinyshakespeare.yaml"]
    given = [part for config in configs for part in ("--config", str(ROOT / config))]
    flags = [*flags, "--data.root", str(Path(real_data("tinyshakespeare")).parent)]
    assert tasklight("fit", *given, *flags, "--trainer.max_time", "00:00:20:00")[0] == 0
    bits = json.loads(Path(f"runs/{recipe}/0/summary.json").read_text())["metrics"]["test/bits_per_character"]
    assert bits * math.log(2) <= nats


def test_korean_sentences_are_understood():
    data = ParallelTextDataModule(real_data("kor_eng"))
    data.prepare_data()
    assert [len(data.pairs[part]) for part in ("train", "val", "test")] == [3037, 381, 380]


@pytest.mark.slow
def test_a_net_that_has_read_reviews_needs_fewer_labels(tasklight, tmp_path):
    torch.set_num_threads(os.cpu_count() or 1)
    data = TextClassificationCSVDataModule(f"{real_data('nsmc')}/reviews.tsv", "document")
    (tmp_path / "reviews.txt").write_text("\n".join(data.of_part("train")[0]), "utf-8")
    (tmp_path / "labelled").mkdir()
    for part, count in (("train", 2000), ("val", 500), ("test", 8000)):
        rows = [f"{text}\t{label}\n" for text, label in zip(*data.of_part(part), strict=True)]
        (tmp_path / "labelled" / f"{part}.tsv").write_text("".join(["text\tlabel\n", *rows[:count]]), "utf-8")
    config, reader = (str(ROOT / "configs" / f"{name}.yaml") for name in ("bert_classifier", "bert"))
    read = ["--data", "datamodules.text.TextFolderDataModule", "--data.root", str(tmp_path / "reviews.txt")]
    read += ["--data.kind", "wordpiece", "--data.vocab_size", "4096", "--data.context", "64", "--data.batch_size", "16"]
    read += ["--trainer.max_epochs", "100", "--trainer.check_val_every_n_epoch", "1"]
    assert tasklight("fit", "--config", reader, *read, "--trainer.max_time", "00:00:20:00")[0] == 0
    flags = ["--data", "datamodules.text_classification.TextClassificationCSVDataModule"]
    flags += ["--data.root", str(tmp_path / "labelled"), "--data.tokenizer_from", "runs/bert/0"]
    flags += ["--trainer.max_epochs", "8"]
    means = []
    for start in ([], ["--model.init_from", "runs/bert/0"]):
        accuracies = []
        for seed in ("0", "1", "2"):
            recipe = f"read_{len(start)}"
            argv = ["fit", "--config", config, *flags, *start, "--seed_everything", seed, "--recipe", recipe]
            assert tasklight(*argv)[0] == 0
            summary = json.loads(Path(f"runs/{recipe}/{seed}/summary.json").read_text())
            accuracies.append(summary["metrics"]["test/accuracy"])
        means.append(sum(accuracies) / 3)
    untrained, fine_tuned = means
    assert fine_tuned - untrained >= 0.03


@pytest.mark.slow
def test_resnet_names_clothes_in_twenty_minutes(tasklight):
    flags = ["--config", str(ROOT / "configs/addons/data_fashion_mnist.yaml")]
    flags += ["--config", str(ROOT / "configs/addons/airbench.yaml"), "--data.root", real_data("fashion_mnist")]
    assert accuracy(tasklight, "resnet", *flags, "--trainer.max_time", "00:00:20:00") >= 0.930


@pytest.mark.slow
def test_cnn_reads_mnist_in_ten_minutes(tasklight):
    flags = ["--config", str(ROOT / "configs/addons/data_mnist.yaml"), "--data.root", real_data("mnist")]
    assert accuracy(tasklight, "cnn", *flags, "--trainer.max_time", "00:00:10:00") >= 0.995


@pytest.mark.slow
def test_a_student_reads_mnist_without_having_seen_it(tasklight):
    flags = ["--config", str(ROOT / "configs/addons/data_mnist.yaml"), "--data.root", real_data("mnist")]
    flags += ["--trainer.precision", "bf16-mixed", "--trainer.max_time", "00:00:15:00"]
    assert accuracy(tasklight, "data_free", *flags) >= 0.975
    assert json.loads(Path("runs/data_free/0/summary.json").read_text())["baseline"]["test/accuracy"] < 0.5


@pytest.mark.slow
def test_unet_learns_digit_scenes_in_minutes(tasklight):
    torch.set_num_threads(os.cpu_count() or 1)
    assert tasklight("fit", "--config", UNET)[0] == 0
    summary = json.loads(Path("runs/unet/0/summary.json").read_text())
    assert summary["metrics"]["test/iou"] >= 0.70 and summary["skill"] > 0.65


@pytest.mark.slow
def test_unet_segments_nuclei_in_ten_minutes(tasklight):
    torch.set_num_threads(os.cpu_count() or 1)
    flags = ["--data", FOLDER_DATA, "--data.root", real_data("nuclei"), "--trainer.max_time", "00:00:10:00"]
    assert tasklight("fit", "--config", UNET, *flags)[0] == 0
    summary = json.loads(Path("runs/unet/0/summary.json").read_text())
    assert summary["metrics"]["test/iou"] > summary["references"]["otsu"]["test/iou"]
    with Path("runs/unet/0/metrics.csv").open(newline="") as file:
        measured = [float(row["val/iou_object"]) for row in csv.DictReader(file) if row["val/iou_object"]]
    assert max(measured) >= 0.87

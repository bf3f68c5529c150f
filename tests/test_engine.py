"""The engine, by the commands that a user types: what they leave behind, and what they say when something is wrong."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, SMALL, UNET, write_masked_pictures
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.plugins import MixedPrecision
from PIL import Image
from torch import nn

from engine.arguments import arrange
from engine.cache import cached
from engine.explain import user_line
from engine.loggers import DashboardLogger, TableLogger, dashboard_mode
from engine.runs import new_run
from engine.speed import STEP_HOOKS, clip_unscaled, skip_idle_hooks, spare_lstms
from tasks.segmentation import SegmentationTask

FIT = ["fit", "--config", UNET, *SMALL]
FOLDER_DATA = "datamodules.segmentation.SegmentationFolderDataModule"


def weights(path) -> dict:
    return torch.load(path, weights_only=True)["state_dict"]


def table(folder) -> list[dict[str, str]]:
    with (Path(folder) / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def one_line(err: str) -> str:
    """Return the only line of an error."""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    return lines[0]


# A training and what follows from it


def test_fit_leaves_a_complete_run_folder(tasklight):
    code, out, _ = tasklight(*FIT)
    assert code == 0
    folder = Path("runs/unet/0")
    for name in ("config.yaml", "command.txt", "environment.json", "metrics.csv", "summary.json"):
        assert (folder / name).is_file(), name
    for name in ("best", "last"):
        assert (folder / "checkpoints" / f"{name}.ckpt").is_file()
    for name in ("curves", "val_samples", "test_samples", "test_worst", "test_iou_per_class"):
        assert Image.open(folder / "pictures" / f"{name}.png").width > 300
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) == {
        *("recipe", "task", "primary", "metrics", "baseline", "skill", "references", "epochs", "steps", "seconds"),
        *("samples_per_second", "peak_memory_mb", "parameters", "seed", "device", "precision", "checkpoint", "doctor"),
    }
    assert summary["recipe"] == "unet" and summary["primary"] == "test/iou" and summary["epochs"] == 1
    assert summary["steps"] == 4 and summary["seed"] == 0
    m, b = summary["metrics"]["test/iou"], summary["baseline"]["test/iou"]
    assert summary["skill"] == pytest.approx((m - b) / (1 - b))
    for text in ("runs/unet/0", "baseline", "predict --ckpt_path runs/unet/0", "fit --config runs/unet/0/config.yaml"):
        assert text in out
    assert "--data.num_train 64" in (folder / "command.txt").read_text()

    # The baseline, another way: only the background is right, and it is so in its own share of the pixels.
    from datamodules.digit_scenes import DigitScenesDataModule

    store = DigitScenesDataModule(num_train=64).store
    counts = store.counts[[part == "test" for part in store.parts]].sum(0)
    classes = (counts[:11] > 0).sum()
    assert b == pytest.approx(counts[0] / counts.sum() / classes, rel=1e-5)

    # Every further verb starts from the run's own config.
    code, out, _ = tasklight("test", "--config", UNET)
    assert code == 0 and "runs/unet/0/checkpoints/best.ckpt" in out and f"{m:.4f}" in out
    code, out, _ = tasklight("validate", "--ckpt_path", "runs/unet/0")
    assert code == 0 and "val/iou" in out
    code, out, _ = tasklight("test", "--config", "runs/unet/0/config.yaml")
    assert code == 0 and f"{m:.4f}" in out

    # Loading alone and safely: nothing but the path.
    task = SegmentationTask.load_from_checkpoint(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert task.net.stem[0].out_channels == 4 and task.class_names[0] == "background"

    # A saved config runs again, as a further run of its recipe.
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    code, _, _ = tasklight("fit", "--config", "runs/unet/0/config.yaml")
    assert code == 0 and yaml.safe_load(Path("runs/unet/1/config.yaml").read_text()) == saved
    again = json.loads(Path("runs/unet/1/summary.json").read_text())
    assert again["metrics"] == summary["metrics"]


def test_predict_writes_files_to_open(tasklight, tmp_path):
    tasklight(*FIT, "--trainer.logger", "false")
    rng = np.random.default_rng(0)
    pictures = tmp_path / "loose"
    (pictures / "deeper").mkdir(parents=True)
    sizes = {}
    for i, mode in enumerate(["RGB", "L", "RGBA", "P", "I;16", "1", "CMYK", "LA"]):
        height, width = rng.integers(10, 90, 2).tolist()
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        if mode == "I;16":
            picture = Image.fromarray(rng.integers(0, 4000, (height, width)).astype(np.uint16))
        path = pictures / ("deeper" if i % 2 else ".") / f"picture{i}.{'tif' if mode == 'CMYK' else 'png'}"
        (picture if mode == "I;16" else picture.convert(mode)).save(path)
        sizes[path.stem] = (width, height)
    (pictures / "notes.txt").write_text("no picture")
    (pictures / "torn.png").write_bytes((pictures / "picture0.png").read_bytes()[:50])
    code, out, _ = tasklight("predict", "--ckpt_path", "runs/unet/0", "--input", "loose", "loose/picture0.png")
    assert code == 0 and "torn.png" in out
    folder = Path("runs/unet/0/predictions")
    for stem, size in [*sizes.items(), ("picture0_2", sizes["picture0"])]:
        mask = Image.open(folder / f"{stem}_mask.png")
        assert mask.size == size and mask.mode == "P" and np.asarray(mask).max() <= 10
        assert Image.open(folder / f"{stem}_overlay.png").size == size
    assert len(list(folder.glob("*_mask.png"))) == len(sizes) + 1
    page = (folder / "index.html").read_text()
    assert page.count("<article>") == len(sizes) + 1 and "deeper/picture1.png" in page
    first = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    tasklight("predict", "--ckpt_path", "runs/unet/0", "--input", "loose", "loose/picture0.png")
    assert {path.name: path.read_bytes() for path in folder.glob("*.png")} == first

    # Prediction touches no training data: a checkpoint of a folder that is gone still predicts.
    write_masked_pictures(tmp_path / "mine")
    flags = ["--data", FOLDER_DATA, "--data.root", "mine", "--data.crop", "32", "--trainer.logger", "false"]
    code, _, _ = tasklight("fit", "--config", UNET, *flags, "--model.net.width", "4", "--trainer.max_epochs", "1")
    assert code == 0
    (tmp_path / "mine").rename(tmp_path / "gone")
    code, _, err = tasklight("predict", "--config", UNET, "--input", "loose/picture0.png")
    assert code == 0, err
    assert [path.name for path in Path("runs/unet/1/predictions").glob("*_mask.png")] == ["picture0_mask.png"]
    code, _, err = tasklight("test", "--config", UNET)
    assert code == 2 and "mine is not a folder" in one_line(err)


def test_own_data_by_flags_alone(tasklight, squares):
    flags = ["--data", FOLDER_DATA, "--data.root", str(squares), "--data.crop", "32"]
    code, out, _ = tasklight("fit", *flags, "--config", UNET, "--model.net.width", "4", "--trainer.max_epochs", "2")
    assert code == 0 and "2 classes" in out
    summary = json.loads(Path("runs/unet/0/summary.json").read_text())
    assert "test/iou_object" in summary["metrics"]
    assert summary["references"]["otsu"]["test/iou"] > 0.9  # bright squares on dark noise: Otsu's own case
    code, out, _ = tasklight("test", "--config", UNET)
    assert code == 0 and f"{summary['metrics']['test/iou']:.4f}" in out


# Stopping and going on


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tasklight, monkeypatch):
    longer = [*FIT, "--trainer.max_epochs", "3", "--trainer.log_every_n_steps", "2", "--model.net", "dropout_net.Net"]
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    assert tasklight(*longer)[0] == 0

    def stop(task):
        if task.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "on_train_epoch_start", stop)
        code, out, _ = tasklight(*longer)
        assert code == 130 and "--ckpt_path runs/unet/1" in out
    assert not Path("runs/unet/1/summary.json").exists()
    assert tasklight("fit", "--config", UNET, *longer[3:], "--ckpt_path", "last")[0] == 0
    assert not Path("runs/unet/2").exists()
    undisturbed, resumed = (weights(f"runs/unet/{n}/checkpoints/last.ckpt") for n in (0, 1))
    assert undisturbed.keys() == resumed.keys()
    for name, value in undisturbed.items():
        assert torch.equal(value, resumed[name]), name
    assert Path("runs/unet/0/metrics.csv").read_bytes() == Path("runs/unet/1/metrics.csv").read_bytes()
    assert len(table("runs/unet/1")) > 6
    first, second = (json.loads(Path(f"runs/unet/{n}/summary.json").read_text()) for n in (0, 1))
    assert first["metrics"] == second["metrics"] and first["steps"] == second["steps"] == 12
    assert len(Path("runs/unet/1/command.txt").read_text().splitlines()) == 2


def test_flags_win_over_a_resumed_checkpoint_and_are_told(tasklight):
    tasklight(*FIT, "--trainer.logger", "false")
    more = ["--trainer.logger", "false", "--model.optimizer.weight_decay", "0.5", "--trainer.max_epochs", "2"]
    code, out, _ = tasklight(*FIT, *more, "--ckpt_path", "runs/unet/0")
    assert code == 0 and "optimizer.init_args.weight_decay = 0.5" in out and "max_epochs = 2" in out
    saved = yaml.safe_load(Path("runs/unet/0/config.yaml").read_text())
    assert saved["trainer"]["max_epochs"] == 2 and saved["ckpt_path"] is None
    assert len(re.findall("changed since", out)) == 2
    checkpoint = torch.load("runs/unet/0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["optimizer"]["init_args"]["weight_decay"] == 0.5


def test_a_checkpoint_of_other_data_is_refused(tasklight, squares):
    tasklight(*FIT, "--trainer.logger", "false")
    flags = ["--data", FOLDER_DATA, "--data.root", str(squares)]
    for verb in (["test"], ["fit", "--config", UNET]):
        code, _, err = tasklight(*verb, "--ckpt_path", "runs/unet/0", *flags)
        assert code == 2 and "num_classes = 11" in one_line(err) and "2" in err


def test_the_table_drops_what_will_be_written_again(tmp_path):
    logger = TableLogger(str(tmp_path))
    for step in range(5):
        logger.log_metrics({"epoch": 0, "train/loss": step / 3}, step)
    logger.log_metrics({"val/iou": 0.5}, 4)
    logger.flush()
    reopened = TableLogger(str(tmp_path))
    assert len(table(tmp_path)) == 5 and table(tmp_path)[4]["val/iou"] == "0.5"
    reopened.cut(3)
    reopened.log_metrics({"train/loss": 9.0, "val/other": 1.0}, 3)
    reopened.flush()
    rows = table(tmp_path)
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[1]["train/loss"]) == 1 / 3 and rows[3] == {
        **{"epoch": "", "step": "3", "train/loss": "9.0", "val/iou": "", "val/other": "1.0"}
    }


def test_all_the_time_is_used_and_the_schedule_ends_with_it(tasklight):
    started = time.monotonic()
    code, _, _ = tasklight(
        *FIT[:-4],
        "--trainer.accelerator",
        "cpu",
        "--trainer.max_time",
        "00:00:00:05",
        "--trainer.log_every_n_steps",
        "1",
    )
    assert code == 0 and time.monotonic() - started > 5
    summary = json.loads(Path("runs/unet/0/summary.json").read_text())
    assert summary["epochs"] > 2 and 4 < summary["seconds"] < 12
    rates = [float(row["lr-AdamW"]) for row in table("runs/unet/0") if row["lr-AdamW"]]
    assert max(rates) > 2e-3 and rates[-1] < 0.2 * max(rates)
    assert Path("runs/unet/0/checkpoints/best.ckpt").exists()


def test_a_training_of_a_few_steps_is_validated_where_it_ends(tasklight):
    code, _, _ = tasklight(*FIT, "--trainer.max_steps", "2")
    assert code == 0
    assert weights("runs/unet/0/checkpoints/best.ckpt").keys() == weights("runs/unet/0/checkpoints/last.ckpt").keys()
    assert json.loads(Path("runs/unet/0/summary.json").read_text())["steps"] == 2
    assert any(row["val/iou"] for row in table("runs/unet/0"))


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [new_run("unet") for _ in range(3)]
    assert [str(folder) for folder in folders] == ["runs/unet/0", "runs/unet/1", "runs/unet/2"]


# Composition


def test_flags_may_stand_before_the_config(tasklight):
    flags = ["--trainer.max_epochs", "7", "--model.net.width", "5"]
    code, out, _ = tasklight("fit", *flags, "--config", UNET, "--print_config=skip_default")
    config = yaml.safe_load(out)
    assert code == 0 and config["trainer"]["max_epochs"] == 7
    assert config["model"]["init_args"]["net"]["init_args"]["width"] == 5


def test_a_class_named_by_a_flag_starts_from_its_own_defaults(tasklight, tmp_path):
    Path("mine.yaml").write_text(Path(UNET).read_text().replace("max_epochs: 4", "max_epochs: 2"))
    with Path("mine.yaml").open("a") as file:
        file.write("  gradient_clip_val: 1\n")
    config = yaml.safe_load(Path("mine.yaml").read_text())
    config["data"]["init_args"] = {"batch_size": 5, "size": 40}
    config["model"]["init_args"]["optimizer"]["init_args"]["weight_decay"] = 0.3
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    sgd = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1"]
    data = ["--data", FOLDER_DATA, "--data.root", "x"]
    code, out, _ = tasklight("fit", *sgd, *data, "--config", "mine.yaml", "--print_config")
    printed = yaml.safe_load(out)
    assert code == 0
    assert printed["model"]["init_args"]["optimizer"]["class_path"] == "torch.optim.SGD"
    assert printed["model"]["init_args"]["optimizer"]["init_args"]["weight_decay"] == 0
    assert printed["data"]["init_args"]["batch_size"] == 5  # the one thing carried over
    assert printed["data"]["init_args"]["crop"] == 128
    arranged = arrange(["fit", *sgd, *data, "--config", "mine.yaml"])
    assert any("batch size 5" in note for note in arranged.notes)
    # The same for a class named by a later config.
    Path("addon.yaml").write_text(yaml.safe_dump({"data": {"class_path": FOLDER_DATA, "init_args": {"root": "x"}}}))
    code, out, _ = tasklight("fit", "--config", "mine.yaml", "--config", "addon.yaml", "--print_config")
    assert yaml.safe_load(out)["data"]["init_args"]["batch_size"] == 16


def test_the_default_config_is_read_from_any_directory(tasklight):
    _, out, _ = tasklight("fit", "--config", UNET, "--print_config")
    assert yaml.safe_load(out)["trainer"]["num_sanity_val_steps"] == 0


@pytest.mark.parametrize("addon", sorted((ROOT / "configs" / "addons").glob("*.yaml")), ids=lambda path: path.stem)
def test_addons_compose(tasklight, addon):
    special = {"book_stock_rnn": "stock_rnn", "finetune": "cnn", "airbench": "resnet"}  # some are for one task only
    recipe = {**special, "dafl": "data_free", "dfad": "data_free"}.get(addon.stem, "unet")
    config = ROOT / "configs" / f"{recipe}.yaml"
    code, out, err = tasklight("fit", "--config", str(config), "--config", str(addon), "--print_config")
    assert code == 0, err
    task = yaml.safe_load(config.read_text())["model"]["class_path"]
    assert yaml.safe_load(out)["model"]["class_path"] == task


def test_an_addon_for_another_task_is_named(tasklight):
    addon = ROOT / "configs" / "addons" / "finetune.yaml"
    code, _, err = tasklight("fit", "--config", UNET, "--config", str(addon), "--print_config")
    assert code == 2 and "finetune.yaml:4: SegmentationTask takes no 'freeze'" in one_line(err)


def test_debug_addon_runs_and_writes_nothing(tasklight):
    code, _, _ = tasklight(*FIT, "--config", str(ROOT / "configs" / "addons" / "debug.yaml"))
    assert code == 0 and not list(Path("runs").rglob("*.ckpt")) and not list(Path("runs").rglob("summary.json"))


def test_tensorboard_addon(tasklight):
    pytest.importorskip("tensorboard")
    code, _, _ = tasklight(*FIT, "--config", str(ROOT / "configs" / "addons" / "tensorboard.yaml"))
    assert code == 0
    assert list(Path("runs/unet/0").rglob("events.out.tfevents.*")) and Path("runs/unet/0/metrics.csv").exists()
    assert not list(Path().glob("events*")) and not Path("tensorboard").exists()


def test_other_nets_and_schedules_by_flags(tasklight):
    flags = ["--model.net", "nets.foreign.SMPNet", "--model.scheduler", "torch.optim.lr_scheduler.StepLR"]
    code, _, err = tasklight(*FIT[:3], *FIT[5:], *flags, "--model.scheduler.step_size", "1", "--model.balanced", "true")
    assert code == 0, err
    saved = yaml.safe_load(Path("runs/unet/0/config.yaml").read_text())["model"]["init_args"]
    assert saved["net"]["class_path"] == "nets.foreign.SMPNet"
    assert weights("runs/unet/0/checkpoints/best.ckpt")["class_weights"][0] < 1  # background is common


# Dashboards


def test_the_offline_run_holds_metrics_config_and_pictures(tasklight, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")
    code, out, _ = tasklight(*FIT)
    assert code == 0 and "wandb sync" in out
    (folder,) = re.findall(r"wandb leet (\S+),", out)
    program = str(Path(sys.executable).with_name("wandb"))
    shown = subprocess.run([program, "leet", "inspect", "--json", folder], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    for text in ("test/iou", "val/loss", "pictures/test_samples", "pictures/curves", "nets.unet.UNet", "git_commit"):
        assert text in shown.stdout, text


def test_what_a_step_logs_is_handed_to_the_dashboard_at_once(tmp_path, monkeypatch):
    handed = []
    monkeypatch.setattr(WandbLogger, "log_metrics", lambda _, metrics, step: handed.append((step, metrics)))
    logger = DashboardLogger(str(tmp_path / "unet" / "0"))
    for name, step in (("lr", 19), ("train/loss", 19), ("lr", 39), ("val/iou", 40)):
        logger.log_metrics({name: 1.0}, step)
    assert handed == [(19, {"lr": 1.0, "train/loss": 1.0}), (39, {"lr": 1.0})]
    logger.finalize("success")
    assert handed[2:] == [(40, {"val/iou": 1.0})]


def test_an_unreachable_dashboard_costs_no_time(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    for server in ("http://127.0.0.1:9", "http://192.0.2.1"):
        monkeypatch.setattr("engine.loggers.base_url", lambda server=server: server)
        started = time.monotonic()
        assert dashboard_mode() == "offline"
        assert time.monotonic() - started < 3


# What it says when something is wrong: one line, exit code 2, nothing left behind


WRONG = {
    "misspelt argument": (["--model.net.widht", "32"], ["width", "widht"]),
    "abbreviation": (["--trainer.max_epoch", "3"], ["max_epochs"]),
    "misspelt section": (["--modle.net.width", "3"], ["model"]),
    "value of the wrong type": (["--trainer.max_epochs", "many"], ["trainer.max_epochs", "many"]),
    "class that does not exist": (["--model.net", "nets.unet.Unet"], ["nets.unet.Unet", "UNet"]),
    "module that does not exist": (["--data", "datamodules.nope.Data"], ["datamodules.nope"]),
    "missing folder": (["--data", FOLDER_DATA, "--data.root", "nowhere"], ["nowhere is not a folder"]),
    "missing argument": (["--data", FOLDER_DATA], ["root"]),
    "fact that comes from the data": (["--model.num_classes", "3"], ["num_classes", "data"]),
    "missing config": (["--config", "configs/unt.yaml"], ["configs/unt.yaml does not exist"]),
    "missing checkpoint": (["--ckpt_path", "last"], ["checkpoint"]),
    "data without what the task needs": (["--data", "boring.Data"], ["SegmentationTask", "in_channels", "Data"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_answered_by_one_line(tasklight, monkeypatch, name):
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    flags, words = WRONG[name]
    code, _, err = tasklight("fit", "--config", UNET, *flags)
    assert code == 2
    line = one_line(err)
    for word in words:
        assert word in line
    assert not list(Path().glob("runs/*/*"))


def test_a_misspelt_config_is_guessed(tasklight, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, _, err = tasklight("fit", "--config", "configs/unt.yaml")
    assert code == 2 and one_line(err).endswith("does not exist; did you mean configs/unet.yaml?")


def test_a_misspelt_key_in_a_config_is_found_by_file_and_line(tasklight):
    text = Path(UNET).read_text()
    Path("mine.yaml").write_text(text.replace("width: 32", "widht: 32"))
    code, _, err = tasklight("fit", "--config", "mine.yaml")
    number = 1 + next(i for i, line in enumerate(text.splitlines()) if "width: 32" in line)
    assert code == 2 and f"mine.yaml:{number}:" in one_line(err) and "did you mean width?" in err
    Path("mine.yaml").write_text(text.replace("max_epochs", "max_epoch"))
    code, _, err = tasklight("fit", "--config", "mine.yaml")
    assert code == 2 and "mine.yaml:" in one_line(err) and "did you mean max_epochs?" in err


@pytest.mark.parametrize(
    "text, word", [("model: [", "mine.yaml:1"), ("just words", "no settings"), ("", "no settings")]
)
def test_a_config_that_is_no_config(tasklight, text, word):
    Path("mine.yaml").write_text(text)
    code, _, err = tasklight("fit", "--config", "mine.yaml")
    assert code == 2 and word in one_line(err)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_without_a_run_there_is_nothing_to_measure(tasklight, verb):
    code, _, err = tasklight(verb, "--config", UNET, *(["--input", UNET] if verb == "predict" else []))
    assert code == 2 and "checkpoint" in one_line(err) and "unet" in err


def test_checkpoints_that_cannot_be_used(tasklight):
    tasklight(*FIT, "--trainer.logger", "false")
    code, _, err = tasklight("test", "--config", UNET, "--ckpt_path", "runs/unet/7")
    assert code == 2 and "runs/unet/7" in one_line(err) and "runs/unet/0" in err
    last = Path("runs/unet/0/checkpoints/last.ckpt")
    last.write_bytes(last.read_bytes()[:1000])
    code, _, err = tasklight("test", "--config", UNET, "--ckpt_path", "last")
    assert code == 2 and "last.ckpt cannot be read" in one_line(err)


def test_nothing_to_predict(tasklight):
    tasklight(*FIT, "--trainer.logger", "false")
    Path("empty").mkdir()
    for path, word in (("empty", "nothing to predict"), ("missing.png", "missing.png does not exist")):
        code, _, err = tasklight("predict", "--config", UNET, "--input", path)
        assert code == 2 and word in one_line(err)


def test_an_unknown_verb(tasklight):
    code, _, err = tasklight("fitt", "--config", UNET)
    assert code == 2 and "did you mean fit?" in one_line(err)
    code, _, err = tasklight("fit")
    assert code == 2 and "--config" in one_line(err)


def test_a_fault_of_the_program_keeps_its_traceback(tasklight, monkeypatch):
    monkeypatch.setattr(SegmentationTask, "training_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tasklight(*FIT)


# What must be quick


def test_list_and_help_do_without_torch():
    command = "import sys, train; train.main(sys.argv[1:]); assert not {'torch', 'lightning'} & set(sys.modules)"
    for verb in ("list", "--help"):
        done = subprocess.run([sys.executable, "-c", command, verb], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "unet" in done.stdout


def test_list_is_quick():
    def seconds() -> float:
        started = time.monotonic()
        subprocess.run([sys.executable, "train.py", "list"], cwd=ROOT, capture_output=True, check=True)
        return time.monotonic() - started

    assert min(seconds() for _ in range(5)) < 0.3


def test_help_of_a_verb_names_its_flags(tasklight):
    code, out, _ = tasklight("predict", "--help")
    assert code == 0 and "--input" in out and "--ckpt_path" in out


# The house


def test_arrows_between_the_folders():
    forbidden = {
        "nets": {"tasks", "datamodules", "engine", "lightning"},
        "datamodules": {"tasks", "nets"},
        "tasks": {"datamodules"},
        "engine": {"tasks", "nets", "datamodules"},
    }
    allowed_of_engine = {
        "errors",
        "pictures",
        "plots",
        "text_pictures",
        "schedules",
        "turns",
        "similarity",
        "tiles",
        "cache",
        "checkpoints",
    }
    for folder, never in forbidden.items():
        for path in (ROOT / folder).glob("*.py"):
            for line in path.read_text().splitlines():
                words = line.split()
                if words[:1] in (["import"], ["from"]):
                    root, _, rest = words[1].partition(".")
                    assert root not in never, f"{path}: {line}"
                    if root == "engine" and folder in ("tasks", "datamodules"):
                        assert rest in allowed_of_engine, f"{path}: {line}"


def test_building_what_is_cached_leaves_the_random_numbers_of_a_run_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKLIGHT_CACHE", str(tmp_path))
    drawn = []
    for _ in range(2):  # built, then found
        torch.manual_seed(0)
        cached("numbers", 1, lambda folder: drawn.append(torch.rand(3)))
        drawn.append(torch.rand(3))
    assert len(drawn) == 3 and torch.equal(drawn[1], drawn[2])


def test_skill_is_zero_at_the_baseline_and_positive_above_it():
    from engine.record import skill

    class Metric:
        primary, net = "metric", None

        def __init__(self, perfect: float) -> None:
            self.perfect = perfect

    assert skill(Metric(1.0), 0.9, 0.8) == pytest.approx(0.5)
    assert skill(Metric(0.0), 3.0, 4.0) == pytest.approx(0.25)
    assert skill(Metric(math.inf), 30.0, 28.0) == pytest.approx(2.0)


def test_the_progress_bar_counts_from_one(tasklight, monkeypatch):
    from engine.progress import ProgressBar

    seen = []
    original = ProgressBar._get_train_description
    monkeypatch.setattr(
        ProgressBar, "_get_train_description", lambda bar, epoch: seen.append(original(bar, epoch)) or seen[-1]
    )
    tasklight(*FIT, "--trainer.logger", "false", "--trainer.max_epochs", "2")
    assert {line.strip() for line in seen} == {"Epoch 1/2", "Epoch 2/2"}
    tasklight(
        *FIT[:-4], "--trainer.accelerator", "cpu", "--trainer.logger", "false", "--trainer.max_time", "00:00:00:01"
    )
    assert "/" not in seen[-1]


def test_a_run_may_be_filed_under_another_name(tasklight):
    assert tasklight("fit", "--config", UNET, *SMALL, "--recipe", "variant", "--trainer.logger", "false")[0] == 0
    assert Path("runs/variant/0/summary.json").is_file() and not Path("runs/unet").exists()
    code, out, _ = tasklight("test", "--config", UNET, "--recipe", "variant")
    assert code == 0 and "runs/variant/0" in out


def test_idle_hooks_are_skipped_and_others_called():
    called = []

    class Counting(Callback):
        def on_before_zero_grad(self, *_):
            called.append("zero grad")

    class Task(LightningModule):
        def on_after_backward(self):
            called.append("backward")

    task = Task()
    lambdas = LambdaCallback(on_train_batch_start=lambda *_: called.append("start"))
    counting = Counting()
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[counting, lambdas])
    skip_idle_hooks(trainer, task)
    for owner in (task, counting, lambdas):
        for hook in STEP_HOOKS:
            if callable(call := getattr(owner, hook)):
                call() if owner is task else call(trainer, task)
    assert sorted(called) == ["backward", "start", "zero grad"]


def test_a_profiler_is_used_where_one_is_asked_for(tasklight):
    assert (
        tasklight(*FIT, "--trainer.profiler.class_path", "SimpleProfiler", "--trainer.profiler.filename", "times")[0]
        == 0
    )
    assert "run_training_batch" in next(Path().rglob("fit-times.txt")).read_text()


def test_lstms_calculate_in_bf16_on_any_cpu():
    torch.manual_seed(0)
    lstm, series = nn.LSTM(3, 4, batch_first=True), torch.rand(2, 5, 3)
    expected, _ = lstm(series)
    spare_lstms(nn.Sequential(lstm))
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = lstm(series)
        with pytest.raises(RuntimeError):
            lstm(series[..., :2])
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.02)
    assert torch.backends.mkldnn.enabled


def test_gradients_in_bfloat16_are_clipped_before_fused_optimizers():
    net = nn.Linear(3, 1)
    net(torch.ones(1, 3)).sum().backward()  # every gradient is 1
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    precision = MixedPrecision("bf16-mixed", "cpu")
    clip_unscaled(precision)
    precision.clip_gradients(optimizer, 0.5)
    norm = torch.cat([parameter.grad.flatten() for parameter in net.parameters()]).norm()
    assert norm == pytest.approx(0.5, rel=1e-4)
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    clip_unscaled(scaled)
    with pytest.raises(RuntimeError) as error:
        scaled.clip_gradients(optimizer, 0.5)
    assert "--model.optimizer.fused false" in str(user_line(error.value, []))

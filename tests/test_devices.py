"""Several devices: one run folder, the same figures as one process, and nothing said twice."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, UNET
from test_engine import table, weights

pytestmark = pytest.mark.xdist_group("devices")  # one process, which trains the pair once

FIT = ["fit", "--config", UNET, "--model.net.width", "4", "--data.num_train", "320", "--trainer.max_epochs", "2"]
FIT += ["--trainer.accelerator", "cpu", "--trainer.logger", "engine.loggers.TableLogger"]


def start(folder: Path, *argv: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own, as the launcher of several devices needs it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED"):
        environment.pop(name, None)
    command = [sys.executable, str(ROOT / "train.py"), *argv]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def values(text: str) -> dict[str, str]:
    """Return the metrics that ``test`` has printed."""
    return dict(re.findall(r"^(test/\S+)\s+(\S+)$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder and the words of a training on two devices."""
    folder = tmp_path_factory.mktemp("pair")
    process = start(folder, *FIT, "--trainer.devices", "2")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return folder, out


def test_two_devices_have_one_folder_and_one_voice(pair):
    folder, out = pair
    assert [path.name for path in (folder / "runs/unet").iterdir()] == ["0"]
    assert out.count("runs/unet/0/summary.json") == 1 and out.count("digit") <= 1 and out.count("skill") == 1
    run = folder / "runs/unet/0"
    assert len((run / "command.txt").read_text().splitlines()) == 1
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 2 * 320 // 16 // 2  # each device takes half of the samples
    assert [row["step"] for row in table(run) if row["val/iou"]] == ["9", "19"]


def test_two_devices_measure_what_one_measures(pair, tasklight):
    folder, _ = pair
    process = start(folder, "test", "--ckpt_path", "runs/unet/0", "--trainer.devices", "2")
    together, _ = process.communicate(timeout=300)
    code, alone, err = tasklight("test", "--ckpt_path", str(folder / "runs/unet/0"), "--trainer.devices", "1")
    assert process.returncode == code == 0, together + err
    summary = json.loads((folder / "runs/unet/0/summary.json").read_text())
    assert values(alone) == values(together) == {key: f"{value:.4f}" for key, value in summary["metrics"].items()}


def test_two_devices_resume_with_the_same_weights(pair):
    folder, _ = pair
    process = start(folder, *FIT, "--trainer.devices", "2", "--save_minutes", "0", "--trainer.log_every_n_steps", "7")
    last = folder / "runs/unet/1/checkpoints/last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 143, out
    assert 0 < torch.load(last, weights_only=True)["global_step"] < 20
    process = start(folder, "fit", "--config", "runs/unet/1/config.yaml", "--ckpt_path", "runs/unet/1")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    undisturbed, resumed = weights(folder / "runs/unet/0/checkpoints/last.ckpt"), weights(last)
    for name, value in undisturbed.items():
        assert torch.equal(value, resumed[name]), name

"""What the program survives and refuses: kills, signals, full disks, numbers that are none, hostile files."""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, SMALL, UNET, write_masked_pictures
from test_engine import one_line, table, weights

from engine.checkpoints import AtomicCheckpointIO, read_checkpoint
from engine.errors import UserError
from tasks.segmentation import SegmentationTask

STEPS = 10  # in an epoch of LONGER
LONGER = ["fit", "--config", UNET, *SMALL[:2], "--data.num_train", str(16 * STEPS), "--trainer.accelerator", "cpu"]
LONGER += ["--trainer.max_epochs", "3", "--trainer.log_every_n_steps", "4"]


def same_end(first: Path, second: Path, steps: int = 3 * STEPS) -> None:
    """Assert that two runs have ended with the same weights, optimizer and table, bit for bit."""
    ends = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (first, second)]
    assert ends[0]["global_step"] == ends[1]["global_step"] == steps
    for name, value in ends[0]["state_dict"].items():
        assert torch.equal(value, ends[1]["state_dict"][name]), name
    for number, state in ends[0]["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, ends[1]["optimizer_states"][0]["state"][number][name]), name
    assert (first / "metrics.csv").read_bytes() == (second / "metrics.csv").read_bytes()
    results = [json.loads((run / "summary.json").read_text()) for run in (first, second)]
    assert results[0]["metrics"] == results[1]["metrics"]


def stop_at(step: int, signum: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a signal arrive in the middle of a training step."""
    original = SegmentationTask.training_step

    def training_step(task, batch, batch_idx):
        if task.global_step == step:
            os.kill(os.getpid(), signum)
        return original(task, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", training_step)


@pytest.fixture
def undisturbed(tasklight: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a training of LONGER, run 0."""
    kept = tmp_path_factory.getbasetemp() / "undisturbed"
    if not kept.exists():
        assert tasklight(*LONGER)[0] == 0
        shutil.copytree("runs", kept)
    else:
        shutil.copytree(kept, "runs")
    return Path("runs/unet/0")


def test_averaged_weights_are_measured_kept_and_resumed(tasklight, monkeypatch):
    average = ["--config", str(ROOT / "configs/addons/average.yaml")]
    assert tasklight(*LONGER, *average)[0] == 0
    with monkeypatch.context() as patch:
        stop_at(13, signal.SIGTERM, patch)
        assert tasklight(*LONGER, *average)[0] == 143
    assert tasklight("fit", "--config", "runs/unet/1/config.yaml", "--ckpt_path", "runs/unet/1")[0] == 0
    same_end(Path("runs/unet/0"), Path("runs/unet/1"))
    last = torch.load("runs/unet/0/checkpoints/last.ckpt", weights_only=True)
    raw = last["current_model_state"]
    assert any(not torch.equal(value, raw[name]) for name, value in last["state_dict"].items())
    tested = json.loads(Path("runs/unet/0/summary.json").read_text())["metrics"]["test/iou"]
    code, out, _ = tasklight("test", "--ckpt_path", "runs/unet/0")
    assert code == 0 and f"{tested:.4f}" in out


@pytest.mark.parametrize("step", [0, 3, STEPS - 1, STEPS, 2 * STEPS + 6, 3 * STEPS - 1])
def test_a_signal_at_any_step_loses_nothing(tasklight, undisturbed, monkeypatch, step):
    handler = signal.getsignal(signal.SIGINT)
    signum, expected = (signal.SIGTERM, 143) if step % 2 else (signal.SIGINT, 130)
    with monkeypatch.context() as patch:
        stop_at(step, signum, patch)
        code, out, _ = tasklight(*LONGER)
    assert code == expected and "fit --config runs/unet/1/config.yaml --ckpt_path runs/unet/1" in out
    assert read_checkpoint(Path("runs/unet/1/checkpoints/last.ckpt"))["global_step"] >= step
    assert not Path("runs/unet/1/summary.json").exists()
    assert tasklight("fit", "--config", "runs/unet/1/config.yaml", "--ckpt_path", "runs/unet/1")[0] == 0
    same_end(undisturbed, Path("runs/unet/1"))
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_last_checkpoint_is_the_last_even_if_it_is_not_the_best(tasklight, monkeypatch):
    monkeypatch.setattr(
        SegmentationTask, "on_validation_epoch_end", lambda task: task.log("val/iou", 1 / (task.current_epoch + 1.0))
    )
    assert tasklight(*LONGER)[0] == 0
    steps = [read_checkpoint(Path(f"runs/unet/0/checkpoints/{name}.ckpt"))["global_step"] for name in ("best", "last")]
    assert steps == [STEPS, 3 * STEPS]


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path):
    rng, epochs, steps = random.Random(0), 3, 100
    argv = [
        "fit",
        "--config",
        UNET,
        "--model.net.width",
        "8",
        "--data.num_train",
        str(16 * steps),
        "--save_minutes",
        "0",
    ]
    argv += ["--trainer.max_epochs", str(epochs), "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "4"]
    argv += ["--trainer.logger", "engine.loggers.TableLogger"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TASKLIGHT_CACHE": str(tmp_path / "cache")}

    def start(folder: Path, *more: str) -> subprocess.Popen[bytes]:
        folder.mkdir(exist_ok=True)
        with (folder / "log").open("a") as log:
            command = [sys.executable, str(ROOT / "train.py"), *argv, *more]
            return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)

    assert start(tmp_path / "calm").wait(300) == 0
    folder = tmp_path / "wild"
    last = folder / "runs/unet/0/checkpoints/last.ckpt"
    for _ in range(20):  # each some moments after a checkpoint was written, so that the training gets on between kills
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start(folder, *(["--ckpt_path", "last"] if before else []))
        while process.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.8))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the training ended before it could be killed"
    assert start(folder, "--ckpt_path", "last").wait(300) == 0
    same_end(tmp_path / "calm/runs/unet/0", folder / "runs/unet/0", epochs * steps)


def test_runs_that_start_at_the_same_moment_get_folders_of_their_own(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", UNET, *SMALL, "--trainer.logger", "false"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    folders = sorted((tmp_path / "runs" / "unet").iterdir())
    assert [folder.name for folder in folders] == ["0", "1"]
    assert all((folder / "summary.json").is_file() for folder in folders)


def test_a_run_without_checkpoints_is_refused(tasklight):
    code, _, err = tasklight("fit", "--config", UNET, *SMALL, "--trainer.enable_checkpointing", "false")
    assert code == 2 and "enable_checkpointing" in one_line(err) and not Path("runs").exists()


def test_a_second_signal_quits_at_once(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from engine.watch import Watch\n"
        "watch = Watch(Path('x'), 5, 20)\n"
        "watch.handle(signal.SIGINT, None)\n"
        "print('still here', flush=True)\n"
        "watch.handle(signal.SIGINT, None)\n"
        "print('never here', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and "still here" in done.stdout and "never here" not in done.stdout


def test_a_torn_last_row_is_dropped(tasklight, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(13, signal.SIGTERM, patch)
        tasklight(*LONGER)
    with Path("runs/unet/1/metrics.csv").open("a") as file:
        file.write("1,1")  # a row that was being written when the power went
    assert tasklight("fit", "--config", "runs/unet/1/config.yaml", "--ckpt_path", "runs/unet/1")[0] == 0
    same_end(undisturbed, Path("runs/unet/1"))


def test_a_full_disk_leaves_the_older_checkpoint_whole(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"x": torch.ones(3)}, "hyper_parameters": {}}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"last\.ckpt could not be written"):
            AtomicCheckpointIO().save_checkpoint({"state_dict": {"x": torch.ones(100_000)}}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(read_checkpoint(path)["state_dict"]["x"], torch.ones(3))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_leftovers_of_a_killed_process_are_swept(tmp_path):
    (tmp_path / ".last.ckpt.123.part").write_bytes(b"torn")
    AtomicCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt")
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_folder_that_cannot_be_written_is_named(tasklight):
    Path("runs").write_text("a file where the folder should be")
    code, _, err = tasklight(*LONGER)
    assert code == 2 and "runs/unet" in one_line(err)


def test_a_loss_that_is_no_number_ends_the_run(tasklight, monkeypatch):
    original = SegmentationTask.training_step

    def training_step(task, batch, batch_idx):
        loss = original(task, batch, batch_idx)
        return loss * float("nan") if task.global_step == STEPS + 3 else loss

    monkeypatch.setattr(SegmentationTask, "training_step", training_step)
    code, _, err = tasklight(*LONGER)
    assert code == 2 and "batch 3 of epoch 1" in one_line(err)
    for name in ("best", "last"):
        state = weights(f"runs/unet/0/checkpoints/{name}.ckpt")
        assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    assert len(table("runs/unet/0")) >= 3


class Payload:
    """Pickles to a command that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def test_a_checkpoint_with_a_payload_is_refused(tasklight, tmp_path):
    tasklight(*LONGER, "--trainer.max_epochs", "1", "--trainer.logger", "false")
    last = Path("runs/unet/0/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    torch.save(checkpoint | {"extra": Payload(tmp_path / "ran")}, last)
    Path("plain.ckpt").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    commands = [["test", "--config", UNET, "--ckpt_path", "last"], [*LONGER, "--ckpt_path", "last"]]
    commands += [["predict", "--config", UNET, "--ckpt_path", "plain.ckpt", "--input", UNET]]
    for command in commands:
        code, _, err = tasklight(*command)
        assert code == 2 and "cannot be read" in one_line(err)
    assert not (tmp_path / "ran").exists()


def test_checkpoints_of_other_programs_are_refused(tasklight):
    torch.save({"weights": torch.ones(3)}, "other.ckpt")
    code, _, err = tasklight("test", "--config", UNET, "--ckpt_path", "other.ckpt")
    assert code == 2 and "other.ckpt was not written by this program" in one_line(err)


SLOTS = {
    "task": lambda config, path: config["model"].update(class_path=path),
    "net": lambda config, path: config["model"]["init_args"].update(net={"class_path": path}),
    "net by name": lambda config, path: config["model"]["init_args"].update(net=path),
    "optimizer": lambda config, path: config["model"]["init_args"].update(optimizer={"class_path": path}),
    "scheduler": lambda config, path: config["model"]["init_args"].update(scheduler={"class_path": path}),
    "data": lambda config, path: config["data"].update(class_path=path),
    "callback": lambda config, path: config["trainer"].update(callbacks=[{"class_path": path}]),
    "logger": lambda config, path: config["trainer"].update(logger={"class_path": path}),
    "strategy": lambda config, path: config["trainer"].update(strategy={"class_path": path}),
    "profiler": lambda config, path: config["trainer"].update(profiler={"class_path": path}),
    "plugins": lambda config, path: config["trainer"].update(plugins=[{"class_path": path}]),
    "accelerator": lambda config, path: config["trainer"].update(accelerator={"class_path": path}),
}


@pytest.mark.parametrize("path", ["os.system", "hostile.Thing", "torch.hub.load"])
@pytest.mark.parametrize("slot", SLOTS)
def test_a_config_may_not_name_what_is_not_allowed(tasklight, tmp_path, monkeypatch, slot, path):
    (tmp_path / "hostile.py").write_text("from pathlib import Path\nPath('ran').touch()\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = yaml.safe_load(Path(UNET).read_text())
    SLOTS[slot](config, path)
    Path("foreign.yaml").write_text(yaml.safe_dump(config))
    code, _, err = tasklight("fit", "--config", "foreign.yaml")
    assert code == 2
    assert path in one_line(err) and "TASKLIGHT_ALLOW" in err
    assert not Path("ran").exists() and "hostile" not in sys.modules
    assert not list(Path().glob("runs/*/*"))


def test_checkpoints_that_do_not_fit(tasklight):
    short = [*LONGER, "--trainer.max_epochs", "1", "--trainer.logger", "false"]
    tasklight(*short)
    code, _, err = tasklight(*short, "--model.net.width", "5", "--ckpt_path", "last")
    assert code == 2 and "does not fit the net" in one_line(err)
    last = Path("runs/unet/0/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["hyper_parameters"]["_class_path"] = "tasks.other.OtherTask"
    torch.save(checkpoint, last)
    code, _, err = tasklight(*short, "--ckpt_path", "last")
    assert code == 2 and "tasks.other.OtherTask" in one_line(err) and "SegmentationTask" in err


def test_a_run_folder_that_is_deleted_ends_the_run(tasklight, monkeypatch):
    original = SegmentationTask.training_step

    def training_step(task, batch, batch_idx):
        if task.global_step == 5:
            shutil.rmtree("runs")
        return original(task, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", training_step)
    code, _, err = tasklight(*LONGER)
    assert code == 2 and "runs/unet/0" in one_line(err)


def test_closed_output_is_a_clean_end(tmp_path):
    command = f"{sys.executable} {ROOT / 'train.py'} {' '.join(LONGER)} --trainer.max_epochs 1 | head -n 1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["recipe", "unet"] and "Traceback" not in done.stderr


def test_ones_own_package_can_be_allowed(tasklight, tmp_path, monkeypatch):
    net = (ROOT / "tests" / "dropout_net.py").read_text()
    (tmp_path / "mynets.py").write_text(net)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = yaml.safe_load(Path(UNET).read_text())
    config["model"]["init_args"]["net"] = {"class_path": "mynets.Net"}
    Path("own.yaml").write_text(yaml.safe_dump(config))
    assert tasklight("fit", "--config", "own.yaml", "--print_config")[0] == 2
    monkeypatch.setenv("TASKLIGHT_ALLOW", "something, mynets")
    assert tasklight("fit", "--config", "own.yaml", "--print_config")[0] == 0


def test_averaged_weights_are_those_that_are_tested(tasklight):
    config = {"trainer": {"callbacks+": [{"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging"}]}}
    Path("ema.yaml").write_text(yaml.safe_dump(config))
    code, _, err = tasklight(*LONGER, "--config", "ema.yaml")
    assert code == 0, err
    checkpoint = torch.load("runs/unet/0/checkpoints/best.ckpt", weights_only=True)
    assert "current_model_state" in checkpoint
    summary = json.loads(Path("runs/unet/0/summary.json").read_text())
    code, out, _ = tasklight("test", "--config", UNET)
    assert code == 0 and f"{summary['metrics']['test/iou']:.4f}" in out


def test_a_picture_that_is_half_there_is_found(tmp_path):
    from datamodules.segmentation import SegmentationFolderDataModule

    write_masked_pictures(tmp_path, count=4)
    path = tmp_path / "images" / "02.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"1 of 4 .*02\.png"):
        SegmentationFolderDataModule(str(tmp_path)).prepare_data()

"""Processes that torchrun or srun starts, on one machine or several, and what happens when one of them dies."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from recipes import RECIPES
from test_devices import FIT, start, values
from test_engine import one_line, table, weights

from engine.devices import layout, rank
from engine.errors import UserError

ALL = [*FIT, "--save_minutes", "0", "--trainer.log_every_n_steps", "7"]
LAST = Path("runs/unet/0/checkpoints/last.ckpt")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun(folder: Path, *argv: str, machines: int = 2, more: tuple[str, ...] = ()) -> list[subprocess.Popen[str]]:
    """Start two processes as two machines of one each, or as one machine of two."""
    if machines == 1:
        places = [["--nproc-per-node", "2", "--master-port", str(free_port())]]
    else:
        there = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "a"]
        if "--master-port" in more:
            there = ["--master-addr", "127.0.0.1"]
        places = [["--nnodes", "2", "--node-rank", str(n), "--nproc-per-node", "1", *there, *more] for n in (0, 1)]
    command = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    train = [str(ROOT / "train.py"), *argv]
    return [subprocess.Popen([*command, *place, *train], cwd=folder, env=environment, **pipes) for place in places]


def srun(folder: Path, *argv: str) -> list[subprocess.Popen[str]]:
    """Start two processes with what srun tells the processes of two machines."""
    shared = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"}
    shared |= {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, str(ROOT / "train.py"), *argv]
    numbers = [{"SLURM_NODEID": n, "SLURM_PROCID": n} for n in ("0", "1")]
    return [subprocess.Popen(command, cwd=folder, env=os.environ | shared | own, **pipes) for own in numbers]


def ended(processes: list[subprocess.Popen[str]], code: int = 0) -> str:
    """Wait for processes, see that all end with a code, and return what they have said."""
    said = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), "\n".join(said)
    return "\n".join(said)


def wait_for_checkpoint(folder: Path, processes: list[subprocess.Popen[str]]) -> None:
    while not (folder / LAST).exists():
        assert all(process.poll() is None for process in processes), processes[0].communicate()[0]
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a training on two machines."""
    folder = tmp_path_factory.mktemp("undisturbed")
    said = ended(torchrun(folder, *ALL, "--trainer.num_nodes", "2", more=("--master-port", str(free_port()))))
    assert said.count("runs/unet/0/summary.json") == 1 and said.count("skill") == 1
    return folder


def test_who_starts_the_processes_says_how_many(monkeypatch):
    assert layout("cpu", 2, 1) == (2, 1)
    for name, value in (("SLURM_NTASKS", "8"), ("SLURM_NNODES", "2"), ("SLURM_JOB_NAME", "train")):
        monkeypatch.setenv(name, value)
    assert layout("cpu", "auto", 1) == layout("cpu", 4, 2) == (4, 2)
    for name, value in (("TORCHELASTIC_RUN_ID", "a"), ("WORLD_SIZE", "3"), ("LOCAL_WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    assert layout("cpu", "auto", 1) == layout("gpu", -1, 1) == (1, 3)
    with pytest.raises(UserError, match=r"2 devices on each of 1 machines, but 1 processes were started on each of 3"):
        layout("cpu", 2, 1)


def test_the_innermost_launcher_numbers_the_processes(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert rank() == 0
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert rank() == 3
    monkeypatch.setenv("LOCAL_RANK", "1")  # started within a task of SLURM
    assert rank() == 1


def test_several_machines_are_not_waited_for_by_one(tasklight):
    code, _, err = tasklight(*FIT, "--trainer.num_nodes", "2")
    assert code == 2 and "torchrun" in one_line(err)
    assert not Path("runs").exists()


@pytest.mark.slow
def test_nets_that_take_turns_are_not_sharded(tmp_path):
    flags = ["--config", str(ROOT / "configs/addons/fsdp.yaml"), "--trainer.devices", "2", "--trainer.logger", "false"]
    small = [*RECIPES["dcgan"].small, "--trainer.accelerator", "cpu"]
    process = start(tmp_path, "fit", "--config", str(ROOT / "configs/dcgan.yaml"), *small, *flags)
    said, _ = process.communicate(timeout=300)
    assert process.returncode not in (0, None) and "GANTask trains more than one net" in said


@pytest.mark.parametrize("dies", ["child", pytest.param("parent", marks=pytest.mark.slow)])
def test_a_process_that_is_killed_ends_the_other(tmp_path, dies):
    process = start(tmp_path, *ALL, "--trainer.max_epochs", "500", "--trainer.devices", "2")
    wait_for_checkpoint(tmp_path, [process])
    (child,) = children(process.pid)
    os.kill(child if dies == "child" else process.pid, signal.SIGKILL)
    since = time.monotonic()
    process.communicate(timeout=120)  # both write into one pipe, whose end is the end of both
    assert process.returncode != 0 and time.monotonic() - since < 60


@pytest.mark.slow
def test_two_machines_have_one_folder_and_measure_what_one_process_measures(undisturbed):
    assert [path.name for path in (undisturbed / "runs/unet").iterdir()] == ["0"]
    assert len((undisturbed / "runs/unet/0/command.txt").read_text().splitlines()) == 1
    together = next(row for row in table(undisturbed / "runs/unet/0") if row["test/iou"])
    out, _ = start(undisturbed, "test", "--ckpt_path", "runs/unet/0").communicate(timeout=300)
    alone = values(out)
    assert len(alone) > 5 and alone == {name: f"{float(together[name]):.4f}" for name in alone}


@pytest.mark.slow
@pytest.mark.parametrize(("machines", "victim"), [(1, 1), (2, 0), (2, 1)])
def test_torchrun_goes_on_by_itself(tmp_path, undisturbed, machines, victim):
    processes = torchrun(tmp_path, *ALL, machines=machines)
    wait_for_checkpoint(tmp_path, processes)
    workers = [worker for process in processes for worker in children(process.pid)]
    for worker in workers:
        if f"RANK={victim}" in Path(f"/proc/{worker}/environ").read_text().split("\0"):
            os.kill(worker, signal.SIGKILL)
    said = ended(processes)
    assert said.count("checkpoint  runs/unet/0/checkpoints/last.ckpt") >= 1
    assert [path.name for path in (tmp_path / "runs/unet").iterdir()] == ["0"]
    assert_same_weights(undisturbed / LAST, tmp_path / LAST)
    tables = [path.joinpath("runs/unet/0/metrics.csv").read_bytes() for path in (undisturbed, tmp_path)]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_slurm_stops_a_training_in_time_and_starts_it_again(tmp_path, undisturbed):
    processes = srun(tmp_path, *ALL)
    wait_for_checkpoint(tmp_path, processes)
    for process in processes:
        process.send_signal(signal.SIGUSR1)
    ended(processes, 128 + signal.SIGUSR1)
    assert 0 < torch.load(tmp_path / LAST, weights_only=True)["global_step"] < 20
    ended(srun(tmp_path, *ALL, "--ckpt_path", "last"))
    assert_same_weights(undisturbed / LAST, tmp_path / LAST)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["gpt", "transformer"])
def test_a_sharded_training_is_that_of_whole_nets(tmp_path, recipe):
    settings = ["--config", str(ROOT / "configs" / f"{recipe}.yaml"), *RECIPES[recipe].small]
    settings += ["--trainer.accelerator", "cpu", "--trainer.logger", "engine.loggers.TableLogger"]
    settings += ["--trainer.max_epochs", "2", "--trainer.devices", "2"]
    sharded = ["--config", str(ROOT / "configs/addons/fsdp.yaml"), "--save_minutes", "0"]
    for flags in ([], sharded, sharded):  # the last is stopped
        process = start(tmp_path, "fit", *settings, *flags, "--trainer.log_every_n_steps", "3")
        last = tmp_path / f"runs/{recipe}/2/checkpoints/last.ckpt"
        while process.poll() is None and not last.exists():
            time.sleep(0.02)
        if last.exists():
            process.send_signal(signal.SIGTERM)
        ended([process], 143 if last.exists() else 0)
    ended([start(tmp_path, "fit", *settings, *sharded, "--ckpt_path", "last", "--trainer.log_every_n_steps", "3")])
    ends = [tmp_path / f"runs/{recipe}/{number}/checkpoints/last.ckpt" for number in range(3)]
    whole, shared = (torch.load(end, weights_only=True) for end in ends[:2])
    moments = [state["optimizer_states"][0]["state"] for state in (whole, shared)]
    shapes = [
        {(place, name): value.shape for place, kept in moment.items() for name, value in kept.items()}
        for moment in moments
    ]
    assert shapes[0] == shapes[1] and shapes[0]
    for name, value in whole["state_dict"].items():  # sums in another order differ by a rounding
        torch.testing.assert_close(shared["state_dict"][name], value, rtol=1e-3, atol=1e-3)
    assert_same_weights(ends[1], ends[2])
    together = next(row for row in reversed(table(ends[1].parent.parent)))
    out, _ = start(tmp_path, "test", "--ckpt_path", str(ends[1].parent.parent), "--trainer.devices", "1").communicate()
    alone = values(out)
    assert alone == {name: f"{float(together[name]):.4f}" for name in alone} and alone

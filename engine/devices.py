"""Several devices, of one machine or of several: how many, how they work together, and which process speaks."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from engine.errors import UserError

PATIENCE = timedelta(minutes=5)  # then a process whose partner does not answer gives up
PR_SET_PDEATHSIG = 1  # of Linux: which signal a process gets when its parent ends


def rank() -> int:
    """Return the number of this process among those of the run, 0 where it is the only one."""
    ranks = [os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")]  # the innermost launcher first
    return int(next((rank for rank in ranks if rank), 0))


def is_first() -> bool:
    """Tell whether this is the only process of the run, or the one of several that prints and writes."""
    return rank() == 0


def num_devices(accelerator: str, devices: Any) -> int:
    """Return how many devices of this machine Lightning will use; on a CPU that is one unless more are asked for."""
    if isinstance(devices, list):
        return len(devices)
    if str(devices).isdigit():
        return int(devices)
    return torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 1


def launched() -> tuple[int, int] | None:
    """Return the devices of each machine and the machines, as torchrun or srun was told; None without them."""
    if distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        return devices, int(os.environ["WORLD_SIZE"]) // devices
    if SLURMEnvironment.detect():
        machines = int(os.environ.get("SLURM_NNODES", 1))
        return int(os.environ["SLURM_NTASKS"]) // machines, machines
    return None


def layout(accelerator: str, devices: Any, machines: int) -> tuple[Any, int]:
    """Return the devices of each machine and the machines; what torchrun or srun was told need not be told again.

    Args:
        accelerator: The setting of the trainer.
        devices: The setting of the trainer, "auto" or -1 where it is left to the launcher.
        machines: The setting of the trainer, 1 where it is left to the launcher.

    Raises:
        UserError: The settings ask for something else than what was started.
    """
    started = launched()
    if started is None:
        if machines > 1:
            raise UserError(
                f"trainer.num_nodes is {machines}, but this process was started alone: start one on each machine by "
                f"torchrun or srun (docs/several_machines.md)"
            )
        return devices, 1
    asked = (started[0] if str(devices) in ("auto", "-1") else num_devices(accelerator, devices)), max(machines, 1)
    if asked[0] != started[0] or asked[1] not in (1, started[1]):
        raise UserError(
            f"the settings ask for {asked[0]} devices on each of {asked[1]} machines, but {started[0]} processes were "
            f"started on each of {started[1]}: leave out trainer.devices and trainer.num_nodes"
        )
    return started


class Meeting:
    """Where the processes of a run that torchrun or srun has started tell each other what the first has decided.

    torchrun starts them again when one of them has died. What it lets them find each other by still holds the words of
    those that are gone, so they meet anew, at the first process. What it is to know of the attempts before it, it
    leaves with torchrun.

    Raises:
        UserError: The first process cannot be found.
    """

    def __init__(self) -> None:
        self.store: distributed.Store
        self.kept: distributed.Store
        if not distributed.is_torchelastic_launched():
            slurm = SLURMEnvironment(auto_requeue=False)
            self.store = self.kept = host(slurm.main_address, slurm.main_port, is_first())
            return
        address = os.environ["MASTER_ADDR"]
        launcher = host(address, int(os.environ["MASTER_PORT"]), False)
        self.kept = distributed.PrefixStore("tasklight", launcher)
        if is_first():
            store = host(address, 0, True)
            self.kept.set("port", str(store.port))
        else:
            store = self.find(address)
        self.store = store
        os.environ |= {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "False"}

    def find(self, address: str) -> distributed.TCPStore:
        """Return the way to the first process; until it has started, an older port leads nowhere."""
        end = time.monotonic() + PATIENCE.total_seconds()
        while time.monotonic() < end:
            with contextlib.suppress(distributed.DistError):
                found = host(address, int(self.kept.get("port")), False, timedelta(seconds=2))
                found.set_timeout(PATIENCE)
                return found
        raise UserError(f"the first process, at {address}, did not answer within {PATIENCE.seconds // 60} minutes")

    def agree(self, name: str, value: str) -> str:
        """Return the value of the first process, in each of them."""
        if is_first():
            self.store.set(name, value)
        return self.store.get(name).decode()

    def keep(self, name: str, value: str) -> None:
        """Leave a value for the next attempt, or nothing if it is empty."""
        if is_first():
            self.kept.set(name, value)

    def recall(self, name: str) -> str:
        """Return what an earlier attempt has left, or nothing."""
        return self.kept.get(name).decode() if self.kept.check([name]) else ""


def meeting() -> Meeting | None:
    """Return where the processes of the run meet, or None for one that its user or Lightning has started."""
    alone = launched() == (1, 1) and not distributed.is_torchelastic_launched()
    return Meeting() if launched() and not alone else None


def host(address: str, port: int, here: bool, patience: timedelta = PATIENCE) -> distributed.TCPStore:
    """Return a place for words at a port of a machine, 0 for any port, which is made here or has been made there."""
    return distributed.TCPStore(
        address, port, is_master=here, wait_for_workers=False, multi_tenant=here, timeout=patience
    )


def together() -> DDPStrategy:
    """Return the strategy of several devices: each has the whole net, gradients are averaged."""
    return DDPStrategy(
        timeout=PATIENCE,
        forward_sync_buffers=False,  # Record does it where it matters, before validation
        gradient_as_bucket_view=True,
    )


def end_with_launcher() -> None:
    """Let this process, if it is one of several, end with the one that has started it: no orphan stays, nor hangs."""
    if "LOCAL_RANK" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

"""Several devices: how many, how they work together, and which of their processes speaks."""

import os
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy


def is_first() -> bool:
    """Tell whether this is the only process of the run, or the one of several that prints and writes."""
    ranks = [os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK")]
    return int(next((rank for rank in ranks if rank), 0)) == 0


def num_devices(accelerator: str, devices: Any) -> int:
    """Return how many devices Lightning will use; on a CPU that is one unless more are asked for."""
    if isinstance(devices, list):
        return len(devices)
    if str(devices).isdigit():
        return int(devices)
    return torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 1


def together() -> DDPStrategy:
    """Return the strategy of several devices: each has the whole net, gradients are averaged."""
    return DDPStrategy(
        timeout=timedelta(minutes=5),  # then a process whose partner hangs gives up
        forward_sync_buffers=False,  # Record does it where it matters, before validation
        gradient_as_bucket_view=True,
    )

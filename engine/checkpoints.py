"""Checkpoint files that are whole or not there, whatever happens while they are written."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from engine.errors import UserError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a kill, a full disk or a lost right leaves the older file as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        target = Path(path)
        scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for leftover in target.parent.glob(f".{target.name}.*.part"):  # of a process that was killed
                leftover.unlink()
            with scratch.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, target)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            scratch.unlink(missing_ok=True)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
            raise UserError(f"the checkpoint {target} could not be written: {reason}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code from it.

    Raises:
        UserError: It cannot be read, or is not one of a LightningModule that was trained here.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch.load raises what the damage happens to lead to
        raise UserError(f"the checkpoint {path} cannot be read: it is damaged, or holds more than data") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "hyper_parameters" not in checkpoint:
        raise UserError(f"the checkpoint {path} was not written by this program")
    return checkpoint


def read_best(source: str, setting: str) -> dict[str, Any]:
    """Read a checkpoint, or that of a run folder which was best on the val part, without running any code from it.

    Args:
        source: The file or the folder.
        setting: What the user has named it by, to be said where it is missing.

    Raises:
        UserError: It is not there, or as of ``read_checkpoint``.
    """
    path = Path(source)
    path = path / "checkpoints" / "best.ckpt" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{setting}: {path} does not exist; a checkpoint or a run folder is needed")
    return read_checkpoint(path)

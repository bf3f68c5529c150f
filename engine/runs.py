"""The run folder: ``runs/<recipe>/<n>/`` below the working directory, and how to find a checkpoint in it."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from engine.errors import UserError

RUNS = Path("runs")
PACKAGES = ("torch", "torchvision", "lightning", "jsonargparse", "torchmetrics", "numpy", "pillow", "wandb")


def new_run(recipe: str) -> Path:
    """Create the next run folder of a recipe; of runs that start at the same moment each gets its own."""
    parent = RUNS / recipe
    parent.mkdir(parents=True, exist_ok=True)
    number = max((n for n, _ in numbered(parent)), default=-1) + 1
    while True:
        try:
            (parent / str(number)).mkdir()
            return parent / str(number)
        except FileExistsError:
            number += 1


def numbered(parent: Path) -> list[tuple[int, Path]]:
    """Return the run folders of a recipe with their numbers, oldest first."""
    folders = parent.iterdir() if parent.is_dir() else []
    return sorted((int(path.name), path) for path in folders if path.name.isdigit())


def find_checkpoint(wanted: str, recipe: str, prefer: str) -> Path:
    """Return the checkpoint file that ``--ckpt_path`` means.

    Args:
        wanted: ``best`` or ``last`` of the newest run of the recipe that has one, a run folder, or a file.
        recipe: Name of the recipe.
        prefer: Which of a folder's checkpoints is meant, ``best`` or ``last``.

    Raises:
        UserError: There is none; says what there is.
    """
    if wanted in ("best", "last"):
        names = ("best", "last") if wanted == "best" else ("last",)
        for _, folder in reversed(numbered(RUNS / recipe)):
            for name in names:
                if (folder / "checkpoints" / f"{name}.ckpt").is_file():
                    return folder / "checkpoints" / f"{name}.ckpt"
        raise UserError(
            f"no run of {recipe!r} has a checkpoint {wanted!r} below {RUNS.absolute()}{what_exists(recipe)}"
        )
    path = Path(wanted)
    if path.is_file():
        return path
    if path.is_dir():
        for name in dict.fromkeys((prefer, "best", "last")):
            if (path / "checkpoints" / f"{name}.ckpt").is_file():
                return path / "checkpoints" / f"{name}.ckpt"
        raise UserError(f"the folder {wanted} holds no checkpoint (checkpoints/best.ckpt or last.ckpt)")
    raise UserError(f"the checkpoint {wanted} does not exist{what_exists(recipe)}")


def what_exists(recipe: str) -> str:
    """Return the end of a sentence that lists the runs that have checkpoints."""
    found = [path.parent.parent for path in RUNS.glob("*/*/checkpoints/last.ckpt")]
    found.sort(key=lambda path: (path.parent.name != recipe, path.parent.name, -int(path.name)))
    return f"; there are {', '.join(map(str, found[:5]))}" if found else "; there is none of any recipe yet"


def folder_of(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint lies in, or None."""
    folder = Path(os.path.relpath(checkpoint.absolute().parent.parent))
    return folder if (folder / "config.yaml").is_file() else None


def environment(device: str) -> dict[str, Any]:
    """Return what the numbers of a run depend on besides its configuration."""
    root = Path(__file__).parent.parent
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        commit, changes = "unknown", ""
    return {
        "git_commit": commit,
        "uncommitted_changes": bool(changes),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "cpu_count": os.cpu_count(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is there whole or not at all."""
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(scratch, path)

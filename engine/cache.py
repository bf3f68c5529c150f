"""Files that are built once: decoded folders and composed data sets, below ``$TASKLIGHT_CACHE``."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
from lightning.pytorch.utilities.seed import isolate_rng


def cached(name: str, key: object, build: Callable[[Path], None]) -> Path:
    """Return a folder that ``build`` has filled, now or in an earlier run.

    The folder appears under its name only when it is complete, so runs that start at once, or are killed half-way,
    never see a torn one. Building leaves the random states alone, so a run that builds equals one that finds.

    Args:
        name: Start of the folder's name, for people who look into the cache.
        key: Everything that the content depends on, as JSON can write it.
        build: Called with an empty folder to fill.
    """
    root = Path(os.environ.get("TASKLIGHT_CACHE") or platformdirs.user_cache_path("tasklight"))
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    folder = root / f"{name}-{digest[:16]}"
    if not folder.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
        try:
            with isolate_rng():
                build(scratch)
            try:
                os.replace(scratch, folder)
            except OSError:  # another run was faster: its folder holds the same
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder

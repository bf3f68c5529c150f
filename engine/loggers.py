"""Where numbers go: a table in the run folder, and the W&B dashboard, online or not."""

import contextlib
import csv
import netrc
import os
import socket
import threading
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

PROBE_SECONDS = 2.0


class TableLogger(Logger):
    """``metrics.csv``: a row for every step that logged something, a column for every metric, nothing that varies.

    A table that is there already is continued; ``cut`` drops what a resumed run will write again.

    Args:
        save_dir: The run folder.
    """

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.columns: list[str] = []
        self.row: dict[str, Any] = {}  # of the current step, not yet written
        if self.path.exists():
            with self.path.open(newline="") as file:
                self.columns = next(csv.reader(file), [])

    @property
    def name(self) -> str:
        return "table"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.row and self.row["step"] != step:
            self.flush()
        self.row.setdefault("epoch", "")
        self.row["step"] = step
        for name, value in metrics.items():
            self.row[name] = int(value) if name == "epoch" else repr(float(value))

    @rank_zero_only
    def flush(self) -> None:
        """Write the row of the current step."""
        if not self.row:
            return
        new = [name for name in self.row if name not in self.columns]
        if new:
            rows = self._read()
            self.columns += new
            self._write(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(self.row)
        self.row = {}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Drop the rows of ``step`` and later."""
        if self.path.exists():
            self._write([row for row in self._read() if int(row["step"]) < step])

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return [row for row in csv.DictReader(file) if None not in row.values()]  # a torn row has holes

    def _write(self, rows: list[dict[str, str]]) -> None:
        scratch = self.path.with_suffix(".part")
        with scratch.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(scratch, self.path)


class DashboardLogger(WandbLogger):
    """W&B: online where an API key is configured and the server answers, else recorded offline at once.

    ``WANDB_MODE`` overrules this. A run folder that has a W&B run already goes on with it.

    Args:
        save_dir: The run folder.
        project: Project on the dashboard.
        name: Name of the run; by default recipe and number.
    """

    def __init__(self, save_dir: str = ".", project: str = "tasklight", name: str | None = None) -> None:
        folder = Path(save_dir)
        earlier = sorted(folder.glob("wandb/*run-*-*"))
        super().__init__(
            name=name or f"{folder.parent.name}-{folder.name}",
            save_dir=str(folder.absolute()),  # W&B's own process may have started elsewhere
            project=project,
            id=earlier[-1].name.rsplit("-", 1)[-1] if earlier else None,
            mode=dashboard_mode(),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._wandb_init.pop("anonymous")  # W&B warns of this argument even where it is None
        self.row: dict[str, float] = {}  # of the current step, not yet handed on
        self.step: int | None = None

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log settings, but no tokenizer: it is as long as a book."""
        settings = params if isinstance(params, dict) else vars(params)
        super().log_hyperparams({name: value for name, value in settings.items() if len(str(value)) < 10_000})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take metrics; those of a step are handed on together, as doing so takes as long as a step of a tiny net."""
        if step != self.step:
            self.flush()
        self.row |= metrics
        self.step = step

    @rank_zero_only
    def flush(self) -> None:
        """Hand on the metrics of the current step."""
        if self.row:
            super().log_metrics(self.row, self.step)
        self.row = {}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()
        super().finalize(status)

    @rank_zero_only
    def close(self) -> None:
        """End the run and say how to look at what was recorded offline."""
        self.flush()
        run, mode = self.experiment, self._wandb_init["mode"]
        folder = os.path.relpath(Path(run.dir).parent)
        run.finish()
        if mode == "offline":
            print(f" dashboard  wandb leet {folder}, or wandb sync {folder}")


def dashboard_mode() -> str:
    """Return W&B's mode for this machine and moment, within two seconds and without a question."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    server = urlsplit(base_url())
    host = server.hostname or ""
    if not (os.environ.get("WANDB_API_KEY") or has_login(host)):
        return "offline"
    answered = threading.Event()

    def probe() -> None:
        with contextlib.suppress(OSError):
            port = server.port or (80 if server.scheme == "http" else 443)
            socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
            answered.set()

    threading.Thread(target=probe, daemon=True).start()  # looking up a name knows no time limit
    return "online" if answered.wait(PROBE_SECONDS) else "offline"


def has_login(host: str) -> bool:
    """Tell whether ``wandb login`` has left a key for a host."""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def base_url() -> str:
    """Return the address of the W&B server that is configured."""
    return wandb.setup().settings.base_url

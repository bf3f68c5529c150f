"""What a command says on the terminal: a few first lines, and a table at the end."""

import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from engine.devices import is_first

console = Console(highlight=False, soft_wrap=True, quiet=not is_first())  # of several processes one speaks


def print_first_lines(lines: dict[str, str]) -> None:
    """Print what a run is about to do."""
    for name, value in lines.items():
        console.print(f"[dim]{name:>10}[/dim]  ", end="")
        console.print(value, markup=False)


def print_ailment(says: str, behind_bar: bool = False) -> None:
    """Print what the doctor says, in lines of its own; a progress bar on a terminal leaves its line open."""
    if behind_bar and console.is_terminal:
        console.print()
    for number, line in enumerate(says.splitlines()):
        print_first_lines({"" if number else "doctor": line})


def resume_command(folder: Path) -> str:
    """Return the command that goes on with a run, with the settings it was started with."""
    return f"python {sys.argv[0]} fit --config {folder}/config.yaml --ckpt_path {folder}"


def print_metrics(metrics: dict[str, float]) -> None:
    """Print what ``validate`` or ``test`` measured."""
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("value", justify="right")
    for key, value in metrics.items():
        table.add_row(key, f"{value:.4f}")
    console.print(table)


def print_closing(summary: dict[str, Any], folder: Path) -> None:
    """Print what a training has reached, beside what naive methods reach, and what can be done next."""
    references = summary["references"]
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    for column in ("this run", "baseline", *references):
        table.add_column(column, justify="right")
    primary = summary["primary"]
    keys = [primary, *(key for key in summary["metrics"] if key != primary)]
    for key in keys:
        others = [summary["baseline"], *references.values()]
        cells = [f"{other[key]:.4f}" if key in other else "" for other in others]
        style = "bold" if key == primary else ""
        table.add_row(key, f"{summary['metrics'][key]:.4f}", *cells, style=style)
    console.print()
    console.print(table)
    minutes, seconds = divmod(round(summary["seconds"]), 60)
    speed = f"{summary['samples_per_second']:.0f} samples/s"
    console.print(f"skill {summary['skill']:.3f} (0 = baseline), {minutes} min {seconds} s of training, {speed}\n")
    for said in summary["doctor"]:
        print_ailment(said["says"])
    program = f"python {sys.argv[0]}"
    lines = {
        "pictures": f"{folder}/pictures/",
        "summary": f"{folder}/summary.json",
        "predict": f"{program} predict --ckpt_path {folder} --input MY_FILE_OR_FOLDER",
        "export": f"{program} export --ckpt_path {folder}",
        "resume": resume_command(folder),
    }
    print_first_lines(lines)


def print_differences(old: str, new: str) -> None:
    """Say which settings of a resumed run, as YAML, differ from those it was started with."""
    before, after = (flattened(yaml.safe_load(text)) for text in (old, new))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            line = f"changed since the run was started: {key} = {after.get(key)} (was {before.get(key)})"
            console.print(line, markup=False)


def flattened(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested config as dotted keys."""
    if not isinstance(config, dict) or not config:
        return {prefix: config}
    items: dict[str, Any] = {}
    for key, value in config.items():
        items |= flattened(value, f"{prefix}.{key}".lstrip("."))
    return items

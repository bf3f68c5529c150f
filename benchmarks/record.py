"""Keep what finished runs have measured: ``python benchmarks/record.py runs/unet/0 runs/unet/1 runs/unet/2``.

Writes ``docs/results/<recipe>.json``, the first line of ``configs/<recipe>.yaml``, which ``train.py list`` prints, and
``docs/results.md``. Without arguments it only writes the page anew.
"""

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def measured(runs: list[dict[str, Any]]) -> str:
    """Return mean and standard deviation over the seeds, the baseline, and the time, for the YAML's first line."""
    primary = runs[0]["primary"]
    values = [run["metrics"][primary] for run in runs]
    baseline = statistics.mean(run["baseline"][primary] for run in runs)
    seconds = statistics.mean(run["seconds"] for run in runs)
    spread = f" +- {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    on = device(runs[0])
    return f"{primary} {statistics.mean(values):.3f}{spread} (baseline {baseline:.3f}) | {seconds:.0f} s on {on}"


def device(run: dict[str, Any]) -> str:
    """Return what a run was trained on."""
    threads = re.fullmatch(r"cpu, (\d+) threads?", run["device"])
    return f"{threads[1]} CPU core{'s' if threads[1] != '1' else ''}" if threads else run["device"]


def over_seeds(values: list[float]) -> str:
    """Return mean and standard deviation, or the value that all seeds share."""
    if len(set(values)) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def words(name: str) -> str:
    """Return a name as it is spoken."""
    return name.replace("_", " ")


def span(values: list[float]) -> str:
    """Return the smallest and the largest of whole numbers."""
    low, high = min(values), max(values)
    return f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f}-{high:,.0f}"


def page() -> str:
    """Return ``docs/results.md``: every recorded recipe, beside its baseline and references, and how to repeat it."""
    rows, commands = [], []
    for config in sorted((ROOT / "configs").glob("*.yaml")):
        path = ROOT / "docs" / "results" / f"{config.stem}.json"
        if not path.exists():  # default.yaml is no recipe
            continue
        runs: list[dict[str, Any]] = json.loads(path.read_text())
        name, primary = config.stem, runs[0]["primary"]
        beside = {
            reference: over_seeds([run["references"][reference][primary] for run in runs])
            for reference, metrics in runs[0]["references"].items()
            if primary in metrics
        }
        seconds, memory = ([run[key] for run in runs] for key in ("seconds", "peak_memory_mb"))
        rises = (runs[0]["metrics"][primary] > runs[0]["baseline"][primary]) == (runs[0]["skill"] > 0)
        rows.append(
            f"| [{name}]({name}.md) | {words(primary.removeprefix('test/'))} {'↑' if rises else '↓'} "
            f"| **{over_seeds([run['metrics'][primary] for run in runs])}** "
            f"| {over_seeds([run['baseline'][primary] for run in runs])} "
            f"| {'; '.join(f'{words(reference)} {value}' for reference, value in beside.items())} "
            f"| {over_seeds([run['skill'] for run in runs])} | {span(seconds)} s, {device(runs[0])} "
            f"| {span(memory)} MB | {runs[0]['parameters']:,} |"
        )
        seeds = ", ".join(str(run["seed"]) for run in runs)
        commits = sorted({run["environment"]["git_commit"][:7] for run in runs})
        packages = runs[0]["environment"]["packages"]
        commands.append(
            f"| {name} | `{runs[0]['command'].splitlines()[0]}` | {seeds} | {', '.join(commits)} "
            f"| {runs[0]['environment']['python']}, {packages['torch']} |"
        )
    head = ["recipe", "metric", "test", "baseline", "references", "skill", "training", "memory", "parameters"]
    how = ["recipe", "command of the first seed", "seeds", "commit", "Python, torch"]
    return "\n".join(
        [
            "# What was measured",
            "",
            "Written by `python benchmarks/record.py` from the recorded runs in [results/](results): mean and standard",
            "deviation over the seeds, on test parts that chose nothing. ↑ means that more is better. Skill is the way",
            "from the baseline (0) to a perfect score (1), decibels where there is none; below 0 the baseline won.",
            "The page of a recipe says what its references are. Memory is the most that the process ever held.",
            "",
            f"| {' | '.join(head)} |",
            f"|{' --- |' * len(head)}",
            *rows,
            "",
            "## How to repeat it",
            "",
            f"| {' | '.join(how)} |",
            f"|{' --- |' * len(how)}",
            *commands,
            "",
        ]
    )


def main(folders: list[Path]) -> None:
    """Collect the runs of one recipe, each with another seed, and write the page of all."""
    if folders:
        keep(folders)
    (ROOT / "docs" / "results.md").write_text(page(), encoding="utf-8")


def keep(folders: list[Path]) -> None:
    """Keep the runs of one recipe."""
    runs = []
    for folder in folders:
        run = json.loads((folder / "summary.json").read_text())
        run["environment"] = json.loads((folder / "environment.json").read_text())
        # As typed in the project's own folder, wherever that was.
        run["command"] = re.sub(r"\S*/(?=train\.py|configs/)", "", (folder / "command.txt").read_text().strip())
        runs.append(run)
    recipe = runs[0]["recipe"]
    seeds = [run["seed"] for run in runs]
    if any(run["recipe"] != recipe for run in runs) or len(set(seeds)) < len(seeds):
        sys.exit("the runs must be of one recipe and of different seeds")
    results = ROOT / "docs" / "results" / f"{recipe}.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(runs, indent=1) + "\n")
    config = ROOT / "configs" / f"{recipe}.yaml"
    first, _, rest = config.read_text().partition("\n")
    chapter = first.partition(" | ")[0]
    config.write_text(f"{chapter} | {measured(runs)}\n{rest}")
    print(config.read_text().partition("\n")[0])


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])

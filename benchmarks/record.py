"""Keep what finished runs have measured: ``python benchmarks/record.py runs/unet/0 runs/unet/1 runs/unet/2``.

Writes ``docs/results/<recipe>.json`` and the first line of ``configs/<recipe>.yaml``, which ``train.py list`` prints.
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
    device = runs[0]["device"]
    if threads := re.fullmatch(r"cpu, (\d+) threads?", device):
        device = f"{threads[1]} CPU core" + ("s" if threads[1] != "1" else "")
    return f"{primary} {statistics.mean(values):.3f}{spread} (baseline {baseline:.3f}) | {seconds:.0f} s on {device}"


def main(folders: list[Path]) -> None:
    """Collect the runs of one recipe, each with another seed."""
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

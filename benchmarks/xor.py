"""How often exclusive or is found: ``python benchmarks/xor.py`` trains every net of docs/xor.md with twenty seeds.

Writes ``docs/results/xor_nets.json``: for every net the rows that each seed gets right at the end, of four.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SEEDS = 20
NETS = {
    "perceptron": ["--model.net=nets.mlp.Perceptron"],
    **{
        f"2-{hidden}-2 {activation}": [f"--model.net.hidden=[{hidden}]", f"--model.net.activation={activation}"]
        for hidden in (2, 8)
        for activation in ("sigmoid", "tanh", "relu")
    },
}


def right(flags: list[str], seed: int) -> int:
    """Return the rows that a net gets right after its training."""
    from engine.command import run

    argv = ["fit", f"--config={ROOT}/configs/xor.yaml", f"--seed_everything={seed}", "--trainer.logger=false"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run([*argv, "--trainer.accelerator=cpu", "--trainer.callbacks=[]", f"--recipe={seed}", *flags])
    (summary,) = Path("runs", str(seed)).glob("*/summary.json")
    accuracy = json.loads(summary.read_text())["metrics"]["test/accuracy"]
    return round(4 * accuracy)


def main() -> None:
    """Train all nets."""
    import torch

    torch.set_num_threads(1)
    results = {}
    for name, flags in NETS.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            results[name] = [right(flags, seed) for seed in range(SEEDS)]
        print(f"{name:14} solved by {results[name].count(4)} of {SEEDS} seeds, {max(results[name])} of 4 rows at best")
    (ROOT / "docs" / "results" / "xor_nets.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("WANDB_MODE", "disabled")
    main()

"""``python -m tests.matrix``: prove every promise for every recipe, slow ones too, and write ``docs/promise.md``.

``python -m tests.matrix unet xor`` proves them for some recipes, ``python -m tests.matrix exports`` some of them,
by words in the names of their tests, for all; the other cells stay as they are.
"""

import sys
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "promise.md"


class Collector:
    """Takes down which promise was proved for which recipe."""

    def __init__(self) -> None:
        self.promises: dict[int, str] = {}
        self.cells: dict[tuple[str, int], str] = {}
        self.reasons: dict[tuple[str, int], str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        promise = dict(report.user_properties).get("promise")
        if promise and report.when == "call":
            number, words, recipe = promise
            self.promises[number] = words
            self.cells[recipe, number] = report.outcome
            if report.skipped:
                self.reasons[recipe, number] = str(report.longrepr[2]).removeprefix("Skipped: ")


def kept() -> tuple[dict[tuple[str, int], str], dict[int, str], list[str]]:
    """Return what stands on the page: the word of every cell, the promises, and the reasons."""
    lines = PAGE.read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    numbers = [int(cell) for cell in rows[0][1:]]
    cells = {(row[0], number): cell for row in rows[2:] for number, cell in zip(numbers, row[1:], strict=True)}
    promises = [line.partition(". ") for line in lines if line[:1].isdigit()]
    return cells, {int(number): words for number, _, words in promises}, [x for x in lines if x.startswith("- ")]


def main(wanted: list[str]) -> int:
    """Run the promises and write the page."""
    collector = Collector()
    argv = ["-m", "promise", "-q", "-n", "auto", str(ROOT / "tests" / "test_promise.py")]
    recipes = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    argv += ["-k", " or ".join(f"[{word}]" if word in recipes else word for word in wanted)] if wanted else []
    code = pytest.main(argv, plugins=[collector])
    words = {"passed": "yes", "skipped": "cannot"}
    cells = {cell: words.get(outcome, outcome) for cell, outcome in collector.cells.items()}
    reasons = [f"- {name} cannot keep {number}: {reason}" for (name, number), reason in collector.reasons.items()]
    promises = collector.promises
    if wanted:
        old_cells, old_promises, old_reasons = kept()
        gone = tuple(f"- {name} cannot keep {number}:" for name, number in cells)
        cells, promises = old_cells | cells, old_promises | promises
        reasons += [reason for reason in old_reasons if not reason.startswith(gone)]
    numbers, names = sorted(promises), sorted({name for name, _ in cells})
    lines = [
        "# What every recipe can do",
        "",
        f"Proved on {date.today()} by `python -m tests.matrix`, with the commands that a user types.",
        "",
        "| | " + " | ".join(f"{number}" for number in numbers) + " |",
        "| --- |" + " --- |" * len(numbers),
        *(f"| {name} | " + " | ".join(cells.get((name, n), "") for n in numbers) + " |" for name in names),
        "",
        *(f"{number}. {promises[number]}" for number in numbers),
        "",
    ]
    lines += [*sorted(reasons), ""] if reasons else []
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

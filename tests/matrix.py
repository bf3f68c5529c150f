"""``python -m tests.matrix``: prove every promise for every recipe, slow ones too, and write ``docs/promise.md``.

``python -m tests.matrix unet xor`` proves them for some recipes and leaves the rows of the others as they are.
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


def main(recipes: list[str]) -> int:
    """Run the promises and write the page."""
    collector = Collector()
    argv = ["-m", "promise", "-q", "-n", "auto", str(ROOT / "tests" / "test_promise.py")]
    argv += ["-k", " or ".join(f"[{name}]" for name in recipes)] if recipes else []
    code = pytest.main(argv, plugins=[collector])
    numbers = sorted(collector.promises)
    proved = sorted({name for name, _ in collector.cells})
    before = PAGE.read_text("utf-8").splitlines() if recipes else []
    kept = {line.split("|")[1].strip(): line for line in before if line.startswith("| ") and line[2] not in "|-"}
    words = {"passed": "yes", "skipped": "cannot"}
    lines = [
        "# What every recipe can do",
        "",
        f"Proved on {date.today()} by `python -m tests.matrix`, with the commands that a user types.",
        "",
        "| | " + " | ".join(f"{number}" for number in numbers) + " |",
        "| --- |" + " --- |" * len(numbers),
    ]
    for name in sorted({*proved, *kept}):
        cells = [collector.cells.get((name, number), "") for number in numbers]
        row = f"| {name} | " + " | ".join(words.get(cell, cell) for cell in cells) + " |"
        lines.append(row if name in proved else kept[name])
    lines += ["", *(f"{number}. {collector.promises[number]}" for number in numbers), ""]
    reasons = [f"- {name} cannot keep {number}: {reason}" for (name, number), reason in collector.reasons.items()]
    reasons += [line for line in before if line.startswith("- ") and line.split()[1] not in proved]
    lines += [*sorted(reasons), ""] if reasons else []
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``python -m tests.matrix``: prove every promise for every recipe, slow ones too, and write ``docs/promise.md``."""

import sys
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


class Collector:
    """Takes down which promise was proved for which recipe."""

    def __init__(self) -> None:
        self.promises: dict[int, str] = {}
        self.cells: dict[tuple[str, int], str] = {}
        self.reasons: dict[tuple[str, int], str] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]):
        outcome = yield
        marker = item.get_closest_marker("promise")
        if marker and call.when == "call":
            number, words = marker.args
            self.promises[number] = words
            report = outcome.get_result()
            self.cells[item.callspec.params["recipe"], number] = report.outcome
            if report.skipped:
                self.reasons[item.callspec.params["recipe"], number] = str(report.longrepr[2]).removeprefix("Skipped: ")


def main() -> int:
    """Run the promises and write the page."""
    collector = Collector()
    code = pytest.main(["-m", "promise", "-q", str(ROOT / "tests" / "test_promise.py")], plugins=[collector])
    numbers = sorted(collector.promises)
    names = sorted({name for name, _ in collector.cells})
    words = {"passed": "yes", "skipped": "cannot"}
    lines = [
        "# What every recipe can do",
        "",
        f"Proved on {date.today()} by `python -m tests.matrix`, with the commands that a user types.",
        "",
        "| | " + " | ".join(f"{number}" for number in numbers) + " |",
        "| --- |" + " --- |" * len(numbers),
    ]
    for name in names:
        cells = [collector.cells.get((name, number), "") for number in numbers]
        lines.append(f"| {name} | " + " | ".join(words.get(cell, cell) for cell in cells) + " |")
    lines += ["", *(f"{number}. {collector.promises[number]}" for number in numbers), ""]
    lines += [
        f"- {name} cannot keep {number}: {reason}" for (name, number), reason in sorted(collector.reasons.items())
    ]
    lines += [""] if collector.reasons else []
    (ROOT / "docs" / "promise.md").write_text("\n".join(lines), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

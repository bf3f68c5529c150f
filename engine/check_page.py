"""What ``check`` has found, on the terminal and as a page in one file."""

import base64
import html
import io
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.table import Table

from engine.errors import Finding
from engine.predictions import STYLE
from engine.report import console

PRINTED = 10  # places of a finding on the terminal
LISTED = 1000  # the same on the page

COLOURS = """
section { border-left: 4px solid; padding: 0.2rem 0 0.2rem 1rem; margin: 1rem 0; }
section.broken { border-color: #c62f2f; } section.odd { border-color: #e0a526; }
section.broken h2 { color: #c62f2f; } section h2 { margin: 0; font-size: 1rem; }
section ul { margin: 0.3rem 0; font-size: 0.85rem; overflow-wrap: anywhere; }
td { text-align: left; vertical-align: top; } td:first-child { white-space: nowrap; color: #5b6672; }
img.wide { max-width: 100%; } h3 { font-size: 1rem; margin: 1.4rem 0 0.4rem; } ul.lines { font-size: 0.85rem; }
"""


@dataclass
class Report:
    """What ``check`` says.

    Args:
        findings: What is broken, and what is worth a look.
        answers: Every question of the checklist and its answer.
        lines: What else data modules say, under headings.
        pictures: Pictures, under headings.
    """

    findings: list[Finding] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    pictures: dict[str, Image.Image] = field(default_factory=dict)

    def add(self, findings: list[Finding]) -> None:
        """Add findings, each once."""
        self.findings += [finding for finding in findings if finding not in self.findings]

    @property
    def broken(self) -> list[Finding]:
        """What must be mended."""
        return [finding for finding in self.findings if finding.broken]

    @property
    def odd(self) -> list[Finding]:
        """What is worth a look."""
        return [finding for finding in self.findings if not finding.broken]


def print_report(report: Report, page: Path) -> None:
    """Print what is broken, what is worth a look, and what is fine."""
    for finding in [*report.broken, *report.odd]:
        word, style = ("BROKEN", "bold red") if finding.broken else ("odd", "yellow")
        console.print(f"\n[{style}]{word:>10}[/{style}]  ", end="")
        console.print(finding.words, markup=False)
        for place in finding.places[:PRINTED]:
            console.print(f"{'':12}{place}", markup=False)
        if len(finding.places) > PRINTED:
            console.print(f"{'':12}and {len(finding.places) - PRINTED} more, all of them in {page}", markup=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for question, answer in report.answers.items():
        table.add_row(question, answer.replace("[", r"\["))
    console.print()
    console.print(table, soft_wrap=False)
    console.print(f"\n{verdict(report)}; samples and histograms are in {page}", markup=False)


def verdict(report: Report) -> str:
    """Return the end of the story in a line."""
    if not report.findings:
        return "nothing is broken, nothing is odd"
    broken, odd = len(report.broken), len(report.odd)
    return f"{broken or 'nothing'} {'things are' if broken > 1 else 'thing is' if broken else 'is'} broken, {odd} odd"


def write_page(report: Report, heading: dict[str, str], path: Path) -> None:
    """Write the report as a page that needs no other file.

    Args:
        report: The report.
        heading: What was looked at.
        path: Where to write.
    """
    title = html.escape(f"check: {heading['recipe']}")
    body = [f"<h1>{title}</h1>", f"<p>{html.escape(verdict(report))}</p>", rows(heading)]
    body += [section(finding) for finding in [*report.broken, *report.odd]]
    body += ["<h3>the checklist</h3>", rows(report.answers)]
    for caption, picture in report.pictures.items():
        body.append(f"<h3>{html.escape(caption)}</h3>{embedded(picture, caption)}")
    for caption, lines in report.lines.items():
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines[:LISTED])
        body.append(f'<h3>{html.escape(caption)}</h3><ul class="lines">{items}</ul>')
    page = f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{STYLE}{COLOURS}</style>'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page + "\n".join(body), encoding="utf-8")


def rows(pairs: dict[str, str]) -> str:
    """Return a table of two columns."""
    cells = (f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in pairs.items())
    return f"<table>{''.join(cells)}</table>"


def section(finding: Finding) -> str:
    """Return a finding with its places."""
    places = "".join(f"<li>{html.escape(place)}</li>" for place in finding.places[:LISTED])
    kind = "broken" if finding.broken else "odd"
    return f'<section class="{kind}"><h2>{kind}: {html.escape(finding.words)}</h2><ul>{places}</ul></section>'


def embedded(picture: Image.Image, caption: str) -> str:
    """Return a picture as part of a page."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode()
    return f'<img class="wide" alt="{html.escape(caption)}" src="data:image/png;base64,{content}">'

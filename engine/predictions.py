"""Predictions as files that a person can open, with a page to look through them."""

import csv
import html
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

THUMBNAIL = 480  # longer side in pixels of the pictures on the page

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1500px; padding: 0 1rem; color: #1b1f24; }
article { display: flex; flex-wrap: wrap; gap: 1rem; padding: 1rem 0; border-top: 1px solid #d8dde3; }
h2 { flex: 0 0 100%; font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
figure { margin: 0; }
img { display: block; max-width: min(100%, 480px); min-width: 120px; border-radius: 4px; }
figcaption, footer { color: #5b6672; font-size: 0.85rem; }
"""


def write_predictions(folder: Path, records: list[dict[str, Any]], heading: str) -> list[Path]:
    """Write what ``predict_step`` returned.

    Pictures become ``<name>_<key>.png``, everything else a column of ``predictions.csv``; ``index.html`` shows both. A
    picture called ``input`` is for the page alone.

    Args:
        folder: Where to write; earlier predictions in it are replaced.
        records: For every input its ``path``, and pictures or values under names of the task's choice.
        heading: First line of the page.

    Returns:
        The files written.
    """
    scratch = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "thumbnails").mkdir(parents=True)
    written: list[Path] = []
    rows, articles = [], []
    names = distinct_names([Path(record["path"]) for record in records])
    for record, name in zip(records, names, strict=True):
        source = Path(record["path"])
        row = {"path": str(source)}
        figures: list[str] = []
        for key, value in record.items():
            if key == "input" and isinstance(value, Image.Image):
                figures.insert(0, figure(scratch, f"{name}_input", "input", value))
            elif isinstance(value, Image.Image):
                file = f"{name}_{key}.png"
                value.save(scratch / file)
                written.append(folder / file)
                row[key] = file
                figures.append(figure(scratch, f"{name}_{key}", key, value, file))
            elif key != "path":
                row[key] = str(value)
                figures.append(f"<p>{html.escape(key)}: {html.escape(str(value))}</p>")
        rows.append(row)
        articles.append(f"<article><h2>{html.escape(str(source))}</h2>{''.join(figures)}</article>")
    with (scratch / "predictions.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    page = f'<!doctype html><meta charset="utf-8"><title>{html.escape(heading)}</title><style>{STYLE}</style>'
    (scratch / "index.html").write_text(f"{page}<h1>{html.escape(heading)}</h1>{''.join(articles)}", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    return [*written, folder / "predictions.csv", folder / "index.html"]


def figure(folder: Path, name: str, caption: str, picture: Image.Image, link: str = "") -> str:
    """Write a small copy of a picture and return the HTML that shows it."""
    small = picture.convert("RGB")
    if max(small.size) > THUMBNAIL:
        small.thumbnail((THUMBNAIL, THUMBNAIL))
    elif max(small.size) < THUMBNAIL // 2:
        factor = THUMBNAIL // 2 // max(small.size)  # tiny pictures are shown pixel by pixel
        small = small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST)
    small.save(folder / "thumbnails" / f"{name}.png")
    image = f'<img src="thumbnails/{quote(name)}.png" alt="{html.escape(caption)}" loading="lazy">'
    image = f'<a href="{quote(link)}">{image}</a>' if link else image
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def distinct_names(paths: list[Path]) -> list[str]:
    """Return the files' names without their endings, numbered where two files share one."""
    names: list[str] = []
    for path in paths:
        name, number = path.stem, 2
        while name in names:
            name, number = f"{path.stem}_{number}", number + 1
        names.append(name)
    return names

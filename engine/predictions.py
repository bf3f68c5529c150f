"""Predictions as files that a person can open, with a page to look through them."""

import csv
import html
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image

THUMBNAIL = 480  # longer side in pixels of the pictures on the page
COMPARED = 960  # the same of two that lie on each other
ROWS = 20  # of a table on the page

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1500px; padding: 0 1rem; color: #1b1f24; }
article { display: flex; flex-wrap: wrap; gap: 1rem; padding: 1rem 0; border-top: 1px solid #d8dde3; }
h2 { flex: 0 0 100%; font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
figure { margin: 0; }
table { border-collapse: collapse; font-size: 0.85rem; }
td, th { padding: 0.1rem 0.6rem; text-align: right; border-bottom: 1px solid #d8dde3; }
img { display: block; max-width: min(100%, 480px); min-width: 120px; border-radius: 4px; }
figcaption, footer { color: #5b6672; font-size: 0.85rem; }
p { white-space: pre-wrap; max-width: 60rem; margin: 0; }
.compare { position: relative; --at: 50%; }
.compare img { max-width: 100%; }
.compare img + img { position: absolute; top: 0; left: 0; clip-path: inset(0 0 0 var(--at)); }
.compare input { display: block; width: 100%; margin: 0.4rem 0 0; }
"""


class PredictionWriter(BasePredictionWriter):
    """Writes what ``predict_step`` returns, batch by batch: the predictions of a large folder fit into no memory.

    Pictures become ``<name>_<key>.png``, tables ``<name>_<key>.csv``, everything else a column of ``predictions.csv``;
    ``index.html`` shows all. A picture called ``input`` is for the page alone; if there is just one other, of the same
    shape, a slider uncovers the one or the other. Earlier predictions in the folder are replaced at the end.

    Args:
        folder: Where to write.
        heading: First line of the page.
    """

    def __init__(self, folder: Path, heading: str) -> None:
        super().__init__("batch")
        self.folder, self.heading = folder, heading
        self.scratch = folder.with_name(f".{folder.name}.part")
        self.names: set[str] = set()
        self.rows: list[dict[str, str]] = []
        self.articles: list[str] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        (self.scratch / "thumbnails").mkdir(parents=True)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        for record in prediction:
            self.add(record)

    def add(self, record: dict[str, Any]) -> None:
        """Write the files of one input."""
        source = Path(record["path"])
        name, number = source.stem, 2
        while name in self.names:  # of another folder, or with another ending
            name, number = f"{source.stem}_{number}", number + 1
        self.names.add(name)
        row, shown = {"path": str(source)}, []
        pictures = {key: value for key, value in record.items() if isinstance(value, Image.Image)}
        compared = len(pictures) == 2 and "input" in pictures and same_shape(*pictures.values())
        if compared:
            shown.append(slider(self.scratch, name, pictures))
        for key, value in record.items():
            if isinstance(value, Image.Image):
                file = f"{name}_{key}.png" if key != "input" else ""
                if not compared:
                    shown.append(figure(self.scratch, f"{name}_{key}", key, value, file))
                if file:
                    value.save(self.scratch / file)
                    row[key] = file
            elif isinstance(value, pd.DataFrame):
                row[key] = f"{name}_{key}.csv"
                value.to_csv(self.scratch / row[key], index=False)
                link = f'<a href="{quote(row[key])}">{html.escape(key)}, {len(value)} rows</a>'
                shown.append(f"<div>{link}{value.head(ROWS).to_html(index=False, border=0)}</div>")
            elif key != "path":
                row[key] = str(value)
                shown.append(f"<p>{html.escape(key)}: {html.escape(str(value))}</p>")
        self.rows.append(row)
        self.articles.append(f"<article><h2>{html.escape(str(source))}</h2>{''.join(shown)}</article>")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with (self.scratch / "predictions.csv").open("w", newline="", encoding="utf-8") as table:
            writer = csv.DictWriter(table, list(dict.fromkeys(key for row in self.rows for key in row)))
            writer.writeheader()
            writer.writerows(self.rows)
        title = html.escape(self.heading)
        page = f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>'
        (self.scratch / "index.html").write_text(page + "".join(self.articles), encoding="utf-8")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.scratch.rename(self.folder)


def same_shape(one: Image.Image, other: Image.Image) -> bool:
    """Tell whether two pictures have the same proportions, to a pixel of the smaller one."""
    small, large = sorted((one.size, other.size))
    scale = large[0] / small[0]
    return abs(large[1] - scale * small[1]) <= scale


def slider(folder: Path, name: str, pictures: dict[str, Image.Image]) -> str:
    """Write small copies of a picture before and after, and return the HTML that lays them on each other."""
    (_, before), (key, after) = sorted(pictures.items(), key=lambda item: item[0] != "input")
    scale = COMPARED / max(after.size)
    factor = min(scale, 1.0) if scale < 4 else int(scale / 2)  # tiny pictures are shown pixel by pixel
    size = (max(1, round(after.width * factor)), max(1, round(after.height * factor)))
    images = []
    for kind, picture in (("before", before), ("after", after)):
        tiny = factor > 1 and picture.size == after.size
        shown = picture.resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.BICUBIC).convert("RGBA")
        shown.save(folder / "thumbnails" / f"{name}_{kind}.png")
        images.append(f'<img src="thumbnails/{quote(f"{name}_{kind}")}.png" alt="{kind}" loading="lazy">')
    move = "this.parentNode.style.setProperty('--at', this.value + '%')"
    bar = f'<input type="range" value="50" aria-label="before or after" oninput="{move}">'
    link = f'<a href="{quote(f"{name}_{key}.png")}">{html.escape(key)}</a>'
    return f'<figure><div class="compare">{"".join(images)}{bar}</div><figcaption>input | {link}</figcaption></figure>'


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

"""The programs of ``docs/export.md``, which use an export without PyTorch, beside what ``predict`` answers."""

import contextlib
import csv
import io
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
from conftest import ROOT
from PIL import Image
from recipes import RECIPES

from datamodules.captcha_generator import Drawn
from datamodules.cldr import CLDRPhrasesDataModule

PROMPTS = ["The import statement", "in 3 weeks, (e.g. 7 kilometers) it wasn't _sure_: café €5?"]
LENGTH = 40  # tokens that a text goes on for


def programs() -> dict[str, str]:
    """Return the programs of the page by their names."""
    page = (ROOT / "docs" / "export.md").read_text("utf-8")
    return {code.split()[1]: code for code in re.findall(r"```python\n(# \w+\.py\n.*?)```", page, re.DOTALL)}


def program_of(recipe: str) -> str:
    """Return the name of the program that the page gives for a recipe."""
    page = (ROOT / "docs" / "export.md").read_text("utf-8")
    families = re.findall(r"\*\*[^*]+\*\* \(([\w, ]+)\).*?```python\n# (\w+\.py)\n", page, re.DOTALL)
    return next(program for names, program in families if recipe in names.split(", "))


def typed(folder: Path, program: str, *arguments: str) -> str:
    """Run a program of the page and return what it prints."""
    for name, code in programs().items():
        (folder / name).write_text(code, "utf-8")
    printed = io.StringIO()
    path = [str(folder), *sys.path]
    given = patch.object(sys, "argv", [program, *arguments]), patch.object(sys, "path", path)
    with given[0], given[1], contextlib.redirect_stdout(printed):
        runpy.run_path(str(folder / program))
    for helper in ("pictures", "tokens"):
        sys.modules.pop(helper, None)
    return printed.getvalue()


def compare(recipe: str, run: Path, tasklight: Callable, scratch: Path) -> None:
    """Assert that a program of the page, given a run's export, answers as ``predict`` does."""
    program, predictions = program_of(recipe), run / "predictions"
    greedy = {"continue.py": ["--model.temperature", "0", "--model.length", str(LENGTH)]}
    greedy["translate.py"] = ["--model.beam", "1"]
    prompts = {"generate.py": ["one", "two"], "guess.py": ["The [MASK] statement [MASK], isn't it?"]}
    if program == "translate.py":
        prompts[program] = [sentence for sentence, _ in CLDRPhrasesDataModule(num_train=24).pairs["train"][:3]]
    if program in ("continue.py", "classify_text.py", *prompts):
        inputs = prompts.get(program, PROMPTS)
        flags = ["--prompt", *inputs]
    else:
        write = training_captchas if program == "read.py" else RECIPES[recipe].inputs
        flags = ["--input", *write(scratch / "inputs")]
        inputs = sorted(map(str, (scratch / "inputs").iterdir()))
    code, _, err = tasklight("predict", "--ckpt_path", str(run), *flags, *greedy.get(program, []))
    assert code == 0, err
    with (predictions / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if "--input" in flags:
        rows.sort(key=lambda row: row["path"])
    for row, given in zip(rows, inputs, strict=True):
        ours = str(scratch / "ours.png")
        further = [ours] if program in ("segment.py", "restore.py", "generate.py") else []
        further += [str(LENGTH)] if program == "continue.py" else []
        said = typed(scratch, program, str(run / "export"), given, *further)
        if program in ("classify.py", "classify_text.py"):
            same_shares(said.rsplit(maxsplit=1), [row["class"], row["probability"]])
        elif program == "read.py":
            text, _, share = said.strip("\n").rpartition(" ")
            assert text  # else there would be nothing to compare
            same_shares([text, share], [row["text"], row["probability"]])
        elif program == "fill.py":
            columns = [name for name in ("prediction", "probability") if name in table(predictions, row)[0]]
            for line, theirs in zip(said.splitlines(), table(predictions, row), strict=True):
                same_shares(line.split(","), [theirs[name] for name in columns])
        elif program == "forecast.py":
            for line, theirs in zip(said.splitlines(), table(predictions, row), strict=True):
                same_shares([line], [theirs["forecast"]])
        elif program == "segment.py":
            assert (pixels_of(ours) == pixels_of(predictions / row["mask"])).mean() > 0.999
        elif further[:1] == [ours]:
            name = next(value for key, value in row.items() if key in ("denoised", "enlarged", "coloured", "generated"))
            one, other = pixels_of(ours), pixels_of(predictions / name)
            other = other.astype(int) if other.ndim == one.ndim else other[:, :, 0].astype(int)
            apart = np.abs(one - other)  # a rounding may fall to the other side
            assert apart.max() <= 1 and (apart > 0).mean() < 0.001
        else:
            assert len(set(said.removeprefix(given))) > 3
            assert said.removesuffix("\n") == row["translation" if program == "translate.py" else "text"]


def training_captchas(folder: Path) -> list[str]:
    """Write pictures that a net has learned by heart."""
    folder.mkdir()
    for number, (_, pixels) in enumerate(Drawn("train", 3, (48, 128))[i] for i in range(3)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return [str(folder)]


def table(predictions: Path, row: dict[str, str]) -> list[dict[str, str]]:
    """Return the table that a prediction has written."""
    with (predictions / (row.get("predictions") or row["forecast"])).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pixels_of(path: str | Path) -> np.ndarray:
    """Return a picture's pixels, or the numbers of its palette."""
    return np.asarray(Image.open(path)).astype(int)


def same_shares(ours: list[str], theirs: list[str]) -> None:
    """Assert that words are the same and numbers nearly so: relative to those above 1, and as they are printed."""
    for one, other in zip(ours, theirs, strict=True):
        try:
            assert abs(float(one) - float(other)) <= 1.01e-4 * max(1.0, abs(float(other)))
        except ValueError:
            assert one == other

"""What the parts of Python's standard library say about themselves, from the files that come with Python.

Its texts differ a little from one version of Python to the next (python.org, PSF licence).
"""

import ast
import sysconfig
from functools import cache
from pathlib import Path

from datamodules.text_classification import TextClassificationDataModule, Texts
from datamodules.tokenization import Kind

# Packages and modules with many docstrings, which every installation of Python has.
PLACES = {
    "asyncio": "asyncio",
    "decimal": "_pydecimal.py",
    "email": "email",
    "http": "http",
    "importlib": "importlib",
    "logging": "logging",
    "multiprocessing": "multiprocessing",
    "unittest": "unittest",
    "urllib": "urllib",
    "xml": "xml",
}
SHORTEST = 40  # characters: "See the base class." is of no package


class DocstringsDataModule(TextClassificationDataModule):
    """Docstrings of classes and functions; the class is the package of the standard library that has them.

    A docstring that several of them have is left out. Val and test have a tenth each, split by content.

    Args:
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens; of characters there are as many as there are.
        context: Most tokens of a text that are read, from its start.
        batch_size: Texts in a batch.
        num_train: Most texts to train on.
        tokenizer_from: Checkpoint or run folder whose tokens are used, rather than learning some.
    """

    def __init__(
        self,
        kind: Kind = "wordpiece",
        vocab_size: int = 2000,
        context: int = 64,
        batch_size: int = 32,
        num_train: int = 1_000_000,
        tokenizer_from: str | None = None,
    ) -> None:
        super().__init__(kind, vocab_size, context, batch_size, num_train, tokenizer_from)

    def load(self) -> Texts:
        owners: dict[str, set[str]] = {}
        for name, place in PLACES.items():
            for text in docstrings(Path(sysconfig.get_path("stdlib"), place)):
                owners.setdefault(text, set()).add(name)
        own = {text: names.pop() for text, names in owners.items() if len(names) == 1}
        return Texts(list(own), list(own.values()), ["train"] * len(own))


@cache
def docstrings(place: Path) -> list[str]:
    """Return the docstrings of the classes and functions in a file, or in all files below a folder, tests left out."""
    texts = []
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        if "test" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                if len(text) >= SHORTEST:
                    texts.append(text)
    return texts

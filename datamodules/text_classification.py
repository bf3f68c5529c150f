"""Texts of classes: the user's own tables, and what all such data have in common."""

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning import LightningDataModule
from tokenizers import Tokenizer
from torch.utils.data import DataLoader

from datamodules.batches import ordered, shuffled
from datamodules.csv_files import CSVFile
from datamodules.picture_store import PARTS, split_by_content
from datamodules.text_files import read_text
from datamodules.tokenization import Kind, kept_tokenizer, tokenizer_of
from datamodules.tokenized_texts import TokenizedTexts, UnlabelledTexts
from datamodules.user_files import find_files
from engine.errors import UserError, fault, note

CUT = 0.5  # share of the texts from which on it is told that they are cut off
MEASURED = 256  # texts in a batch of val and test
TABLES = ("*.csv", "*.tsv", "*.txt")


@dataclass
class Texts:
    """Texts with their classes.

    Args:
        texts: The texts.
        classes: Name of the class of each.
        parts: ``train``, ``val`` or ``test`` of each, as far as it is given; what is missing is split off by content.
        dropped: Places of rows that were left out, since they had no text or no class.
        places: Where each text is from, if it is from a file of the user's.
    """

    texts: list[str]
    classes: list[str]
    parts: list[str]
    dropped: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


class TextClassificationDataModule(LightningDataModule):
    """Batches of texts with their classes; a data set says where they come from.

    Args:
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens; of characters there are as many as there are.
        context: Most tokens of a text that are read, from its start.
        batch_size: Texts in a batch.
        num_train: Most texts to train on.
        tokenizer_from: Checkpoint or run folder whose tokens are used, rather than learning some.
    """

    column = "text"  # of the texts in tables

    def __init__(
        self, kind: Kind, vocab_size: int, context: int, batch_size: int, num_train: int, tokenizer_from: str | None
    ) -> None:
        super().__init__()
        self.kind, self.vocab_size, self.context, self.batch_size = kind, vocab_size, context, batch_size
        self.num_train, self.tokenizer_from = num_train, tokenizer_from
        self.restored: dict[str, Any] = {}  # from a checkpoint: prediction needs no training data

    def load(self) -> Texts:
        """Return all texts."""
        raise UserError(f"{type(self).__name__} does not say where its texts are")

    @cached_property
    def texts(self) -> Texts:
        """All texts, each in its part."""
        texts = self.load()
        hashes = [hash_of(text) for text in texts.texts]
        present = np.array(texts.classes)[:, None] == np.array(sorted(set(texts.classes)))
        parts = split_by_content(texts.parts, hashes, present)
        trained = sorted((row for row, part in enumerate(parts) if part == "train"), key=lambda row: hashes[row])
        for row in trained[self.num_train :]:
            parts[row] = "unused"
        return Texts(texts.texts, texts.classes, parts, texts.dropped, texts.places)

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return sorted(set(self.texts.classes))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def tokenizer(self) -> str:
        """The tokenizer, as JSON."""
        if self.restored:
            return self.restored["tokenizer"]
        if self.tokenizer_from:
            return tokenizer_of(self.tokenizer_from)
        return kept_tokenizer("\n".join(self.of_part("train")[0]), self.kind, self.vocab_size)

    def of_part(self, part: str) -> tuple[list[str], np.ndarray]:
        """Return the texts of a part, and their classes, int64 (N,)."""
        rows = [row for row, other in enumerate(self.texts.parts) if other == part]
        number = {name: label for label, name in enumerate(self.class_names)}
        labels = np.array([number[self.texts.classes[row]] for row in rows], np.int64)
        return [self.texts.texts[row] for row in rows], labels

    @cached_property
    def datasets(self) -> dict[str, TokenizedTexts]:
        """Every part as tokens."""
        tokenizer = Tokenizer.from_str(self.tokenizer)
        return {part: TokenizedTexts(*self.of_part(part), tokenizer, self.context) for part in PARTS}

    def prepare_data(self) -> None:
        if self.num_classes < 2:
            fault(f"there is one class only, {self.class_names[0]!r}; nothing is to be told apart")
        for part in PARTS:
            if part not in self.texts.parts:
                fault(f"{len(self.texts.texts)} text(s) leave none for {part}; at least three are needed")
        trained = set(self.of_part("train")[1].tolist())
        for label, name in enumerate(self.class_names):
            if label not in trained:
                both = zip(self.texts.places, self.texts.classes, strict=False)
                fault(f"the class {name!r} has no training texts", [place for place, other in both if other == name])

    def __str__(self) -> str:
        sizes = " / ".join(f"{self.texts.parts.count(part):,} {part}" for part in PARTS)
        count = Tokenizer.from_str(self.tokenizer).get_vocab_size()
        origin = f" of {self.tokenizer_from}" if self.tokenizer_from else f" ({self.kind})"
        cut = np.mean([len(tokens) == self.context for tokens in self.datasets["train"].tokens])
        dropped = f"; left out {len(self.texts.dropped):,} without text or class" if self.texts.dropped else ""
        return (
            f"{type(self).__name__}: {sizes} texts of {self.num_classes} classes, {count:,} tokens{origin}, "
            f"{self.context} of them read ({cut:.0%} of the texts are cut off there){dropped}"
        )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return shuffled(self.datasets["train"], self.batch_size)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("test")

    def in_order(self, part: str) -> DataLoader[dict[str, Any]]:
        """Return batches of a part in a fixed order."""
        return ordered(self.datasets[part], MEASURED, shared=part != "train")

    def names(self, part: str) -> list[str]:
        """Return file and line of every text of a part."""
        rows = [row for row, other in enumerate(self.texts.parts) if other == part]
        return [self.texts.places[row] if self.texts.places else f"{part} text {i}" for i, row in enumerate(rows)]

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` what was left out, is cut off, or has another class elsewhere; return some texts."""
        texts = self.texts
        if texts.dropped:
            note(f"{len(texts.dropped)} row(s) without a text or a class are left out", texts.dropped)
        cut = []
        for part in PARTS:
            dataset = self.datasets[part]
            both = zip(self.names(part), dataset.texts, dataset.tokens, strict=True)
            cut += [f"{name} ({len(text):,} characters)" for name, text, ids in both if len(ids) == self.context]
        count = sum(part in PARTS for part in texts.parts)
        if len(cut) > CUT * count:
            words = f"{len(cut):,} of {count:,} texts are longer than {self.context} tokens and are cut off there"
            note(f"{words}; a larger --data.context reads more", cut)
        classes: dict[str, set[str]] = {}
        for text, name in zip(texts.texts, texts.classes, strict=True):
            classes.setdefault(text, set()).add(name)
        torn = [f"{text[:60]!r}: {', '.join(sorted(names))}" for text, names in classes.items() if len(names) > 1]
        if torn:
            note(f"{len(torn)} text(s) come with different classes", torn)
        some = [f"{name}: {text[:90]}" for text, name in zip(texts.texts[:12], texts.classes, strict=False)]
        return {"some texts and their classes": some}

    def predict_dataset(self, paths: list[Path]) -> UnlabelledTexts:
        """Return the user's texts, each a ``.txt`` file or a row of a table, as a data set for ``predict_step``."""
        texts, tables, skipped = [], [], []
        for path in find_files(paths, *TABLES):
            try:
                if path.suffix == ".txt":
                    texts.append((str(path), read_text(path)))
                else:
                    table = read_table(path)
                    rows = pd.DataFrame(table.rows, columns=table.names, dtype=str)
                    tables.append((str(path), table.texts(self.column), rows.to_csv(index=False)))
            except UserError as error:
                skipped.append(str(error))
        return UnlabelledTexts(texts, tables, Tokenizer.from_str(self.tokenizer), self.context, skipped)

    def predict_prompts(self, prompts: list[str]) -> UnlabelledTexts:
        """Return texts that were typed as a data set for ``predict_step``."""
        texts = [(f"prompt {number}", prompt) for number, prompt in enumerate(prompts, start=1)]
        return UnlabelledTexts(texts, [], Tokenizer.from_str(self.tokenizer), self.context, [])

    def preparation(self) -> dict[str, Any]:
        how = "the first tokens of the text, at most context, filled up with the number behind the last token"
        return {"kind": self.kind, "how": how, "context": self.context}

    def state_dict(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict


class TextClassificationCSVDataModule(TextClassificationDataModule):
    """The user's own texts: a table in UTF-8 with a column of texts and one of classes, or a folder of them.

    The first line names the columns. Cells are separated by commas, semicolons, bars or tabs; in ``.csv`` files they
    may be in quotes, in others quotes are part of the text. In a folder, the names of the files end in ``train``,
    ``val`` and ``test``. A missing val or test part is split off the training part, a tenth each, by content: texts
    that differ in nothing but digits and punctuation stay on one side. Rows without a text or a class are left out.

    Args:
        root: The file or the folder.
        text: Name of the column of texts.
        label: Name of the column of classes.
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens; of characters there are as many as there are.
        context: Most tokens of a text that are read, from its start.
        batch_size: Texts in a batch.
        num_train: Most texts to train on.
        tokenizer_from: Checkpoint or run folder whose tokens are used, rather than learning some.
    """

    def __init__(
        self,
        root: str,
        text: str = "text",
        label: str = "label",
        kind: Kind = "wordpiece",
        vocab_size: int = 4096,
        context: int = 64,
        batch_size: int = 32,
        num_train: int = 1_000_000,
        tokenizer_from: str | None = None,
    ) -> None:
        super().__init__(kind, vocab_size, context, batch_size, num_train, tokenizer_from)
        self.root, self.column, self.label = Path(root), text, label

    def load(self) -> Texts:
        rows = []
        for part, path in self.files().items():
            table = read_table(path)
            both = zip(table.texts(self.column), table.texts(self.label), table.lines, strict=True)
            rows += [(text, label, part, f"{path}, line {line}") for text, label, line in both]
        kept = [row for row in rows if row[0] and row[1]]
        if not kept:
            raise UserError(f"{self.root} has no row with both a {self.column!r} and a {self.label!r}")
        texts, classes, parts, places = (list(values) for values in zip(*kept, strict=True))
        return Texts(texts, classes, parts, [place for *row, _, place in rows if not all(row)], places)

    def files(self) -> dict[str, Path]:
        """Return the file of every part that has one."""
        if not self.root.exists():
            raise UserError(f"{self.root} does not exist")
        if self.root.is_file():
            return {"train": self.root}
        files: dict[str, Path] = {}
        for path in find_files([self.root], *TABLES):
            for part in PARTS:
                if path.stem == part or path.stem.endswith(f"_{part}"):
                    if part in files:
                        raise UserError(f"{self.root} has two files for {part}: {files[part].name} and {path.name}")
                    files[part] = path
        if "train" not in files:
            raise UserError(f"{self.root} has no file whose name ends in 'train' ({', '.join(TABLES)})")
        return files


def read_table(path: Path) -> CSVFile:
    """Return a table with a header.

    Raises:
        UserError: It is not UTF-8, or empty, or a row has another number of cells than the header.
    """
    read_text(path)  # texts in the wrong letters would train without a word
    return CSVFile(path, quoted=path.suffix == ".csv")


def hash_of(text: str) -> str:
    """Return what texts have in common that differ in nothing but digits and punctuation."""
    letters = re.sub(r"[\W\d_]+", " ", text.casefold()).strip()
    return hashlib.sha256((letters or text).encode()).hexdigest()

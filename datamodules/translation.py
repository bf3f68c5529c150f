"""Texts in two languages, sentence by sentence: the user's own, and what all such data have in common."""

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningDataModule
from tokenizers import Tokenizer
from torch.utils.data import DataLoader

from datamodules.batches import ResumableLoader, batched, shuffled
from datamodules.picture_store import PARTS, split_by_content
from datamodules.sentence_pairs import BEGIN, END, SPECIAL, BucketedBatches, Pairs, SentencePairs, Sentences
from datamodules.text_files import TEXTS, read_text
from datamodules.tokenization import UNKNOWN, Kind, kept_tokenizer
from datamodules.user_files import find_files
from engine.errors import UserError, fault, note

UNTRANSLATED = 0.01  # share of the pairs up to which names and the like are taken to be the same in both languages
MEASURED = 4  # times as many tokens make a batch where no gradients are needed


class TranslationDataModule(LightningDataModule):
    """Batches of sentences and their translations; a data set says where they come from.

    Args:
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens of either language; of characters there are as many as there are.
        batch_tokens: Tokens of a batch, padding included, of the longer side.
        longest: Tokens of the longest sentence that is trained on; longer ones are left out of the training part.
    """

    def __init__(self, kind: Kind, vocab_size: int, batch_tokens: int, longest: int) -> None:
        super().__init__()
        self.kind, self.vocab_size, self.batch_tokens, self.longest = kind, vocab_size, batch_tokens, longest
        self.restored: dict[str, Any] = {}  # from a checkpoint: prediction needs no training data

    def load(self) -> dict[str, Pairs]:
        """Return the sentences of every part and their translations."""
        raise UserError(f"{type(self).__name__} does not say where its texts are")

    @cached_property
    def pairs(self) -> dict[str, Pairs]:
        """The sentences of every part and their translations."""
        return self.load()

    @property
    def source_tokenizer(self) -> str:
        """The tokenizer of the sentences, as JSON."""
        return self.tokenizers[0]

    @property
    def target_tokenizer(self) -> str:
        """The tokenizer of the translations, as JSON."""
        return self.tokenizers[1]

    @cached_property
    def tokenizers(self) -> list[str]:
        """The tokenizers of both languages, learnt from the training part."""
        if self.restored:
            return self.restored["tokenizers"]
        texts = ["\n".join(side) for side in zip(*self.pairs["train"], strict=True)]
        return [kept_tokenizer(text, self.kind, self.vocab_size, SPECIAL) for text in texts]

    @cached_property
    def parts(self) -> dict[str, SentencePairs]:
        """The parts as tokens, without what is too long to be trained on."""
        source, target = map(Tokenizer.from_str, self.tokenizers)
        longest = {"train": self.longest, "val": None, "test": None}
        return {part: SentencePairs(self.pairs[part], source, target, longest[part]) for part in PARTS}

    def prepare_data(self) -> None:
        for part in PARTS:
            if not self.parts[part].pairs:
                fault(f"the {part} part has no sentences of at most {self.longest} tokens (data.longest)")

    def __str__(self) -> str:
        sizes = " / ".join(f"{len(self.parts[part]):,} {part}" for part in PARTS)
        source, target = (Tokenizer.from_str(tokenizer).get_vocab_size() for tokenizer in self.tokenizers)
        left_out = len(self.pairs["train"]) - len(self.parts["train"])
        too_long = f", {left_out:,} longer than {self.longest} tokens left out" if left_out else ""
        return f"{type(self).__name__}: {sizes} pairs{too_long}, {source:,} and {target:,} tokens ({self.kind})"

    def train_dataloader(self) -> ResumableLoader:
        return shuffled(BucketedBatches(self.parts["train"], self.batch_tokens), batch_size=1)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("test")

    def in_order(self, part: str) -> DataLoader[dict[str, Any]]:
        """Return batches of a part in a fixed order."""
        return batched(self.parts[part], self.parts[part].bucketed(MEASURED * self.batch_tokens))

    def places(self, part: str) -> list[str]:
        """Return where every pair of a part is from, in the order of ``pairs``."""
        return [f"{part} pair {number}" for number in range(1, len(self.pairs[part]) + 1)]

    def names(self, part: str) -> list[str]:
        """Return where every pair of a part is from that is not too long."""
        kept = self.parts[part].kept
        places = self.places(part)
        return [places[row] for row in kept]

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` what is too long, unknown or not translated; return some pairs."""
        names = {part: self.places(part) for part in PARTS}
        kept = set(self.parts["train"].kept)
        long = [place for row, place in enumerate(names["train"]) if row not in kept]
        if long:
            words = f"{len(long)} training pair(s) are longer than {self.longest} tokens and are left out"
            note(f"{words}; a larger --data.longest keeps them", long)
        alike = [
            f"{place}: {sentence[:60]}"
            for part in PARTS
            for place, (sentence, other) in zip(names[part], self.pairs[part], strict=True)
            if sentence == other and any(map(str.isalpha, sentence))
        ]
        count = sum(map(len, self.pairs.values()))
        if len(alike) > UNTRANSLATED * count:
            note(f"{len(alike)} of {count:,} sentences are their own translations", alike)
        for side, tokenizer in enumerate(map(Tokenizer.from_str, self.tokenizers)):
            unknown = tokenizer.token_to_id(UNKNOWN)
            for part in ("val", "test"):
                tokens = (self.parts[part].sources, self.parts[part].targets)[side]
                strange = [name for name, ids in zip(self.names(part), tokens, strict=True) if unknown in ids.tolist()]
                if strange:
                    language = ("source", "target")[side]
                    words = f"{len(strange)} {part} pair(s) hold {language} characters or words that training lacks"
                    note(words, strange)
        return {"some pairs": [f"{sentence[:60]} = {other[:60]}" for sentence, other in self.pairs["train"][:12]]}

    def predict_dataset(self, paths: list[Path]) -> Sentences:
        """Return the lines of the user's text files, and of those below folders."""
        sentences, skipped = [], []
        for path in find_files(paths, TEXTS):
            try:
                lines = read_text(path).splitlines()
            except UserError as error:
                skipped.append(str(error))
                continue
            sentences += [(f"{path}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
        return Sentences(sentences, Tokenizer.from_str(self.source_tokenizer), skipped)

    def predict_prompts(self, prompts: list[str]) -> Sentences:
        """Return sentences that were typed."""
        sentences = [(f"prompt {number}", prompt) for number, prompt in enumerate(prompts, start=1)]
        return Sentences(sentences, Tokenizer.from_str(self.source_tokenizer), [])

    def preparation(self) -> dict[str, Any]:
        return {"kind": self.kind, "how": f"the tokens of a sentence and {END}; a translation begins with {BEGIN}"}

    def state_dict(self) -> dict[str, Any]:
        return {"tokenizers": self.tokenizers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict


class ParallelTextDataModule(TranslationDataModule):
    """The user's own sentences and their translations, in UTF-8.

    Either tab-separated files (``.tsv``), two columns of which are a sentence and its translation, without a heading:
    one file, or a folder of them, in which ``train.tsv``, ``val.tsv`` and ``test.tsv`` are the parts. Or a folder of
    files that correspond line by line, such as ``train.en`` and ``train.ko``, ``val.en`` and so on. Missing val and
    test parts are split off the training part, a tenth each; sentences that differ in nothing but digits and capitals
    are on one side.

    Args:
        root: The file or folder.
        source: Ending of the files with sentences, such as ``en``.
        target: Ending of the files with their translations, such as ``ko``.
        columns: Numbers of the columns with sentences and with translations, from 1 on.
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens of either language; of characters there are as many as there are.
        batch_tokens: Tokens of a batch, padding included, of the longer side.
        longest: Tokens of the longest sentence that is trained on; longer ones are left out of the training part.
    """

    def __init__(
        self,
        root: str,
        source: str = "",
        target: str = "",
        columns: tuple[int, int] = (1, 2),
        kind: Kind = "bpe",
        vocab_size: int = 4096,
        batch_tokens: int = 2048,
        longest: int = 256,
    ) -> None:
        super().__init__(kind, vocab_size, batch_tokens, longest)
        self.root, self.source, self.target, self.columns = Path(root), source, target, columns

    def load(self) -> dict[str, Pairs]:
        if not self.root.exists():
            raise UserError(f"{self.root} does not exist")
        if self.source and self.target:
            files = {part: [self.root / f"{part}.{end}" for end in (self.source, self.target)] for part in PARTS}
            pairs = {part: read_aligned(*both) for part, both in files.items() if all(path.exists() for path in both)}
            if "train" not in pairs:
                raise UserError(f"{self.root} has no train.{self.source} and train.{self.target}")
            return split_off(pairs)
        pairs = {}
        for path in self._tables():
            part = path.stem if path.stem in PARTS else "train"
            pairs[part] = pairs.get(part, []) + read_tsv(path, self.columns)
        if "train" not in pairs:
            there = f"{self.root} holds no .tsv with sentences"
            raise UserError(f"{there}: name the endings of aligned files by data.source and data.target")
        return split_off(pairs)

    def places(self, part: str) -> list[str]:
        given = {path.stem for path in self._tables()} & set(PARTS)
        given |= {other for other in PARTS if (self.root / f"{other}.{self.source}").is_file()}
        origin = part if part in given else "train"
        lines: dict[tuple[str, str], str] = {}  # where a pair comes first
        for path in self._tables():
            if (path.stem if path.stem in PARTS else "train") == origin:
                for number, line in enumerate(path.read_text("utf-8-sig", errors="replace").split("\n"), start=1):
                    cells = [cell.strip() for cell in line.split("\t")]
                    if len(cells) >= max(self.columns):
                        pair = (cells[self.columns[0] - 1], cells[self.columns[1] - 1])
                        lines.setdefault(pair, f"{path}, line {number}")
        if self.source and self.target:
            files = [self.root / f"{origin}.{end}" for end in (self.source, self.target)]
            sides = [path.read_text("utf-8-sig", errors="replace").split("\n") for path in files]
            for number, (one, other) in enumerate(zip(*sides, strict=False), start=1):
                lines.setdefault((one.strip(), other.strip()), f"{files[0]}, line {number}")
        return [lines.get(pair, name) for pair, name in zip(self.pairs[part], super().places(part), strict=True)]

    def _tables(self) -> list[Path]:
        """Return the tab-separated files, none where files are aligned."""
        if self.source and self.target:
            return []
        return [self.root] if self.root.is_file() else sorted(self.root.rglob("*.tsv"))


def read_tsv(path: Path, columns: tuple[int, int]) -> Pairs:
    """Return two columns of a tab-separated file.

    Raises:
        UserError: It is not UTF-8, empty, or a line has too few columns or nothing in one of the two.
    """
    pairs, bad = [], []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) < max(columns):
            bad += [f"{path}, line {number}"] if line.strip() else []
        elif all(cells[column - 1] for column in columns):
            pairs.append((cells[columns[0] - 1], cells[columns[1] - 1]))
        else:
            bad.append(f"{path}, line {number}")
    if bad:
        fault(f"no text in the columns {columns[0]} and {columns[1]}, between tabs", bad)
    return pairs


def read_aligned(source: Path, target: Path) -> Pairs:
    """Return the lines of two files that correspond; pairs with an empty side are left out.

    Raises:
        UserError: One is not UTF-8 or empty, or they have not equally many lines.
    """
    sentences, others = (read_text(path).removesuffix("\n").split("\n") for path in (source, target))
    if len(sentences) != len(others):
        fault(f"{source} has {len(sentences):,} lines and {target} has {len(others):,}")
    both = [(sentence.strip(), other.strip()) for sentence, other in zip(sentences, others, strict=False)]
    empty = [f"line {number}" for number, pair in enumerate(both, start=1) if not all(pair)]
    if empty:
        note(f"{len(empty)} line(s) of {source} or {target} are empty and are left out", empty)
    return [pair for pair in both if all(pair)]


def split_off(pairs: dict[str, Pairs]) -> dict[str, Pairs]:
    """Split missing val and test parts off the training part; sentences that are nearly the same are on one side."""
    train = pairs["train"]
    alike = [hashlib.sha256(re.sub(r"\d+", "0", sentence).casefold().encode()).hexdigest() for sentence, _ in train]
    named = [*(["train"] * len(train)), *(part for part in pairs if part != "train")]
    hashes = [*alike, *([""] * (len(named) - len(train)))]
    parts = split_by_content(named, hashes, np.zeros((len(named), 0)))
    new: dict[str, Pairs] = {part: list(pairs.get(part, [])) for part in PARTS} | {"train": []}
    for pair, part in zip(train, parts, strict=False):
        new[part].append(pair)
    return new

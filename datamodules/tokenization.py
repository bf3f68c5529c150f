"""Tokens: texts as numbers, by tokenizers that are learnt from the training part and travel with the checkpoint."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Encoding, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from engine.cache import cached
from engine.checkpoints import read_best
from engine.errors import UserError

Kind = Literal["characters", "words", "bpe", "wordpiece"]

UNKNOWN = "[UNK]"  # what training texts do not have


def kept_tokenizer(text: str, kind: Kind, vocab_size: int, special: Sequence[str] = (UNKNOWN,)) -> str:
    """Return a tokenizer of a text as JSON; it is kept, since it takes seconds to be learnt."""

    def build(folder: Path) -> None:
        learn_tokenizer(text, kind, vocab_size, special).save(str(folder / "tokenizer.json"))

    digest = hashlib.sha256(text.encode()).hexdigest()
    key = {"format": 2, "text": digest, "kind": kind, "vocab_size": vocab_size, "special": list(special)}
    return (cached("tokenizer", key, build) / "tokenizer.json").read_text("utf-8")


def tokenizer_of(source: str) -> str:
    """Return the tokenizer, as JSON, of a checkpoint, or of a run folder, of which the best checkpoint is meant.

    Raises:
        UserError: There is no such checkpoint, or it is not of texts.
    """
    facts = read_best(source, "data.tokenizer_from")["hyper_parameters"]
    if "tokenizer" not in facts:
        raise UserError(f"data.tokenizer_from: {source} is not of texts")
    return facts["tokenizer"]


def learn_tokenizer(text: str, kind: Kind, vocab_size: int, special: Sequence[str] = (UNKNOWN,)) -> Tokenizer:
    """Return a tokenizer of a text.

    Args:
        text: The training part.
        kind: ``characters``; ``words`` with the space before them; byte-pair encoding of bytes, which knows every text
            (``bpe``, https://arxiv.org/abs/1508.07909); or ``wordpiece`` (https://arxiv.org/abs/1810.04805), which
            keeps no spaces beside punctuation.
        vocab_size: Largest number of different tokens; of characters there are as many as there are.
        special: The tokens with the first numbers, which stand for no text; the unknown is among them.
    """
    first = list(special)
    if kind == "characters":
        numbers = {character: number for number, character in enumerate([*first, *sorted(set(text))])}
        tokenizer = Tokenizer(models.WordLevel(numbers, UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    elif kind == "words":
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[^\s]+|\s"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        words = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
        tokenizer.train_from_iterator([text], words)
    elif kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        pairs = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=first, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator([text], pairs)
    else:
        learned = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        learned.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        # The trainer would number the letters within words in an order that is another every time, and break ties by
        # these numbers (https://github.com/huggingface/tokenizers/issues/1794); so it is given them, in their order.
        within = {letter for word, _ in learned.pre_tokenizer.pre_tokenize_str(text) for letter in word[1:]}
        known = [*first, *(f"##{letter}" for letter in sorted(within))]
        pieces = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=known, show_progress=False)
        learned.train_from_iterator([text], pieces)
        tokenizer = Tokenizer(models.WordPiece(learned.get_vocab(), unk_token=UNKNOWN))
        tokenizer.pre_tokenizer, tokenizer.decoder = learned.pre_tokenizer, decoders.WordPiece()
        tokenizer.add_special_tokens(first)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens of a text, int64 (N,), and how many of its characters each stands for, (N,); their sum is all.

    Characters between two tokens, such as spaces that a tokenizer leaves out, count for the second.
    """
    encoding: Encoding = tokenizer.encode(text, add_special_tokens=False)
    ends = np.array([end for _, end in encoding.offsets], np.int64)
    return np.array(encoding.ids, np.int64), np.diff(ends, prepend=0)

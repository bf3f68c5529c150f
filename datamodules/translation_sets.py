"""Translations by which nets are compared in the literature, downloaded at the first use."""

from pathlib import Path
from typing import Literal

from datamodules.sentence_pairs import Pairs
from datamodules.text_sets import fetch
from datamodules.tokenization import Kind
from datamodules.translation import TranslationDataModule, read_aligned, read_tsv, split_off

# Captions of pictures in three languages (Elliott et al. 2016; research use). Of every file its SHA-256.
MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/"
CAPTIONS = {
    "train.de": ("train.de.gz", "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6"),
    "train.en": ("train.en.gz", "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f"),
    "train.fr": ("train.fr.gz", "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c"),
    "val.de": ("val.de.gz", "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a"),
    "val.en": ("val.en.gz", "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28"),
    "val.fr": ("val.fr.gz", "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9"),
    "test2016.de": ("test_2016_flickr.de.gz", "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8"),
    "test2016.en": ("test_2016_flickr.en.gz", "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9"),
    "test2016.fr": ("test_2016_flickr.fr.gz", "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90"),
}
# English sentences of tatoeba.org and their Korean translations (CC BY 2.0 FR).
TATOEBA = (
    "https://raw.githubusercontent.com/nate-koser/kor-eng-translator/75021833d3443273567daf7f09372472e48f9843/kor.txt",
    "3988edfd32c892ccf4450772bc3a5906ebfcf3c8648f56012df204ddf27b8280",
)


class Multi30kDataModule(TranslationDataModule):
    """29,000 captions of pictures in English, German and French; test2016 is the test part, as in the literature.

    Args:
        root: Folder to download to, or in which ``multi30k/`` holds the files already, such as ``train.en``.
        source: Language of the sentences.
        target: Language of their translations.
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens of either language; of characters there are as many as there are.
        batch_tokens: Tokens of a batch, padding included, of the longer side.
        longest: Tokens of the longest sentence that is trained on; longer ones are left out of the training part.
    """

    def __init__(
        self,
        root: str = "data",
        source: Literal["en", "de", "fr"] = "en",
        target: Literal["en", "de", "fr"] = "de",
        kind: Kind = "bpe",
        vocab_size: int = 6000,
        batch_tokens: int = 2048,
        longest: int = 256,
    ) -> None:
        super().__init__(kind, vocab_size, batch_tokens, longest)
        self.root, self.languages = Path(root), (source, target)

    def load(self) -> dict[str, Pairs]:
        folder, pairs = self.root / "multi30k", {}
        for part, name in (("train", "train"), ("val", "val"), ("test", "test2016")):
            files = {f"{name}.{language}": CAPTIONS[f"{name}.{language}"] for language in self.languages}
            both = [fetch(folder, file, f"{MULTI30K}{packed}", digest) for file, (packed, digest) in files.items()]
            pairs[part] = read_aligned(*both)
        return pairs


class TatoebaDataModule(TranslationDataModule):
    """3,798 English sentences of tatoeba.org and their Korean translations; a tenth is for val, one for test.

    Args:
        root: Folder to download to, or in which ``tatoeba/kor.txt`` is already.
        columns: Numbers of the columns with sentences and with translations: 1 is English, 2 is Korean.
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens of either language; of characters there are as many as there are.
        batch_tokens: Tokens of a batch, padding included, of the longer side.
        longest: Tokens of the longest sentence that is trained on; longer ones are left out of the training part.
    """

    def __init__(
        self,
        root: str = "data",
        columns: tuple[int, int] = (1, 2),
        kind: Kind = "bpe",
        vocab_size: int = 2000,
        batch_tokens: int = 1024,
        longest: int = 256,
    ) -> None:
        super().__init__(kind, vocab_size, batch_tokens, longest)
        self.root, self.columns = Path(root), columns

    def load(self) -> dict[str, Pairs]:
        return split_off({"train": read_tsv(fetch(self.root / "tatoeba", "kor.txt", *TATOEBA), self.columns)})

"""Phrases in English and Korean, written by the Unicode Common Locale Data Repository (CLDR, Unicode licence).

Dates, times, spans, quantities, amounts of money, and lists of them: word order really changes, and there is one right
translation.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Literal

from babel import Locale, dates, lists, numbers, units

from datamodules.sentence_pairs import Pairs
from datamodules.tokenization import Kind
from datamodules.translation import TranslationDataModule
from engine.cache import cached

DRAWN = 30_000  # phrases, before doubles are left out
HELD_OUT = 20  # one in so many phrases is for val, one for test
CURRENCIES = ("USD", "KRW", "EUR", "JPY", "GBP", "CNY", "CHF", "AUD", "CAD", "INR", "THB", "VND", "SEK", "MXN", "BRL")


@dataclass(frozen=True)
class Values:
    """What a phrase is about.

    Args:
        moment: A day and a time.
        span: Time until another one.
        amounts: Numbers.
        units: CLDR's names of their units.
        currency: Code of a currency.
    """

    moment: datetime
    span: timedelta
    amounts: tuple[float, ...]
    units: tuple[str, ...]
    currency: str


Writer = Callable[[Values, str], str]  # from values and a language to the phrase


def by_pattern(pattern: str) -> Writer:
    """Return how a moment is written by one of CLDR's patterns."""
    return lambda values, language: dates.format_skeleton(pattern, values.moment, locale=language)


def from_to(pattern: str) -> Writer:
    """Return how the time from one moment to another is written."""

    def write(values: Values, language: str) -> str:
        return dates.format_interval(values.moment, values.moment + values.span, pattern, locale=language)

    return write


def distance(values: Values, language: str) -> str:
    """Write how long ago or ahead something is."""
    ahead = values.span if values.moment.second % 2 else -values.span
    return dates.format_timedelta(ahead, threshold=99, add_direction=True, locale=language)


def quantities(count: int, kind: Literal["standard", "or"] = "standard") -> Writer:
    """Return how quantities are written: one, or a list of several."""

    def write(values: Values, language: str) -> str:
        several = zip(values.amounts[:count], values.units, strict=False)
        each = [units.format_unit(amount, unit, "long", locale=language).strip() for amount, unit in several]
        return lists.format_list(each, kind, language)

    return write


def months(values: Values, language: str) -> str:
    """Write a list of months."""
    names = dates.get_month_names("wide", locale=language)
    chosen = sorted({1 + int(amount) % 12 for amount in values.amounts})
    return lists.format_list([names[month] for month in chosen], "or", language)


# As many phrases are drawn of each.
WRITERS: tuple[Writer, ...] = (
    lambda values, language: dates.format_date(values.moment, "full", locale=language),
    lambda values, language: dates.format_date(values.moment, "long", locale=language),
    *map(by_pattern, ("yMMMEd", "MMMMd", "yMMMM", "yQQQQ", "yw", "MMMMW", "EBhm", "Bhms", "Hms")),
    *map(from_to, ("yMMMd", "MMMEd", "Hm")),
    distance,
    quantities(1),
    quantities(1),
    quantities(2, "or"),
    quantities(3),
    months,
    lambda values, language: numbers.format_currency(
        int(values.amounts[0]), values.currency, locale=language, format_type="name"
    ),
)


class CLDRPhrasesDataModule(TranslationDataModule):
    """English phrases and their Korean translations; what is unseen in val and test is the phrase, not its words.

    Args:
        kind: Kind of the tokens: ``characters``, ``words``, ``bpe`` or ``wordpiece``.
        vocab_size: Largest number of different tokens of either language; of characters there are as many as there are.
        batch_tokens: Tokens of a batch, padding included, of the longer side.
        longest: Tokens of the longest phrase that is trained on; longer ones are left out of the training part.
        num_train: Phrases to train on, from the start.
    """

    def __init__(
        self,
        kind: Kind = "characters",
        vocab_size: int = 4096,
        batch_tokens: int = 1024,
        longest: int = 256,
        num_train: int = DRAWN,
    ) -> None:
        super().__init__(kind, vocab_size, batch_tokens, longest)
        self.num_train = num_train

    def load(self) -> dict[str, Pairs]:
        key = {"format": 1, "babel": version("babel"), "drawn": DRAWN, "held_out": HELD_OUT}
        path = cached("cldr_phrases", key, write_phrases) / "phrases.json"
        parts = {part: [(one, other) for one, other in pairs] for part, pairs in json.loads(path.read_text()).items()}
        return parts | {"train": parts["train"][: self.num_train]}


def write_phrases(folder: Path) -> None:
    """Draw phrases and write those of every part to a folder."""
    draw = Random(0)
    known = [name for name in sorted(Locale("en").unit_display_names) if has_name(name)]
    translations: dict[str, set[str]] = {}
    for number in range(DRAWN):
        values = drawn(draw, known)
        english, korean = (WRITERS[number % len(WRITERS)](values, language).strip() for language in ("en", "ko"))
        translations.setdefault(english, set()).add(korean)
    parts: dict[str, Pairs] = {"train": [], "val": [], "test": []}
    for english, found in translations.items():
        korean, *others = found
        if not others:  # "May 22" is long and short in English, and has two translations
            place = int(hashlib.sha256(english.encode()).hexdigest(), 16) % HELD_OUT
            parts[{0: "val", 1: "test"}.get(place, "train")].append((english, korean))
    (folder / "phrases.json").write_text(json.dumps(parts))


def drawn(draw: Random, known: list[str]) -> Values:
    """Draw what a phrase is about, with units among those that are known."""
    moment = datetime(1950, 1, 1) + timedelta(seconds=draw.randrange(100 * 365 * 86_400))
    step = draw.choice((timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=30)))
    amounts = tuple(
        draw.choice((draw.randrange(1, 100), draw.randrange(1, 10_000), draw.randrange(1, 1000) / 10)) for _ in range(3)
    )
    return Values(moment, draw.randrange(1, 30) * step, amounts, tuple(draw.sample(known, 3)), draw.choice(CURRENCIES))


def has_name(unit: str) -> bool:
    """Tell whether Korean has a name for a unit; where it has none, CLDR writes its own name of it."""
    if unit.startswith("duration"):
        return False
    try:
        return not units.format_unit(1, unit, "long", locale="ko").isascii()
    except units.UnknownUnitError:
        return False

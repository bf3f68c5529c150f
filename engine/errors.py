"""What a user is meant to read: the one kind of error, and what ``check`` has to say about data besides.

What is wrong with data is told by ``fault``. It ends a training with one line; ``check`` keeps it and lets the reading
go on without what is faulty, so that it finds everything at once. What a training can live with is told by ``note``:
the first lines of a training name it as far as reading the data has shown it, ``check`` looks for more.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


class UserError(Exception):
    """Something that the user can mend; the command prints the message, one sentence, and exits with 2.

    Args:
        words: What is wrong, and what to do.
        places: Every file, line or sample that it is about; the message names the first.
    """

    def __init__(self, words: str, places: Sequence[str] = ()) -> None:
        super().__init__(f"{words}: {some(list(places))}" if places else words)
        self.words, self.places = words, list(places)


@dataclass
class Finding:
    """What ``check`` has found.

    Args:
        broken: Whether it must be mended; else it is worth a look.
        words: What it is, and what to do.
        places: Every file, line or sample that it is about.
    """

    broken: bool
    words: str
    places: list[str] = field(default_factory=list)


_found: ContextVar[list[Finding] | None] = ContextVar("found", default=None)
_raising: ContextVar[bool] = ContextVar("raising", default=True)


@contextmanager
def gathering(faults: bool = True) -> Iterator[list[Finding]]:
    """Keep what ``note`` tells, each thing once, in the list that this gives.

    Args:
        faults: Whether to keep what ``fault`` tells, too, rather than to raise it.
    """
    found: list[Finding] = []
    tokens = _found.set(found), _raising.set(not faults)
    try:
        yield found
    finally:
        _found.reset(tokens[0])
        _raising.reset(tokens[1])


def fault(words: str, places: Sequence[str] = ()) -> None:
    """Raise a UserError; while ``check`` gathers faults, keep it and return.

    What comes behind must get on without what is faulty.
    """
    if _raising.get():
        raise UserError(words, places)
    note(words, places, broken=True)


def note(words: str, places: Sequence[str] = (), broken: bool = False) -> None:
    """Keep what a training gets on with, but a person should know; does nothing unless findings are gathered.

    Args:
        words: What it is, and what to do.
        places: Every file, line or sample that it is about.
        broken: Whether it should be mended all the same, such as a file that cannot be read.
    """
    found, finding = _found.get(), Finding(broken, words, list(places))
    if found is not None and finding not in found:
        found.append(finding)


def some(names: list[str], most: int = 3) -> str:
    """Join the first names for an error message: ``a.png, b.png, c.png and 7 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

"""Text as it stands in files, which must be UTF-8."""

from pathlib import Path

from datamodules.user_files import find_files
from engine.errors import UserError, fault

TEXTS = "**/*.txt"  # of a folder


def read_texts(place: Path) -> str:
    """Return the text of a file, or of all files below a folder, one behind the other.

    Raises:
        UserError: There is no text, or it is not UTF-8.
    """
    found = find_files([place], TEXTS)
    empty = [path for path in found if not path.stat().st_size]
    if empty and len(found) > 1:
        fault(f"{len(empty)} file(s) are empty", list(map(str, empty)))
        found = [path for path in found if path not in empty]
    text = "\n".join(map(read_text, found))
    if not text.strip():
        raise UserError(f"{place} holds no text (.txt)")
    return text


def read_text(path: Path) -> str:
    """Return the text of a file, its lines ending in one character each.

    Raises:
        UserError: It is not UTF-8, or empty; ``check`` gets what can be read of it.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        lines = [number for number, line in enumerate(content.split(b"\n"), start=1) if not is_utf8(line)]
        fault(f"{path} is not UTF-8: byte {error.start}, in line {lines[0]}", [f"{path}:{line}" for line in lines[1:]])
        text = content.decode("utf-8-sig", errors="replace")
    if not text:
        raise UserError(f"{path} is empty")
    return text.replace("\r\n", "\n")


def is_utf8(content: bytes) -> bool:
    """Tell whether bytes are text in UTF-8."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True

"""The user's files: those that are named, and those in the folders that are."""

from pathlib import Path

from engine.errors import UserError


def find_files(paths: list[Path], *patterns: str) -> list[Path]:
    """Return the files among the paths, and those in the folders among them that fit a pattern, sorted.

    Args:
        paths: Files and folders.
        patterns: Such as ``*.csv``, or ``**/*.txt`` for all folders below as well.

    Raises:
        UserError: There is no such file or folder.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist")
        found += sorted(file for pattern in patterns for file in path.glob(pattern)) if path.is_dir() else [path]
    return found

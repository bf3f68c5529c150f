"""The one kind of error that a user is meant to read."""


class UserError(Exception):
    """Something that the user can mend; the command prints the message, one sentence, and exits with 2."""


def some(names: list[str], most: int = 3) -> str:
    """Join the first names for an error message: ``a.png, b.png, c.png and 7 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

"""Errors and messages that are meant for people. Errors are shown without a traceback."""

import sys


class UserError(Exception):
    """A mistake that the user can correct. The message says what was wrong, where, and what to do."""


class ImageError(UserError, ValueError):
    """An image cannot be used. The message names it and says why."""


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun: "1 image", "1,200 images". The plural has an s unless it is given."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def say(line: str) -> None:
    """Print a message on standard error."""
    print(line, file=sys.stderr)

"""Errors and messages that are meant for people. Errors are shown without a traceback."""

import sys


class UserError(Exception):
    """A mistake that the user can correct. The message says what was wrong, where, and what to do."""


class ImageError(UserError, ValueError):
    """An image cannot be used. The message names it and says why."""


def say(line: str) -> None:
    """Print a message on standard error."""
    print(line, file=sys.stderr)

"""The errors that are meant for people. They are shown without a traceback."""


class UserError(Exception):
    """A mistake that the user can correct. The message says what was wrong, where, and what to do."""


class ImageError(UserError, ValueError):
    """An image cannot be used. The message names it and says why."""

"""The one error that is meant for people."""


class UserError(Exception):
    """Something the user can put right: says what was wrong, where, and what to do. Shown without a traceback."""

"""Attributes of an instance as one text, ``"pose=left; truncated=1"``, as `Dataset` has them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

UNNAMED = "attributes"
"""Name for attributes that have none."""


def join_attributes(attributes: Mapping[str, object]) -> str:
    """Return names and values as a text that `split_attributes` takes apart again."""
    if list(attributes) == [UNNAMED]:
        return str(attributes[UNNAMED])
    return "; ".join(f"{_quoted(name, ';=%')}={_quoted(str(value), ';%')}" for name, value in attributes.items())


def split_attributes(text: str) -> dict[str, str]:
    """Return the values by name. A text of another form, such as numbers of attributes, is one value, `UNNAMED`."""
    pairs = [part.partition("=") for part in text.split("; ")] if text else []
    if not all(name and equals for name, equals, _ in pairs):
        return {UNNAMED: text}
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _quoted(text: str, special: str) -> str:
    return "".join(f"%{ord(c):02X}" if c in special else c for c in text)

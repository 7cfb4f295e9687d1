"""XML files of annotations, read piece by piece, and what may not stand in them.

A file of a stranger could define entities that grow to gigabytes or that name other files. defusedxml refuses both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape, quoteattr

from maskrcnn.errors import UserError

HEAD = 65_536
"""Bytes of a file that tell its format."""

ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot hold."""


def head_of(path: Path) -> tuple[str, str]:
    """Return the name of a file's root element, "" if it is not XML, and the first characters of the file."""
    try:
        with open(path, "rb") as file:
            text = file.read(HEAD).replace(b"\0", b"").decode("utf-8", "replace")
    except OSError:
        return "", ""
    root = re.search(r"<([A-Za-z_][\w.-]*)", text) if text.lstrip("\ufeff\ufffd \t\r\n").startswith("<") else None
    return (root[1], text) if root else ("", text)


def children(path: Path) -> Iterator[Element]:
    """Yield each child of the root when it is complete, then forget it. Raise `UserError`."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    depth = 0
    root = None
    try:
        for event, element in iterparse(str(path), events=("start", "end")):
            if event == "start":
                root = element if root is None else root
                depth += 1
                continue
            depth -= 1
            if depth == 1:
                yield element
                assert root is not None
                root.clear()
    except DefusedXmlException:
        raise UserError(
            f"{path} defines entities, which can hide other files or gigabytes of text. No program for annotations "
            "writes them: remove the <!DOCTYPE ...> if you trust the file"
        ) from None
    except ParseError as error:
        raise UserError(f"{path} is not valid XML: {error}") from None
    except (LookupError, ValueError) as error:  # an unknown encoding, or one of several bytes
        raise UserError(f"{path} cannot be read as XML: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def tag(name: str, /, **attributes: object) -> str:
    """Return an opening tag. Characters that XML cannot hold become U+FFFD."""
    words = [f" {key}={quoteattr(ILLEGAL.sub(chr(0xFFFD), str(value)))}" for key, value in attributes.items()]
    return f"<{name}{''.join(words)}>"


def element(name: str, text: object = "", /, **attributes: object) -> str:
    """Return an element with text. Characters that XML cannot hold become U+FFFD."""
    return f"{tag(name, **attributes)}{escape(ILLEGAL.sub(chr(0xFFFD), str(text)))}</{name}>"

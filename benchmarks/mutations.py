"""Mutations of valid files, for `fuzz.py` and its test: JSON, XML, tables, lists of words, bytes, and what JSON packs.

content, suffix -> one or several changes of its structure or of its bytes -> content
"""

from __future__ import annotations

import base64
import copy
import json
import random
import re
import zlib
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

NAMES = [
    "",
    ".",
    "..",
    "../secret.png",
    "../../../../etc/passwd",
    "/etc/passwd",
    "/",
    "\\\\server\\share\\a.png",
    "C:\\x.png",
    "C:x.png",
    "file:///etc/passwd",
    "http://[::1/a.png",
    "s3://",
    "data:image/png;base64,AAAA",
    "a\0b.png",
    "\0",
    "a" * 5000 + ".png",
    "a/" * 2000 + "b.png",
    "\ud800.png",
    "\udcff",
    "\U0010ffff",
    "a\u0301.png",
    "\u202ea.png",
    "a\nb.png",
    "%00.png",
    "%2e%2e%2fsecret.png",
    "%",
    "CON",
    "~/a.png",
    "-rf",
    "${HOME}",
]
"""Names that lead out of a folder, or that some system cannot hold."""

NUMBERS = [
    0,
    -0.0,
    -1,
    1,
    3,
    0.5,
    1e-320,
    127,
    255,
    256,
    65535,
    2**31 - 1,
    2**31,
    -(2**31) - 1,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63),
    2**64,
    10**30,
    1e9,
    1e18,
    1e300,
    -1e300,
    float("nan"),
    float("inf"),
    float("-inf"),
]

DEEP, HUGE, LONG = "@deep@", "@huge@", "@long@"
TEXT_OF_MARK = {DEEP: "[" * 50_000 + "]" * 50_000, HUGE: "1e999", LONG: "9" * 5000}
"""JSON that `json.dumps` cannot write, by the text that stands for it."""

VALUES: list[Any] = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    [{}],
    [[[1, 2], [3, 4]]],
    [0] * 7,
    [0.5] * 8,
    {"counts": "", "size": [0, 0]},
    {"counts": [2**62, 2**62, 2**62, 2**62], "size": [2**31, 2**31]},
    {"a": {"b": {}}},
    "1",
    "NaN",
    "-1",
    "1e999",
    DEEP,
    HUGE,
    LONG,
]

XML_PARTS = [
    '<!DOCTYPE a [<!ENTITY b "c">]>',
    '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE a SYSTEM "http://localhost/a.dtd">',
    '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;">]>&d;',
    "&b;",
    "&#0;",
    "&#xD800;",
    "<![CDATA[",
    "<!--",
    "<?xml version='1.0' encoding='utf-7'?>",
    "<a>" * 20_000,
    "</image>",
    "<image/>",
    "<a b='" + "c" * 5000 + "'/>",
]

YAML_PARTS = [
    "&a [*a]",
    "*a",
    "!!python/object/apply:os.system [true]",
    "!!binary AAAA",
    "{a: b}",
    "[a, [b, [c]]]",
    "[" * 3000,
    "<<: *a",
    "? [a]",
    "- - - -",
    "|\n  a",
    "a: &x [1, 1]\nb: &y [*x, *x]\nc: &z [*y, *y]\nd: [*z, *z]",
]

MAGIC = [
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\x00\x00",
    b"\xff\xff",
    b"\x7f\xff",
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xff" * 8,
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    b"\x89PNG\r\n\x1a\n",
    b"II*\x00",
    b"MM\x00*",
    b"\xff\xd8\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"GIF89a",
    b"<svg",
]
"""Numbers at the edges of their types, and first bytes of files."""

CELLS = ["", "-1", "NaN", "null", "[]", "[[1,2,3,4,5,6]]", "{}", '"', '""', "1 1 1", "1 0", "0 1", "5 3 1 1", "\t", ";"]
CELLS += [
    "1e999",
    "9" * 5000,
    "1 " * 5000,
    "(" * 5000,
    "-" * 5000,
    '{"counts": "\\ud800", "size": [40, 56]}',
    "\0",
    "\ufeff",
]
CELLS += ['{"counts": [1, [2]], "size": [40, 56]}', "{'counts': 1e999}", "1_3", "[1, 2, 1e999, 4, 5, 6]", "nan nan"]
ENCODINGS = ["utf-16", "utf-16-le", "utf-32", "cp1252", "utf-8-sig", "utf-7"]

MAX_DEEPER = 0.75
"""Probability to go one level deeper into a document."""


class Mutator:
    """Draws mutations from `rng`: the same state gives the same mutations."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        by_words = [self.words, self.words, self.words, self.raw]
        self.ways: dict[str, list[Callable[[bytes], bytes]]] = {
            ".json": [self.json, self.json, self.json, self.json, self.json, self.words, self.raw],
            ".xml": [self.xml, self.xml, self.xml, self.xml, self.words, self.raw],
            ".csv": [self.table, self.table, self.table, self.table, self.raw],
            ".txt": by_words,
            ".yaml": [self.yaml, *by_words],
        }

    def mutated(self, content: bytes, suffix: str) -> bytes:
        """Return the content of a file with one change or some more."""
        for _ in range(self.rng.choice((1, 1, 1, 2, 5))):
            content = self.rng.choice(self.ways.get(suffix, [self.raw]))(content)
        return content

    # ---- bytes ----------------------------------------------------------------------------------------------------

    def raw(self, content: bytes) -> bytes:
        """Flip, cut, insert, repeat or overwrite bytes, of which the first are the header."""
        rng = self.rng
        data = bytearray(content)
        span = len(data) if rng.random() < 0.5 else min(len(data), 64)
        at = rng.randrange(span + 1)
        way = rng.randrange(7)
        if way == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif way == 1:
            del data[at:]
        elif way == 2:
            data[at:at] = rng.choice(MAGIC)
        elif way == 3:
            magic = rng.choice(MAGIC)
            data[at : at + len(magic)] = magic
        elif way == 4:
            del data[at : at + rng.choice((1, 2, 4, 100))]
        elif way == 5:
            data[at:at] = data[at : at + rng.choice((1, 8, 100, 1000))] * rng.choice((1, 1, 50))
        else:
            data[at : at + 4] = rng.randbytes(4)
        return bytes(data)

    # ---- texts ----------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """Return a hostile text."""
        rng = self.rng
        return str(rng.choice(rng.choice((NAMES, NUMBERS, CELLS))))

    def words(self, content: bytes) -> bytes:
        """Replace, drop or repeat a word or a line."""
        rng = self.rng
        separator = rng.choice((None, "\n"))
        text = content.decode("utf-8", "replace")
        pieces = re.split(r"(\s+|[,:\"])", text) if separator is None else text.split("\n")
        at = rng.randrange(len(pieces))
        pieces[at : at + 1] = rng.choice(([], [pieces[at]] * 2, [self.text()], [self.text()], [pieces[at][::-1]]))
        return (separator or "").join(pieces).encode("utf-8", "surrogatepass")

    def yaml(self, content: bytes) -> bytes:
        """Put anchors, tags or lists in place of a value or a line."""
        lines = content.decode("utf-8", "replace").split("\n")
        at = self.rng.randrange(len(lines))
        key = lines[at].partition(":")[0]
        part = self.rng.choice(YAML_PARTS)
        lines[at] = self.rng.choice((f"{key}: {part}", part, f"{lines[at]}\n{part}", f"{part}\n{key}: {self.text()}"))
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    def table(self, content: bytes) -> bytes:
        """Change a cell, a row, the separators, the quotes or the encoding."""
        rng = self.rng
        text = content.decode("utf-8", "replace")
        way = rng.randrange(10)
        if way == 0:
            return text.replace(",", rng.choice(";\t|:\0"), rng.choice((1, -1))).encode()
        if way == 1:
            return text.encode(rng.choice(ENCODINGS), "replace")
        rows = text.split("\n")
        at = rng.randrange(len(rows)) if rng.random() < 0.7 else 0
        if way == 2:
            rows[at : at + 1] = rng.choice(([], [rows[at]] * 3, ["\0" * 9], [rows[at][: len(rows[at]) // 2]]))
        else:
            cells = rows[at].split(",")
            k = rng.randrange(len(cells))
            cells[k : k + 1] = rng.choice(([], [cells[k]] * 2, *[[self.text()]] * 4))
            rows[at] = ",".join(cells)
        return "\n".join(rows).encode("utf-8", "surrogatepass")

    def xml(self, content: bytes) -> bytes:
        """Change a value, or drop, repeat or insert a part."""
        rng = self.rng
        text = content.decode("utf-8", "replace")
        pattern = rng.choice((r'"([^"]*)"', r">([^<]+)<", r"<([^\s<>]+)[^<>]*>", r"(<[^<>]*>)"))
        places = [match.span(1) for match in re.finditer(pattern, text)]
        start, end = rng.choice(places) if places else (0, 0)
        part = text[start:end]
        new = rng.choice(("", part * 2, self.text(), self.text(), rng.choice(XML_PARTS), part[::-1]))
        at = rng.choice((start, start, start, text.find("?>") + 2))
        end = end if at == start else at
        changed = text[:at] + new + text[end:]
        return changed.encode("utf-16" if rng.random() < 0.03 else "utf-8", "replace")

    # ---- JSON -----------------------------------------------------------------------------------------------------

    def json(self, content: bytes) -> bytes:
        """Change a value at any depth."""
        try:
            document = [json.loads(content)]
        except (ValueError, RecursionError):
            return self.raw(content)
        self._change(document)
        text = json.dumps(document[0] if document else None)
        for mark, value in TEXT_OF_MARK.items():
            if mark in text:
                text = text.replace(f'"{mark}"', value)
        return text.encode()

    def value(self) -> Any:
        """Return a hostile value."""
        return copy.deepcopy(self.rng.choice(self.rng.choice((NAMES, NUMBERS, VALUES))))

    def _change(self, parent: list[Any]) -> None:
        """Change one value below `parent`."""
        rng = self.rng
        container: Any = parent
        key: Any = 0
        while isinstance(container[key], list | dict) and container[key] and rng.random() < MAX_DEEPER:
            container = container[key]
            key = rng.choice(list(container)) if isinstance(container, dict) else rng.randrange(len(container))
        value = container[key]
        way = rng.randrange(10)
        if way == 0:
            del container[key]
        elif way == 1 and isinstance(container, list):
            container[key:key] = [copy.deepcopy(value)] * rng.choice((1, 1, 200))
        elif way == 1:
            container[rng.choice((f"{key}2", "", *NAMES))] = copy.deepcopy(value)
        elif way == 2:
            container[key] = rng.choice(([value], {"a": value}, str(value), [value] * 3, {str(key): value}))
        elif way < 6 and isinstance(value, str):
            container[key] = self._changed_text(value)
        elif way < 6 and isinstance(value, int | float):
            container[key] = rng.choice(
                (value + 1, value - 1, -value, value * 10**9, value * 2**40, value * 0.37 if abs(value) < 1e300 else 0)
            )
        elif way < 6 and isinstance(value, list) and len(value) > 1:
            rng.choice((rng.shuffle, list.reverse, list.pop))(value)
        else:
            container[key] = self.value()

    def _changed_text(self, text: str) -> str:
        """Change a text, or what it packs: base64 of a picture, or of zlib of one."""
        rng = self.rng
        if len(text) > 40 and rng.random() < 0.8:
            head, comma, data = text.rpartition(",")
            try:
                content = base64.b64decode(data, validate=True)
            except ValueError:
                return self.raw(text.encode("utf-8", "replace")).decode("utf-8", "replace")
            return head + comma + base64.b64encode(self.packed(content)).decode()
        return rng.choice((self.text(), text[::-1], text * 2, text + "\0", text.upper(), f"../{text}"))

    def packed(self, content: bytes) -> bytes:
        """Change bytes, or what zlib has made of them."""
        try:
            unpacked = zlib.decompress(content)
        except zlib.error:
            return self.raw(content)
        if self.rng.random() < 0.2:
            return self.raw(content)
        if self.rng.random() < 0.05:
            return zlib.compress(b"\0" * 10**7)
        return zlib.compress(self.raw(unpacked), 1)

    # ---- folders --------------------------------------------------------------------------------------------------

    def file_name(self, name: str) -> str:
        """Return another name of a file, which a file system can hold."""
        stem, suffix = PurePath(name).stem, PurePath(name).suffix
        names = (
            f"{stem}_1{suffix}",
            suffix,
            f"{stem}{suffix}{suffix}",
            f"{stem}.json",
            f"{stem}\n{suffix}",
            "a\\..\\b.png",
        )
        return self.rng.choice(
            (*names, stem, f"{stem}.tif", "data.yaml", "meta.json", f"{stem[::-1]}{suffix}", "\udcff.png")
        )

"""Find a network's tensors in whatever a training script saved: nested dictionaries, any prefix, averaged copies.

content -> mappings at any depth -> keys that end in a telltale -> the tensors of one prefix, without it
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maskrcnn.errors import UserError

AVERAGED = re.compile(r"(?<![a-z])(ema|swa|avg|averaged?|averages|shadow|teacher)(?![a-z])|averaged?_?model", re.I)
"""Words in the key or prefix of weights that are averaged copies of others."""


@dataclass(frozen=True)
class Located:
    """A network's tensors by name, the program that they come from, and the keys beside them in the file."""

    source: str
    tensors: dict[str, Any]
    beside: list[str]


@dataclass(frozen=True)
class _Place:
    """A mapping at `path` whose keys that start with `prefix` are the tensors of a network of `source`."""

    source: str
    path: tuple[str, ...]
    prefix: str
    mapping: Mapping[str, Any]

    def __str__(self) -> str:
        return ".".join((*self.path, f"{self.prefix}*"))


def locate(content: Mapping[str, Any], telltales: Mapping[str, str]) -> Located | None:
    """Return the tensors of the network in `content`; None if no key ends in one of `telltales`, by source.

    Of a network and its averaged copy, the network is taken. Raise `UserError` for several networks otherwise.
    """
    places = sorted(_places(content, telltales), key=str)
    chosen = [place for place in places if not AVERAGED.search(str(place))] or places
    if len(chosen) > 1:
        raise UserError(
            f"the checkpoint holds {len(chosen)} networks: {', '.join(map(str, chosen))}. Save one of them alone, for "
            f"example {{k: v for k, v in {_subscripted(chosen[0].path)}.items() if k.startswith({chosen[0].prefix!r})}}"
        )
    if not chosen:
        return None
    (place,) = chosen
    # The prefix of one network may begin that of another: "" and "ema.".
    others = tuple(p.prefix for p in places if p.mapping is place.mapping and len(p.prefix) > len(place.prefix))
    keys = [key for key in place.mapping if isinstance(key, str)]
    names = [key for key in keys if key.startswith(place.prefix) and not key.startswith(others)]
    tensors = {name.removeprefix(place.prefix): place.mapping[name] for name in names}
    return Located(place.source, tensors, sorted(set(keys) - set(names)))


def _places(content: Mapping[Any, Any], telltales: Mapping[str, str]) -> Iterator[_Place]:
    """Yield every network in nested mappings. A mapping that occurs twice is searched once."""
    visited: set[int] = set()
    waiting: list[tuple[Mapping[Any, Any], tuple[str, ...]]] = [(content, ())]
    while waiting:
        mapping, path = waiting.pop()
        if id(mapping) in visited:
            continue
        visited.add(id(mapping))
        for key, value in mapping.items():
            if isinstance(value, Mapping):
                waiting.append((value, (*path, str(key))))
            for source, telltale in telltales.items():
                prefix = str(key).removesuffix(telltale)
                if prefix != key and (not prefix or prefix[-1] in "./"):
                    yield _Place(source, path, prefix, mapping)


def _subscripted(path: tuple[str, ...]) -> str:
    return "checkpoint" + "".join(f"[{key!r}]" for key in path)

"""Who set what: preset, file, user, initial model and plan are merged here, and every value keeps its origin.

preset < file < user          `Settings.build`
       + initial model        fills in model settings that are still open
       + plan                 fills in what the data decides (`training/plan.py`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from maskrcnn.config import PRESETS, Config, merged, read_yaml, set_values
from maskrcnn.errors import UserError

SET_BY = "set_by"
"""Key of ``config.yaml`` that lists the settings of each origin."""


class Origin(StrEnum):
    """Who set a value. A default has no origin."""

    PRESET = "preset"
    FILE = "file"
    USER = "user"
    MODEL = "model"
    PLAN = "plan"


CARRIED_OVER = (Origin.PRESET, Origin.FILE, Origin.USER)
"""Values of an earlier run's ``config.yaml`` that a new run keeps. The new model and data decide the others again."""


@dataclass(frozen=True)
class Settings:
    """A configuration and the origin of each value that is not a default, by its name: ``origins["train.lr"]``.

    `notes` are sentences for people about how the settings came together.
    """

    config: Config
    origins: Mapping[str, Origin] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def build(cls, preset: str | None = None, file: str | Path | None = None, user: Config | None = None) -> Settings:
        """A preset, changed by a YAML file, changed by the values that were given to `user`. Raises `UserError`.

        Without a preset, the defaults stay open.
        """
        settings = cls(Config())
        if preset is not None:
            if preset not in PRESETS:
                raise UserError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
            settings = settings.updated(PRESETS[preset], Origin.PRESET)
        if file is not None:
            values, note = _from_file(file)
            settings = settings.updated(values, Origin.FILE, f"configuration file {file}")
            settings = cls(settings.config, settings.origins, (note,) if note else ())
        return settings.updated(set_values(user), Origin.USER) if user is not None else settings

    @classmethod
    def of(cls, config: Config) -> Settings:
        """The values that the caller gave to `config` count as set by the user."""
        return cls(config, dict.fromkeys(_names(set_values(config)), Origin.USER))

    def is_open(self, *names: str) -> bool:
        """Whether all of these settings, such as "train.lr", still have their defaults."""
        return not any(name in self.origins for name in names)

    def updated(self, values: Mapping[str, Any], origin: Origin, source: str = "configuration") -> Settings:
        """Replace settings, given by group; `source` names them in the error of a wrong key or value."""
        config = Config.parse(merged(set_values(self.config), values), source)
        return Settings(config, {**self.origins, **dict.fromkeys(_names(values), origin)}, self.notes)

    def filled_in(self, values: Mapping[str, Mapping[str, Any]], origin: Origin) -> Settings:
        """`updated`, for open settings only."""
        return self.updated(_chosen(values, self.is_open), origin)

    def to_yaml(self) -> str:
        """All settings, one group after the other, and under `SET_BY` the names that each origin set."""
        set_by: dict[str, list[str]] = {}
        for name, origin in self.origins.items():
            set_by.setdefault(str(origin), []).append(name)
        return self.config.to_yaml() + yaml.safe_dump({SET_BY: set_by}, sort_keys=False, width=100)


def _names(values: Mapping[str, Any]) -> list[str]:
    """Names of the values of a nested mapping, as in "group.name"."""
    return [f"{group}.{name}" for group, entries in values.items() if isinstance(entries, Mapping) for name in entries]


def _chosen(values: Mapping[str, Any], is_chosen: Callable[[str], bool]) -> dict[str, Any]:
    """The values of a nested mapping whose names, "group.name", are chosen. A group that is no mapping is kept."""
    return {
        group: {name: value for name, value in entries.items() if is_chosen(f"{group}.{name}")}
        if isinstance(entries, Mapping)
        else entries
        for group, entries in values.items()
    }


def _from_file(file: str | Path) -> tuple[dict[str, Any], str | None]:
    """The values of a file that a new run takes over, and a sentence if it does not take all of them."""
    values = read_yaml(file)
    set_by = values.pop(SET_BY, None)
    if set_by is None:
        if set(_names(values)) >= set(_names(Config().model_dump())):
            return values, f"{file} sets every setting, so none is chosen from the data; delete lines to change that"
        return values, None
    if not isinstance(set_by, dict) or not all(isinstance(names, list) for names in set_by.values()):
        raise UserError(f"{file}: {SET_BY} must list the settings of each origin, as in {SET_BY}: {{user: [train.lr]}}")
    kept = {str(name) for origin in CARRIED_OVER for name in set_by.get(origin, ())}
    values = _chosen(values, kept.__contains__)
    names = ", ".join(_names(values)) or "none"
    return values, f"{file}: settings that were set on purpose are kept ({names}); the others are chosen again"

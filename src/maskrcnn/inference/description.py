"""What describes a model beside its weights: in the header of a model file and in ``model.json`` of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, model_validator

from maskrcnn.config import Config, validated
from maskrcnn.detection.conventions import Conventions
from maskrcnn.reading import BY_ITSELF, Reading


@dataclass(frozen=True, kw_only=True)
class Description:
    """Settings, conventions, classes and origin of a model, and how it reads pictures.

    Label j has the id ``class_ids[j - 1]``.
    """

    config: Config
    conventions: Conventions
    class_ids: list[Any]
    class_names: list[str]
    provenance: dict[str, Any]
    reading: Reading = BY_ITSELF

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "config": self.config.model_dump(mode="json"),
            "conventions": self.conventions.to_dict(),
            "class_ids": self.class_ids,
            "class_names": self.class_names,
            "provenance": self.provenance,
            "reading": self.reading.to_dict(),
        }

    @classmethod
    def parse(cls, values: Any, source: str) -> Description:
        """The inverse of `to_dict`. Raises `UserError` that names `source` and the missing or wrong entry."""
        read = validated(_Values, values, source)
        return cls(
            config=Config.parse(read.config, f"{source}, config"),
            conventions=Conventions.from_dict(read.conventions, f"{source}, conventions"),
            class_ids=read.class_ids,
            class_names=read.class_names,
            provenance=read.provenance,
            reading=validated(Reading, read.reading, f"{source}, reading"),
        )


class _Values(BaseModel):
    config: dict[str, Any]
    conventions: dict[str, Any]
    class_ids: list[int | str]
    class_names: list[str]
    provenance: dict[str, Any]
    reading: dict[str, Any] = {}  # the first files of version 0.1 have none

    @model_validator(mode="after")
    def _one_name_for_each_id(self) -> Self:
        if not self.class_ids or len(self.class_ids) != len(self.class_names):
            raise ValueError(f"there are {len(self.class_ids)} class_ids and {len(self.class_names)} class_names")
        return self

"""A figure of matplotlib that shows itself in a notebook. Neither pyplot nor a backend is loaded or changed."""

from __future__ import annotations

import io

import matplotlib.figure
from matplotlib.font_manager import FontProperties

from maskrcnn.fonts import system_font

SCREEN_DPI, SHARPNESS = 72, 2
"""Pixels of the screen an inch, and pixels of the stored picture for each of them, for fine screens."""


class Figure(matplotlib.figure.Figure):
    """Jupyter shows a plain `Figure` only once pyplot is imported; this one brings its picture along."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=SCREEN_DPI * SHARPNESS, layout="constrained")

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        width, height = (round(inches * SCREEN_DPI) for inches in self.get_size_inches())
        return buffer.getvalue(), {"width": width, "height": height}


def font_of(name: str) -> FontProperties:
    """Return a font that has the letters of `name`."""
    path = system_font(name)
    return FontProperties(fname=path) if path is not None else FontProperties()

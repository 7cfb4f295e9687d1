"""OpenVINO and NNCF report their use over the network at import, and from a forked process."""

from __future__ import annotations

import sys


def refuse_telemetry() -> None:
    """Make them find their telemetry package missing, so that they stay silent.

    Call this before they are first imported. A program that imported them earlier keeps its own choice.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

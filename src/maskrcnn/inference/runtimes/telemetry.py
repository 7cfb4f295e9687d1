"""OpenVINO and NNCF report their use over the network at import, and from a forked process."""

from __future__ import annotations

import sys


def refuse_telemetry() -> None:
    """Hide their telemetry package. Call this before their first import: an earlier import keeps its choice."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

"""The commands that documents hold."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TINY = shlex.split(
    "--backbone test_resnet --weights none --image-size 64 --channels 16 --box-channels 32 --mask-channels 16 "
    "--epochs 1 --epoch-images 2 --lr 1e-6 --score-threshold 0 --detections 3"
)
"""A network and a training of seconds. A few larger steps may leave masks without a pixel, and nothing to submit."""


def commands_in(text: str) -> list[str]:
    """Return the commands of fenced blocks and of inline code, without ``maskrcnn``, comments and other programs."""
    lines = []
    for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
        lines += block.replace("\\\n", " ").splitlines()
    lines += re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    commands = []
    for line in lines:
        for part in re.split(r"&&|\|", " ".join(line.split())):
            match = re.match(r"\s*(?:maskrcnn|python -m maskrcnn|torchrun .*-m maskrcnn)\s+([^=(].*)", part)
            if match:
                commands.append(" ".join(shlex.join(shlex.split(match[1], comments=True)).split()))
    return commands

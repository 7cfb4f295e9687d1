"""The document of the doctor lists what the table of kinds says."""

from pathlib import Path

from maskrcnn.data.problem import KINDS

DOCUMENT = Path(__file__).parents[3] / "docs" / "doctor.md"


def test_every_kind_stands_in_the_document():
    lines = DOCUMENT.read_text("utf-8").splitlines()
    for kind, about in KINDS.items():
        assert f"| {kind} | {about.severity} | {about.meaning} {about.harm} | {about.repair or ''} |" in lines

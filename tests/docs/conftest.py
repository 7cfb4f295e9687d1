"""What the commands of the documents find: data, pictures, a tiny trained run, a model file and bundles."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import maskrcnn
from docs.documents import ROOT, TINY
from maskrcnn.cli import main
from maskrcnn.data.synthetic import write_shapes


@pytest.fixture(scope="module")
def tools() -> Iterator[None]:
    """Let the programs in ``tools/`` be imported."""
    folder = str(ROOT / "tools")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make each file and folder that the commands name, once. Tests work on copies."""
    folder = tmp_path_factory.mktemp("documents")
    csv = write_shapes(folder, 6, seed=5, hw=(64, 64))
    with pytest.raises(SystemExit) as caught:
        main(["train", str(csv), "--val", "0.3", "--out", str(folder / "runs" / "mine"), *TINY])
    assert not caught.value.code
    data = maskrcnn.open_dataset(csv, say=lambda _: None)
    maskrcnn.export(maskrcnn.load(folder / "runs" / "mine"), folder / "bundle")
    for name in ("small", "exact"):
        shutil.copytree(folder / "bundle", folder / name)
    for name in ("model.safetensors", "mine.safetensors"):
        shutil.copy(folder / "runs" / "mine" / "last.safetensors", folder / name)
    for name in ("annotations.csv", "other.csv"):
        shutil.copy(csv, folder / name)
    shutil.copytree(folder / "images", folder / "photos")
    Image.open(data.files[0]).save(folder / "cells.png")
    for name in ("new_images", "test"):
        (folder / name).mkdir()
        Image.open(data.files[0]).save(folder / name / "a.png")
    (folder / "sample_submission.csv").write_text("ImageId,EncodedPixels,ClassId\na.png,,\n")
    (folder / "val.txt").write_text(f"{data.names[0]}\n{data.names[1]}\n")
    return folder

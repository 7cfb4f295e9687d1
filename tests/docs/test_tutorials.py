"""The tutorials: each page's commands and snippets run in their order, on made-up files of the reader."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import HTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import h5py
import numpy as np
import pytest
from PIL import Image

import maskrcnn
from docs.documents import ROOT, TINY, commands_in
from maskrcnn.cli import main
from maskrcnn.data.synthetic import write_shapes
from parity.recipe import make_weights

PAGES = {path.name: path for path in sorted((ROOT / "docs" / "tutorials").glob("*.md"))}

BLOCK = re.compile(r"```(bash|python)\n(.*?)```", re.DOTALL)
"""A fenced block that runs. Blocks without a language show files."""

PART_NAMES = ["bolt", "nut", "washer", "screw"]


def blocks_of(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall(PAGES[page].read_text("utf-8"))


def kaggle_files(folder: Path) -> None:
    """What a competition gives: train.csv, pictures, and a sample that names the pictures of the test."""
    csv = write_shapes(folder, 6, seed=11, hw=(64, 64))
    (folder / "images").rename(folder / "train")
    names = maskrcnn.open_dataset(csv, images=folder / "train", say=lambda _: None).names
    (folder / "test").mkdir()
    for name in names[:2]:
        Image.open(folder / "train" / name).save(folder / "test" / f"new_{name}")
    ids = "".join(f"new_{name},,\n" for name in names[:2])
    (folder / "sample_submission.csv").write_text(f"ImageId,EncodedPixels,ClassId\n{ids}")


def microscope_files(folder: Path) -> None:
    """16-bit TIFFs of round cells, and their label pictures."""
    rng = np.random.default_rng(13)
    rows, columns = np.mgrid[:96, :80]
    for place in ("scans", "cells/images", "cells/masks"):
        (folder / place).mkdir(parents=True)
    for k in range(4):
        labels = np.zeros(rows.shape, np.uint16)
        for number, (row, column) in enumerate([(20, 20), (24, 58), (70, 36)], 1):
            radius = rng.uniform(8, 13)
            labels[np.hypot(rows - row, columns - column) <= radius] = number
        picture = (rng.normal(300, 20, labels.shape) + 2500 * (labels > 0)).astype(np.uint16)
        Image.fromarray(labels).save(folder / "cells" / "masks" / f"c{k}.tif")
        Image.fromarray(picture).save(folder / "cells" / "images" / f"c{k}.tif")
    Image.fromarray(picture).save(folder / "scans" / "new.tif")


def trained_files(folder: Path, made: Path) -> None:
    """A tiny run with its data."""
    for name in ("images", "photos", "runs", "small"):
        shutil.copytree(made / name, folder / name)
    for name in ("train.csv", "val.txt"):
        shutil.copy(made / name, folder / name)
    shutil.copy(next((folder / "photos").iterdir()), folder / "photos" / "a.png")
    name = (folder / "val.txt").read_text().split()[0]
    (folder / "images" / name).rename(folder / "images" / "picture.png")
    for file in ("train.csv", "val.txt"):
        (folder / file).write_text((folder / file).read_text().replace(name, "picture.png"))


def labelled_files(folder: Path) -> None:
    write_shapes(folder, 8, seed=17, hw=(64, 64))


def write_parts(folder: Path, seed: int) -> maskrcnn.Dataset:
    """Write pictures to `folder` and return them with masks of some classes of the imported models."""
    csv = write_shapes(folder, 3, seed=seed, hw=(64, 64))
    data = maskrcnn.open_dataset(csv, say=lambda _: None)
    n_classes = len(data.class_names)
    return replace(data, class_names=PART_NAMES[:n_classes], class_ids=list(range(1, n_classes + 1)))


def one_photo(folder: Path, source: Path) -> None:
    (folder / "photos").mkdir(exist_ok=True)
    shutil.copy(source, folder / "photos" / "a.png")


def matterport_files(folder: Path, shared: Path) -> None:
    """A checkpoint of Matterport's layout, and the folders of its balloon sample with VIA's JSON."""
    fixtures = shared / "fixtures" / "matterport"
    with h5py.File(folder / "mask_rcnn_mine.h5", "w") as file:
        for key, value in make_weights(fixtures, "weights_resnet50.json", "resnet50").items():
            file[f"{key.split('/')[0]}/{key}:0"] = value
    for seed, part in enumerate(("train", "val")):
        data = write_parts(folder / f"{part}_made", seed)
        (folder / part).mkdir()
        for file in data.files:
            shutil.copy(file, folder / part)
        data.save(folder / part / "via_region_data.json", "via")
    one_photo(folder, data.files[0])


def detectron2_files(folder: Path, shared: Path) -> None:
    """A checkpoint of Detectron2's layout, and COCO files that name pictures of one folder."""
    fixtures = shared / "fixtures" / "detectron2"
    weights = make_weights(fixtures, "weights_R50.json", "50")
    (folder / "model_final.pkl").write_bytes(pickle.dumps({"model": weights, "__author__": "a test"}))
    for seed, part in enumerate(("train", "val")):
        data = write_parts(folder / f"{part}_made", seed)
        names = [f"{part}_{name}" for name in data.names]
        (folder / "photos").mkdir(exist_ok=True)
        for file, name in zip(data.files, names, strict=True):
            shutil.copy(file, folder / "photos" / name)
        replace(data, names=names).save(folder / f"{part}.json")
    one_photo(folder, data.files[0])


READERS_FILES: dict[str, Callable[..., None]] = {
    "correct-labels.md": labelled_files,
    "deploy.md": trained_files,
    "from-detectron2.md": detectron2_files,
    "from-matterport.md": matterport_files,
    "kaggle-csv.md": kaggle_files,
    "look-inside.md": trained_files,
    "microscope.md": microscope_files,
}
"""What the reader of each page has before its first command. Arguments are fixtures by their names."""

MARKS = {
    "from-detectron2.md": [pytest.mark.shared, pytest.mark.slow],
    "from-matterport.md": [pytest.mark.shared, pytest.mark.slow],
}
"""Their checkpoints are made by a recipe of the development data, and are full ResNet-50s."""


NOT_RUN = ["export runs/mine -o small --precision int8 --calibrate train.csv --images images/"]
"""Parsed alone: quantising takes half a minute, and `tests/deploy` does it. A bundle in fp32 stands in for its result."""


def made_quick(words: list[str]) -> list[str]:
    """Return a command whose training takes seconds; all other commands run as they are written."""
    if words[0] != "train":
        return words
    quick = list(words)
    if "--budget" in quick:
        place = quick.index("--budget")
        del quick[place : place + 2]
    if "--init" in quick:
        return [*quick, "--image-size", "64", "--epochs", "1", "--epoch-images", "2"]
    return [*quick, *TINY]


def run_block(language: str, block: str, page: str, names: dict[str, object]) -> None:
    if language == "python":
        exec(compile(block, page, "exec"), names)
        return
    for command in commands_in(f"```\n{block}```"):
        if command in NOT_RUN:
            continue
        with pytest.raises(SystemExit) as caught:
            main(made_quick(shlex.split(command)))
        assert not caught.value.code, command


@pytest.mark.parametrize("page", [pytest.param(page, marks=MARKS.get(page, ())) for page in PAGES])
def test_the_tutorial_runs(page, tmp_path, monkeypatch, request):
    make = READERS_FILES[page]
    needed = [name for name in ("made", "shared") if name in make.__annotations__]
    make(tmp_path, **{name: request.getfixturevalue(name) for name in needed})
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page}
    for language, block in blocks_of(page):
        run_block(language, block, page, names)


def test_every_tutorial_runs():
    assert set(PAGES) == set(READERS_FILES)


def test_the_server_answers_with_objects_and_refuses_other_bytes(made, tmp_path, monkeypatch):
    shutil.copytree(made / "bundle", tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "server"}
    exec(next(block for _, block in blocks_of("deploy.md") if "HTTPServer" in block), names)
    server = HTTPServer(("127.0.0.1", 0), names["Handler"])
    monkeypatch.setattr(names["Handler"], "log_message", lambda *_: None)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        picture = next((made / "images").iterdir()).read_bytes()
        with urlopen(address, data=picture) as answer:
            objects = json.loads(answer.read())
        assert {"bbox", "category_id", "score", "segmentation"} <= set(objects[0])
        for body, status in ((b"no picture", 400), (b"", 413)):
            with pytest.raises(HTTPError) as caught, urlopen(address, data=body):
                pass
            assert caught.value.code == status
            caught.value.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

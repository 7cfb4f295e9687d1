"""`check` never knows less about the data than `train`."""

import json

import numpy as np
import pytest
from PIL import Image

import maskrcnn
from maskrcnn import RLE, UserError
from maskrcnn.cli import main
from maskrcnn.config import Config
from maskrcnn.training.start import data_notes

HW = (40, 50)


def disc(x):
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    return RLE.from_mask((rows - 20) ** 2 + (columns - x) ** 2 <= 36).to_encoded_pixels()


DATA = {  # class of the objects of each image; "" is an image without objects
    "a class on each image": list("abcdef"),
    "a class without objects": [*"aaaa", "b "],
    "a class on one image": list("aaaaab"),
    "objects on one image": ["a", "", "", "", "", ""],
    "no objects": ["", "", ""],
    "one image": ["a"],
    "nothing to say": ["ab"] * 12,
}


def write(folder, classes_of_image):
    (folder / "images").mkdir()
    lines = ["ImageId,EncodedPixels,ClassId"]
    for k, classes in enumerate(classes_of_image):
        Image.fromarray(np.full(HW, 10 * k, np.uint8)).save(folder / "images" / f"{k}.png")
        lines += [f"{k}.png,{disc(10 + 20 * j)},{name}" for j, name in enumerate(classes.strip())] or [f"{k}.png,,"]
        if classes.endswith(" "):  # a row that names a class and has no object
            lines[-1] = f"{k}.png,,{classes.strip()}"
    csv = folder / "train.csv"
    csv.write_text("\n".join(lines) + "\n")
    return csv


def notes_of_train(csv):
    data = maskrcnn.open_dataset(csv, say=lambda _: None)
    try:
        parts = data.split(seed=Config().train.seed)
    except UserError as error:
        return [str(error)]
    return [note for note in data_notes(*parts, 0, "last.safetensors") if "the model is" not in note]


@pytest.mark.parametrize("case", DATA)
def test_check_says_what_train_says_of_its_data(tmp_path, capsys, case):
    csv = write(tmp_path, DATA[case])
    expected = notes_of_train(csv)
    assert bool(expected) == (case != "nothing to say")
    with pytest.raises(SystemExit):
        main(["check", str(csv)])
    said = capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["check", str(csv), "--json"])
    found = json.loads(capsys.readouterr().out)["found"]
    for note in expected:
        assert note in said
        assert any(note in line for line in found)
    assert ("split" in said) == bool(expected)

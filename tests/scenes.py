"""Data sets of pictures with an EXIF orientation, with masks that were drawn on either reading of it."""

import numpy as np
from PIL import Image

from maskrcnn import RLE
from maskrcnn.data.images import ORIENTATION
from maskrcnn.data.synthetic import draw_scene

HW = (90, 130)


def save_turned(stored, path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(stored).save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))


def turned(array, orientation):
    """The stored pixels as a viewer shows them."""
    return {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
        8: lambda a: np.rot90(a, 1),
    }[orientation](array)


def write_scenes(folder, orientation, *, drawn_on, n=4, hw=HW, order="column", sizes=False, suffix=".png"):
    """Write pictures with an EXIF orientation, whose masks were drawn on the "stored" or on the "upright" pixels."""
    (folder / "images").mkdir(parents=True)
    lines = ["ImageId,EncodedPixels" + (",Height,Width" if sizes else "")]
    rng = np.random.default_rng(orientation)
    for k in range(n):
        pixels, masks, _ = draw_scene(hw, rng)
        save_turned(pixels, folder / "images" / f"{k}{suffix}", orientation)
        for mask in masks:
            dense = mask.to_mask()
            drawn = dense if drawn_on == "stored" else turned(dense, orientation)
            text = RLE.from_mask(drawn).to_encoded_pixels(order=order)
            lines.append(f"{k}{suffix},{text}" + (f",{drawn.shape[0]},{drawn.shape[1]}" if sizes else ""))
    csv = folder / "train.csv"
    csv.write_text("\n".join(lines) + "\n")
    return csv

"""Convert LabelMe JSON files with polygons to images and a CSV of run-length masks for `maskrcnn train`.

    python examples/labelme_to_csv.py FOLDER_OF_JSON OUT

Images come from ``imageData`` in the JSON files or, if it is empty, from the files at ``imagePath``.
"""

import base64
import json
import sys
from pathlib import Path

from maskrcnn import RLE
from maskrcnn.data.formats import encoded_pixels
from maskrcnn.data.images import read_size


def convert(folder: Path, out: Path) -> Path:
    """Write ``OUT/images`` and ``OUT/train.csv``; return the path of the CSV."""
    (out / "images").mkdir(parents=True)
    rows = []
    for file in sorted(folder.rglob("*.json")):
        label = json.loads(file.read_text("utf-8"))
        source = file.parent / label["imagePath"]
        image = out / "images" / f"{file.stem}{source.suffix or '.jpg'}"
        image.write_bytes(base64.b64decode(label["imageData"]) if label.get("imageData") else source.read_bytes())
        hw = read_size(image)
        polygons = [s for s in label["shapes"] if s.get("shape_type", "polygon") == "polygon"]
        for shape in polygons:
            flat = [float(v) for point in shape["points"] for v in point]
            rows.append((image.name, RLE.from_polygons([flat], hw), shape["label"]))
        if not polygons:
            rows.append((image.name, None, ""))
    encoded_pixels.write(out / "train.csv", rows, with_class=True)
    return out / "train.csv"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))

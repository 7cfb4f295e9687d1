"""Open Images' table of mask files: MaskPath, ImageID, LabelName and boxes."""

import numpy as np
from PIL import Image

from maskrcnn import RLE, open_dataset
from maskrcnn.files import write_image
from samples import disc

HEADER = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"


def test_its_table_names_masks_images_and_classes(tmp_path):
    masks = {"b_m0_01.png": disc((30, 40), 12, 14, 6), "b_m0jg2c_02.png": disc((30, 40), 20, 30, 7)}
    write_image(Image.new("RGB", (40, 30)), tmp_path / "images" / "b.jpg")
    rows = [HEADER]
    for file, mask in masks.items():
        write_image(Image.fromarray(mask), tmp_path / "masks" / file)
        rows.append(f"{file},b,/m/{file.split('_')[1]},{file[-6:-4]},0.2,1,0.3,0.5,0.83597,0 0.1 0.2;0 0.3 0.4")
    csv = tmp_path / "train-annotations-object-segmentation.csv"
    csv.write_text("\n".join(rows) + "\n")
    data = open_dataset(csv, images=tmp_path / "images")
    assert data.class_ids == ["/m/m0", "/m/m0jg2c"]
    assert data.rles(0) == [RLE.from_mask(mask) for mask in masks.values()]
    assert np.array_equal(data.labels, [1, 2])

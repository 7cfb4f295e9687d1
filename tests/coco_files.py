"""Write COCO files entry by entry, and open them."""

import json

from PIL import Image

from maskrcnn import open_dataset

HW = (40, 60)
SQUARE = [10.0, 5.0, 30.0, 5.0, 30.0, 25.0, 10.0, 25.0]
TRIANGLE = [40.0, 5.0, 55.5, 5.0, 47.25, 30.5]
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "größe"}]


def save_picture(path, hw=HW):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", hw[::-1], (90, 120, 60)).save(path)


def image(image_id, name, hw=HW, **more):
    return {"id": image_id, "file_name": name, "height": hw[0], "width": hw[1], **more}


def annotation(annotation_id, image_id, segmentation, category_id=3, **more):
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "bbox": [10, 5, 20, 20],
        "area": 400,
        "iscrowd": 0,
        **more,
    }


def coco(images, annotations, categories=CATEGORIES, **more):
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories, **more}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def opened(path, **options):
    said = []
    data = open_dataset(path, say=said.append, **options)
    return data, "\n".join(said)

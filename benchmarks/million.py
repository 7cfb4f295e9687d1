"""Open 1,000,000 annotations: a CSV of runs and COCO's JSON of polygons. Prints seconds and the peak of memory.

    python benchmarks/million.py [--annotations 1000000] [--images 50000] [--folder FOLDER]

Each file is opened by a process of its own, which counts its imports. The pictures are copies of one JPEG.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

HW = (480, 640)
N_CLASSES, N_POINTS = 80, 20

OPEN = """
import resource, sys, time
started = time.perf_counter()
import maskrcnn
data = maskrcnn.open_dataset(sys.argv[1], sys.argv[2], say=lambda line: None)
unit = 1e9 if sys.platform == "darwin" else 1e6
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
seconds = time.perf_counter() - started
print(f"{data.n_instances:,} instances on {len(data):,} images: {seconds:.1f} s, peak {peak:.2f} GB")
"""


def main() -> None:
    """Write the files and open each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        (folder / "images").mkdir()
        write(folder, arguments.images, arguments.annotations // arguments.images)
        for source in ("train.csv", "instances.json"):
            command = [sys.executable, "-c", OPEN, str(folder / source), str(folder / "images")]
            for turn in ("first", "second"):
                result = subprocess.run(command, check=True, capture_output=True, text=True)
                print(f"{source}, {turn} time: {result.stdout.strip()}", flush=True)


def write(folder: Path, n_images: int, n_of_image: int) -> None:
    """Write pictures, and the same number of objects in each as a CSV and as COCO's JSON."""
    rng = np.random.default_rng(0)
    picture = folder / "images" / "picture.jpg"
    Image.fromarray(rng.integers(0, 255, (*HW, 3), np.uint8)).save(picture, quality=20)
    content = picture.read_bytes()
    picture.unlink()
    angles = np.linspace(0, 2 * np.pi, N_POINTS, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    images = [{"id": i + 1, "file_name": f"{i:08d}.jpg", "height": HW[0], "width": HW[1]} for i in range(n_images)]
    head = {"categories": [{"id": k, "name": f"class {k}"} for k in range(N_CLASSES)], "images": images}
    with open(folder / "train.csv", "w") as table, open(folder / "instances.json", "w") as coco:
        table.write("ImageId,EncodedPixels,ClassId\n")
        coco.write(json.dumps(head)[:-1] + ', "annotations": [')
        n = 0
        for image in images:
            (folder / "images" / image["file_name"]).write_bytes(content)
            for radius, x, y in rng.uniform((5, 35, 35), (30, HW[1] - 35, HW[0] - 35), (n_of_image, 3)):
                top, height = int(y - radius / 2), int(radius)
                columns = range(int(x - radius), int(x + radius))
                runs = " ".join(f"{column * HW[0] + top + 1} {height}" for column in columns)
                table.write(f"{image['file_name']},{runs},{n % N_CLASSES}\n")
                points = (circle * rng.uniform(0.8 * radius, radius, (N_POINTS, 1)) + (x, y)).round(2)
                entry = {"id": n + 1, "image_id": image["id"], "category_id": n % N_CLASSES, "iscrowd": 0}
                box = [*points.min(0), *np.ptp(points, 0)]
                entry |= {"bbox": [float(side) for side in box], "segmentation": [points.ravel().tolist()]}
                coco.write(("," if n else "") + json.dumps(entry))
                n += 1
        coco.write("]}")


if __name__ == "__main__":
    main()

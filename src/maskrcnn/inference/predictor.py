"""`Predictor`: pictures in, `Detections` in the pixels of each picture out; one at a time or as a stream.

picture -> resize -> batch -> network -> selection -> mask head -> runs
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskrcnn.config import Config
from maskrcnn.data.batch import STRIDE, stack
from maskrcnn.data.images import ImageError, read_image
from maskrcnn.inference.fit import Fitted, fit_picture
from maskrcnn.inference.postprocess import Kept, boxes_in_picture, paste_masks, select_detections
from maskrcnn.model.mask_rcnn import MaskRCNN, Stages
from maskrcnn.structures import Detections

Picture = str | Path | bytes | Image.Image | np.ndarray

DETECTIONS = 100
"""Most detections of an image, where neither the configuration nor the training data says."""


@dataclass(frozen=True)
class _Input:
    """A picture made ready: the network's input and what leads back."""

    fitted: Fitted
    original: np.ndarray
    name: str | None


class Predictor:
    """A network with its classes and settings. What `maskrcnn.load` returns."""

    def __init__(
        self,
        model: MaskRCNN,
        config: Config,
        class_ids: list[Any],
        class_names: list[str],
        *,
        device: torch.device | str = "cpu",
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.model = model.to(device).eval()
        self.config = config
        self.class_ids = class_ids
        self.class_names = class_names
        self.device = torch.device(device)
        self.provenance = provenance or {}

    def changed(self, **settings: Any) -> Predictor:
        """The same network under other prediction settings: ``model.changed(score_threshold=0.3)``."""
        config = self.config.changed(predict=settings)
        return Predictor(
            self.model,
            config,
            self.class_ids,
            self.class_names,
            device=self.device,
            provenance=self.provenance,
        )

    def predict(self, picture: Picture, *, keep_pixels: bool = True) -> Detections:
        """Detections of a path, the bytes of a file, a Pillow image or an array (H, W[, C]) uint8 or uint16.

        Raises `ImageError` for what cannot be decoded. `keep_pixels` lets `Detections.save_overlay` work.
        """
        return self._detect([self._prepare(picture)], keep_pixels)[0]

    def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        batch_size: int = 1,
        keep_pixels: bool = False,
        on_error: Callable[[Picture, ImageError], None] | None = None,
    ) -> Iterator[Detections]:
        """Detections of each picture, in order, while the next ones are being decoded.

        Holds a few pictures at a time, however many there are. A picture that cannot be decoded raises `ImageError`,
        or is passed to `on_error` and left out. Only pictures of one input shape share a batch, so that a batch gives
        what single pictures give.
        """
        with ThreadPoolExecutor(2, thread_name_prefix="maskrcnn-decode") as pool:
            source = iter(pictures)
            waiting = [(p, pool.submit(self._prepare, p)) for p in islice(source, 2 * batch_size)]
            while waiting:
                group, waiting = waiting[:batch_size], waiting[batch_size:]
                waiting += [(p, pool.submit(self._prepare, p)) for p in islice(source, len(group))]
                ready = []
                for picture, future in group:
                    try:
                        ready.append(future.result())
                    except ImageError as error:
                        if on_error is None:
                            raise
                        on_error(picture, error)
                for _, alike in groupby(ready, key=lambda r: _padded_shape(r.fitted.pixels)):
                    yield from self._detect(list(alike), keep_pixels)

    @torch.no_grad()
    def stages(self, picture: Picture) -> tuple[Stages, Kept, torch.Tensor]:
        """What every step makes of one picture: up to the box head, the kept boxes, their mask probabilities."""
        return self._run([self._prepare(picture)])

    def _prepare(self, picture: Picture) -> _Input:
        image = read_image(picture)
        fitted = fit_picture(image, self.model.conventions, self.config.model.image_size)
        return _Input(fitted, image, str(picture) if isinstance(picture, str | Path) else None)

    def _run(self, inputs: list[_Input]) -> tuple[Stages, Kept, torch.Tensor]:
        pixels, _ = stack([item.fitted.pixels for item in inputs])
        windows = torch.tensor([item.fitted.window for item in inputs], device=self.device)
        images = self.model.normalize(torch.from_numpy(pixels).to(self.device), windows)
        if self.model.conventions.planar:
            images = images.contiguous()
        stages = self.model(images, windows)
        predict = self.config.predict
        kept = select_detections(
            stages,
            self.model.to_units(windows.float(), stages.input_hw),
            score_threshold=predict.score_threshold,
            nms_threshold=predict.nms_threshold,
            detections=predict.detections or DETECTIONS,
            conventions=self.model.conventions,
        )
        logits = self.model.segment(stages.features, kept.boxes, kept.image_index, kept.labels)
        return stages, kept, logits.sigmoid()

    @torch.no_grad()
    def _detect(self, inputs: list[_Input], keep_pixels: bool) -> list[Detections]:
        stages, kept, masks = self._run(inputs)
        image_index = kept.image_index.cpu().numpy()
        boxes, scores, labels, grids = (t.float().cpu().numpy() for t in (kept.boxes, kept.scores, kept.labels, masks))
        results = []
        for b, item in enumerate(inputs):
            rows = np.flatnonzero(image_index == b)
            hw = (item.original.shape[0], item.original.shape[1])
            box = boxes_in_picture(boxes[rows], item.fitted.window, stages.input_hw, hw, self.model.conventions)
            whole = (box[:, 2:] > box[:, :2]).all(1)
            rows, box = rows[whole], box[whole]
            rles = paste_masks(grids[rows], box, hw, self.model.conventions)
            label = labels[rows].astype(np.int64) - 1
            results.append(
                Detections(
                    boxes=box,
                    scores=scores[rows],
                    class_ids=np.array([self.class_ids[k] for k in label]),
                    class_names=[self.class_names[k] for k in label],
                    rles=rles,
                    hw=hw,
                    image=item.name,
                    pixels=item.original if keep_pixels else None,
                    vocabulary=tuple(self.class_names),
                )
            )
        return results


def _padded_shape(pixels: np.ndarray) -> tuple[int, int]:
    return -(-pixels.shape[0] // STRIDE), -(-pixels.shape[1] // STRIDE)

"""`Predictor`: pictures in, `Detections` in the pixels of each picture out; one at a time or as a stream.

picture -> resize -> batch -> network -> selection -> mask head -> runs
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from maskrcnn.config import Config
from maskrcnn.data.batch import STRIDE, stack
from maskrcnn.data.images import ImageError, read_image
from maskrcnn.errors import UserError
from maskrcnn.inference.fit import Fitted, fit_picture
from maskrcnn.inference.postprocess import boxes_in_picture, paste_masks, score_by_masks
from maskrcnn.inference.runtimes import Runtime
from maskrcnn.inference.timing import stage
from maskrcnn.model.conventions import Conventions
from maskrcnn.structures import Detections

if TYPE_CHECKING:
    from maskrcnn.model.mask_rcnn import MaskRCNN

Picture = str | Path | bytes | Image.Image | np.ndarray


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
        runtime: Runtime,
        config: Config,
        class_ids: list[Any],
        class_names: list[str],
        *,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.runtime = runtime
        self.config = config
        self.class_ids = class_ids
        self.class_names = class_names
        self.provenance = provenance or {}

    @property
    def conventions(self) -> Conventions:
        """Those that the network follows."""
        return self.runtime.conventions

    @property
    def model(self) -> MaskRCNN:
        """The network itself. Raises `UserError` for a bundle, which holds graphs and no network."""
        model = getattr(self.runtime, "model", None)
        if model is None:
            raise UserError(f"a bundle for {self.runtime.name} can only predict; go back to the run that it came from")
        return model

    def changed(self, **settings: Any) -> Predictor:
        """The same network under other prediction settings: ``model.changed(score_threshold=0.3)``."""
        config = self.config.changed(predict=settings)
        return Predictor(self.runtime, config, self.class_ids, self.class_names, provenance=self.provenance)

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

    def _prepare(self, picture: Picture) -> _Input:
        image = read_image(picture)
        with stage("fit to the input"):
            fitted = fit_picture(image, self.conventions, self.config.model)
        return _Input(fitted, image, str(picture) if isinstance(picture, str | Path) else None)

    def _detect(self, inputs: list[_Input], keep_pixels: bool) -> list[Detections]:
        pixels, _ = stack([item.fitted.pixels for item in inputs])
        windows = np.array([item.fitted.window for item in inputs], np.int64)
        predict = self.config.predict
        found = self.runtime.detect(pixels, windows, predict)
        if predict.mask_scoring:
            found = score_by_masks(found, predict.score_threshold)
        input_hw = (pixels.shape[1], pixels.shape[2])
        results = []
        for b, item in enumerate(inputs):
            rows = np.flatnonzero(found.image_index == b)
            hw = (item.original.shape[0], item.original.shape[1])
            box = boxes_in_picture(found.boxes[rows], item.fitted.window, input_hw, hw, self.conventions)
            whole = (box[:, 2:] > box[:, :2]).all(1)
            rows, box = rows[whole], box[whole]
            with stage("masks to runs"):
                rles = paste_masks(found.masks[rows], box, hw, self.conventions)
            label = found.labels[rows] - 1
            results.append(
                Detections(
                    boxes=box,
                    scores=found.scores[rows].astype(np.float32),
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

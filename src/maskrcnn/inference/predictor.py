"""`Predictor`: pictures in, `Detections` in the pixels of each picture out, one at a time or as a stream.

picture -> read -> fit -> batch -> runtime.detect -> finish -> Detections
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from maskrcnn.config import Config, Exif
from maskrcnn.data.images import read_image
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.detect import Detector
from maskrcnn.detection.finish import finish
from maskrcnn.detection.fit import fit_picture, padded_hw, stack
from maskrcnn.detection.stages import Fitted, Observe, ignore
from maskrcnn.detection.timing import stage
from maskrcnn.errors import ImageError, UserError
from maskrcnn.inference.description import Description
from maskrcnn.inference.runtimes import Runtime
from maskrcnn.reading import BY_ITSELF, Reading
from maskrcnn.structures import Detections

if TYPE_CHECKING:
    from maskrcnn.inspection.trace import Trace
    from maskrcnn.inspection.tracer import TrueObjects
    from maskrcnn.model.mask_rcnn import MaskRCNN

Picture = str | Path | bytes | Image.Image | np.ndarray


@dataclass(frozen=True)
class PreparedPicture:
    """A decoded picture (H, W, 3), the network input made of it, and its path if it has one."""

    fitted: Fitted
    pixels: np.ndarray
    path: str | None


class Predictor:
    """A network with its classes and settings. `maskrcnn.load` returns one.

    `reading` is that of the training data: pictures to predict are scaled and turned like those.
    """

    def __init__(
        self,
        runtime: Runtime,
        config: Config,
        class_ids: list[Any],
        class_names: list[str],
        *,
        provenance: dict[str, Any] | None = None,
        reading: Reading = BY_ITSELF,
    ) -> None:
        self.runtime = runtime
        self.config = config
        self.class_ids = class_ids
        self.class_names = class_names
        self.provenance = provenance or {}
        self.reading = reading

    @property
    def conventions(self) -> Conventions:
        return self.runtime.detector.conventions

    @property
    def description(self) -> Description:
        """Everything about the model but its weights."""
        return Description(
            config=self.config,
            conventions=self.conventions,
            class_ids=self.class_ids,
            class_names=self.class_names,
            provenance=self.provenance,
            reading=self.reading,
        )

    @property
    def model(self) -> MaskRCNN:
        """The torch network. Raises `UserError` for a bundle, which has none."""
        model = getattr(self.runtime, "model", None)
        if model is None:
            raise UserError(f"a bundle for {self.runtime.name} can only predict; use the model that it was made from")
        return model

    def changed(self, **settings: Any) -> Predictor:
        """Return the same network with other prediction settings: ``model.changed(score_threshold=0.3)``."""
        return self._with(config=self.config.changed(predict=settings))

    def with_proposals(self, limit: int) -> Predictor:
        """Return the same network with another limit of proposals of a picture, and of each level if that is lower.

        Raises `UserError` below 1.
        """
        return self.proposing(proposals=limit, proposals_per_level=max(limit, self.config.model.proposals_per_level))

    def proposing(self, **settings: Any) -> Predictor:
        """Return the same network with other settings of its proposals: ``model.proposing(proposals=2000)``."""
        config = self.config.changed(model=settings)
        return self._with(config=config, runtime=self.runtime.with_detector(Detector(config.model, self.conventions)))

    def running(self, runtime: Runtime) -> Predictor:
        """Return the same model with another runtime of its network."""
        return self._with(runtime=runtime)

    def oriented(self, exif: Exif) -> Predictor:
        """Return the same network for pictures that are turned by their EXIF orientation ("turn") or not ("ignore")."""
        return self._with(reading=replace(self.reading, exif=exif))

    def _with(
        self, *, config: Config | None = None, reading: Reading | None = None, runtime: Runtime | None = None
    ) -> Predictor:
        return Predictor(
            runtime or self.runtime,
            config or self.config,
            self.class_ids,
            self.class_names,
            provenance=self.provenance,
            reading=reading or self.reading,
        )

    def predict(self, picture: Picture, *, keep_pixels: bool = True) -> Detections:
        """Detect instances in a path, the bytes of a file, a Pillow image or an array (H, W[, C]) uint8 or uint16.

        Masks are those of the picture as `reading` turns it. `keep_pixels` keeps the decoded picture for
        `save_overlay`. Raises `ImageError` if it cannot be decoded.
        """
        return self.detect([self.prepare(picture)], keep_pixels=keep_pixels)[0]

    def trace(self, picture: Picture, truth: TrueObjects | None = None, *, sample: int = 0) -> Trace:
        """Predict one picture and return every stage between its pixels and its detections as named arrays.

        `Trace.detections` are those of `predict`. `truth` holds the picture's objects: pairs of a mask and a class id
        or name of the model, or a data set and the index of the picture in it. It adds `Trace.lesson`, what a training
        step would make of the picture as sample number `sample`. Raises `ImageError` if the picture cannot be decoded,
        and `UserError` for a truth that does not fit, or for a truth and a bundle, which cannot be trained.
        """
        from maskrcnn.inspection.tracer import trace, true_objects

        result = trace(self, picture)
        if truth is None:
            return result
        from maskrcnn.training.lesson import lesson

        objects = true_objects(self, truth, result.detections.hw)
        return replace(result, truth=objects, lesson=lesson(self, result.picture, objects, sample))

    def predict_many(
        self,
        pictures: Iterable[Picture],
        *,
        batch_size: int = 1,
        keep_pixels: bool = False,
        on_error: Callable[[Picture, ImageError], None] | None = None,
    ) -> Iterator[Detections]:
        """Yield the detections of each picture, in order, while the next pictures are decoded.

        Memory holds a few pictures at a time. One that cannot be decoded raises `ImageError`, or goes to `on_error`.
        Only pictures of one input shape share a batch, so a batch gives what single pictures give. A batch below 1 is a
        `ValueError`.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        with ThreadPoolExecutor(2, thread_name_prefix="maskrcnn-decode") as pool:
            source = iter(pictures)
            waiting = [(p, pool.submit(self.prepare, p)) for p in islice(source, 2 * batch_size)]
            while waiting:
                group, waiting = waiting[:batch_size], waiting[batch_size:]
                waiting += [(p, pool.submit(self.prepare, p)) for p in islice(source, len(group))]
                prepared = []
                for picture, future in group:
                    try:
                        prepared.append(future.result())
                    except ImageError as error:
                        if on_error is None:
                            raise
                        on_error(picture, error)
                for _, same_shape in groupby(prepared, key=lambda p: padded_hw(p.fitted.pixels)):
                    yield from self.detect(list(same_shape), keep_pixels=keep_pixels)

    def prepare(self, picture: Picture) -> PreparedPicture:
        """Decode a picture and fit it to the network. Raises `ImageError`."""
        pixels = read_image(picture, self.reading)
        with stage("fit to the input"):
            fitted = fit_picture(pixels, self.conventions, self.config.model)
        return PreparedPicture(fitted, pixels, str(picture) if isinstance(picture, str | Path) else None)

    def detect(self, batch: list[PreparedPicture], *, keep_pixels: bool, observe: Observe = ignore) -> list[Detections]:
        """Detect instances in prepared pictures of one input shape.

        `observe` is handed each step's result (`Detector.detect`, `finish`).
        """
        pixels, _ = stack([item.fitted.pixels for item in batch])
        windows = np.array([item.fitted.window for item in batch], np.int64)
        predict = self.config.predict
        raw = self.runtime.detect(pixels, windows, predict, observe)
        input_hw, classes = (pixels.shape[1], pixels.shape[2]), (self.class_ids, self.class_names)
        pictures_hw = [(item.pixels.shape[0], item.pixels.shape[1]) for item in batch]
        finished = finish(raw, windows, input_hw, pictures_hw, predict, self.conventions, *classes, observe)
        return [
            replace(detections, image=item.path, reading=self.reading, pixels=item.pixels if keep_pixels else None)
            for detections, item in zip(finished, batch, strict=True)
        ]

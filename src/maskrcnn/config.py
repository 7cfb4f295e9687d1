"""Every setting with its default, its meaning and its limits: the only place where a default stands.

A `Config` is five small groups. The command line takes each setting by its plain name (``--backbone``, ``--lr``), the
run folder keeps them all in ``config.yaml``, and `Config.load` reads that file back.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from maskrcnn.errors import UserError

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

LEVELS = 5
"""Pyramid levels P2 to P6, of strides 4 to 64."""


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


def seconds(text: str) -> float:
    """``"1h30m"``, ``"20m"``, ``"90s"`` or ``"90"`` in seconds. Raises `ValueError`."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    if not match or not text.strip():
        raise ValueError(f"{text!r} is not a length of time; write it like 20m, 1h30m or 90s")
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    total = hours * 3600 + minutes * 60 + rest
    if total <= 0:
        raise ValueError(f"a budget of {text!r} leaves no time to train")
    return total


class ModelConfig(_Group):
    """The network."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model that yields feature maps, such as resnet50 or convnext_tiny."""
    weights: str = "imagenet"
    """Where the backbone starts: "imagenet", "none" or a file of backbone weights."""
    pyramid: Literal["fpn", "single"] = "fpn"
    """A feature pyramid of five levels, or the last map of stride 16 alone."""
    image_size: Annotated[int, Field(ge=64)] = 512
    """Longer side of the network's input in pixels; images are scaled to it, keeping their aspect (see min_scale)."""
    min_scale: Annotated[float, Field(ge=0)] = 0.0
    """Least factor on a picture's own pixels: a large picture gets a larger input than image_size, though not beyond
    1536. Left alone: 1 where large pictures hold small instances."""
    channels: Count = 128
    """Channels of the pyramid and of the region proposal network."""
    norm: Literal["none", "batch"] = "none"
    """Batch norm behind the convolutions of the pyramid and of both heads."""
    rpn_convs: Count = 1
    """3x3 convolutions of the region proposal network."""
    rpn_channels: Count | None = None
    """Channels between them and its outputs. None: those of the pyramid."""
    box_convs: Annotated[int, Field(ge=0)] = 0
    """3x3 convolutions in front of the box head's fully connected layers."""
    box_layers: Count = 2
    """Fully connected layers of the box head."""
    box_channels: Count = 512
    """Their width."""
    mask_convs: Count = 4
    """3x3 convolutions of the mask head."""
    mask_channels: Count = 128
    """Their channels."""
    mask_deconv_channels: Count | None = None
    """Channels of its deconvolution. None: the same."""
    mask_size: Annotated[int, Field(ge=14, multiple_of=2)] = 28
    """Cells along each side of a predicted mask."""
    anchor_sizes: tuple[Positive, ...] | None = None
    """Anchor side at each level in network pixels (all of them on a single map). None: taken from the data."""
    anchor_scales: tuple[Positive, ...] = (1.0,)
    """Factors on the size: each level has an anchor for every scale and ratio."""
    anchor_ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors."""
    proposals_per_level: Count = 1000
    """Best anchors of each level that go into non-maximum suppression."""
    proposals: Count = 1000
    """Proposals of an image that survive it."""
    proposal_nms_threshold: Fraction = 0.7
    """Of two proposals that overlap more than this the weaker one is dropped."""
    pixel_mean: tuple[float, float, float] | None = None
    """Mean of red, green and blue, 0 to 255, taken off the image. None: what the backbone was trained with."""
    pixel_std: tuple[Positive, Positive, Positive] | None = None
    """What the image is divided by after that. None: what the backbone was trained with."""

    @model_validator(mode="after")
    def _one_size_a_level(self) -> ModelConfig:
        if self.pyramid == "fpn" and self.anchor_sizes is not None and len(self.anchor_sizes) != LEVELS:
            raise ValueError(
                f"anchor_sizes needs {LEVELS} values, one a pyramid level; it has {len(self.anchor_sizes)}"
            )
        return self


class TrainConfig(_Group):
    """The training schedule, the sampling of anchors and regions, and the optimizer."""

    init: str | None = None
    """A whole model to go on from: a run, a model file, another program's checkpoint, or "coco" or "coco-v2", which
    torchvision published and are fetched once. Its network takes the place of the model settings left alone."""
    budget: str | None = None
    """Train for this long, such as 20m, 1h30m or 90s, schedule included. Takes the place of --epochs."""
    epochs: Count = 24
    """Passes over the training images. Left alone: fewer for large data."""
    epoch_images: Count = 200
    """An epoch is at least so many images: a smaller data set is gone through several times."""
    empty: Fraction = 1.0
    """Largest part of the images shown that may be without instances; each pass draws some of them. Left alone: 0.25
    where the data has more than that."""
    batch_size: Count = 2
    """Images that go through the network at once, in each process. Left alone: 1, accumulated, in little memory."""
    accumulate: Count = 1
    """Such batches a step, their gradients added up: the step of a larger batch in the memory of a small one."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with momentum 0.9."""
    lr: Positive | None = None
    """Learning rate at its peak. None: 5e-4 for AdamW, 5e-3 for SGD; 0.6 of that where `init` names a model."""
    backbone_lr: Positive = 0.5
    """Factor on the learning rate of the pretrained backbone."""
    layer_lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Further factor for each of its stages, from C5 down: what lies deeper changes less. 1 treats all alike."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Decay of weights (not of biases and norms)."""
    decay: Literal["cosine", "step", "none"] = "cosine"
    """Fall of the learning rate: to zero along a cosine, by ten at 2/3 and 8/9 of the steps, or not at all."""
    clip: Positive = 10.0
    """Largest norm of the gradient."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """Decay of the running average of the weights, which is what is validated and kept; 0 turns it off."""
    freeze: Literal["all", "heads", "3+", "4+", "5+"] = "all"
    """What trains: everything, the parts behind the backbone, or also backbone stages from 3, 4 or 5 on. Left alone: 3+
    where `init` names a model."""
    freeze_norm: bool = True
    """Keep pretrained batch norm as it is: right for small batches. Left alone: off for a random backbone."""
    rpn_batch: Count = 256
    """Anchors sampled in each image, at most half of them positive."""
    rpn_positive_iou: Fraction = 0.7
    """An anchor is positive from this overlap with an instance on."""
    rpn_negative_iou: Fraction = 0.3
    """An anchor is negative below this overlap with every instance."""
    roi_batch: Count = 256
    """Regions sampled in each image for the heads."""
    roi_positive_fraction: Fraction = 0.25
    """Largest part of them that is positive."""
    roi_positive_iou: Fraction = 0.5
    """A region is positive from this overlap with an instance on."""
    mask_batch: Count = 32
    """Positive regions of each image that the mask head, the costliest part, trains on."""
    rpn_class_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of rpn_class_loss."""
    rpn_bbox_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of rpn_bbox_loss."""
    mrcnn_class_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of mrcnn_class_loss."""
    mrcnn_bbox_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of mrcnn_bbox_loss."""
    mrcnn_mask_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of mrcnn_mask_loss."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many validations without a better one; 0 never does."""
    select_by: Literal["mask.AP", "mask.AP50", "box.AP", "kaggle.mean"] = "mask.AP"
    """The validation score that picks the best model."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Start of every random choice."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Threads that prepare images; 0 prepares them between the steps."""
    device: str = "auto"
    """Where to train: auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers that the network computes in; weights and losses stay fp32. auto: bf16 on a GPU that can, else fp32."""
    deterministic: bool = False
    """Only algorithms that give the same bits every time. For GPUs, and slower; a CPU does so anyway."""

    @field_validator("budget")
    @classmethod
    def _is_time(cls, budget: str | None) -> str | None:
        if budget is not None:
            seconds(budget)
        return budget


class AugmentConfig(_Group):
    """How training images vary."""

    flip: bool = True
    """Mirror left to right, half of the time."""
    swap_on_flip: tuple[str, ...] = ()
    """Pairs of class names, "left_hand=right_hand", that trade places when an image is mirrored."""
    rotate: bool = True
    """Turn by a random multiple of 90 degrees. Left alone: off where boxes tell that up and down matter."""
    scale: tuple[Positive, Positive] = (0.7, 1.5)
    """Range of a random factor on the image's scale; what leaves the frame is cropped."""
    crop: Annotated[int, Field(ge=64)] | None = None
    """Largest side of a training input: a random window, in the scale of prediction. None: image_size."""
    color: Fraction = 0.2
    """Strength of random brightness, contrast and saturation."""

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError(f"scale must rise from smallest to largest, not {scale}")
        return scale

    @field_validator("swap_on_flip")
    @classmethod
    def _pairs(cls, pairs: tuple[str, ...]) -> tuple[str, ...]:
        for pair in pairs:
            if len([name for name in pair.split("=") if name]) != 2:
                raise ValueError(f'{pair!r} is not a pair of class names like "left=right"')
        return pairs


class PredictConfig(_Group):
    """What the detector returns."""

    score_threshold: Fraction = 0.5
    """Detections below this score are left out."""
    nms_threshold: Fraction = 0.5
    """Of two detections of a class that overlap more than this the weaker one is dropped."""
    detections: Count | None = None
    """Most detections of an image. None: taken from the training data."""
    box_voting: bool = False
    """Make each box the mean, by score, of all candidates that overlap it by more than 0.8. New runs turn it on; a
    model from elsewhere keeps its boxes."""
    mask_scoring: bool = False
    """Multiply scores by how sure the masks are. New runs turn it on; a model from elsewhere keeps its scores."""


class ImportConfig(_Group):
    """What the tensors of another program's checkpoint cannot tell. None: that program's own default."""

    class_names: tuple[str, ...] = ()
    """Names of the classes without the background; none: their numbers."""
    min_size: Count | None = None
    """Length that the shorter side of a picture is scaled to."""
    max_size: Count | None = None
    """Limit of the longer side."""
    image_size: Count | None = None
    """Matterport: min_size and max_size in one."""
    resize_mode: Literal["square", "pad64", "none"] | None = None
    """Matterport: IMAGE_RESIZE_MODE."""
    min_scale: Annotated[float, Field(ge=0)] | None = None
    """Matterport: IMAGE_MIN_SCALE."""
    score_threshold: Fraction | None = None
    """Lowest score of a detection."""
    nms_threshold: Fraction | None = None
    """Largest overlap of two detections of a class."""
    detections_per_image: Count | None = None
    """Most detections of an image."""
    anchor_sizes: tuple[Positive, ...] | None = None
    """Anchor side at each pyramid level, in pixels of the input."""
    anchor_ratios: tuple[Positive, ...] | None = None
    """Anchor ratios as that program counts them (Matterport: width over height, the others: height over width)."""
    stride_in_1x1: bool | None = None
    """Detectron2: RESNETS.STRIDE_IN_1X1."""
    input_format: Literal["BGR", "RGB"] | None = None
    """Detectron2: INPUT.FORMAT."""
    pixel_mean: tuple[float, float, float] | None = None
    """Mean that is taken off pixels of 0 to 255, channels in that program's order."""
    pixel_std: tuple[Positive, Positive, Positive] | None = None
    """What pixels are divided by after that."""
    norm_eps: Annotated[float, Field(ge=0)] | None = None
    """What batch norm adds to the variance. torchvision's COCO_V1 weights are meant for 0."""


class Config(_Group):
    """All settings of a run."""

    model: Annotated[ModelConfig, Parameter(name="*", group="Model")] = ModelConfig()
    train: Annotated[TrainConfig, Parameter(name="*", group="Training")] = TrainConfig()
    augment: Annotated[AugmentConfig, Parameter(name="*", group="Augmentation")] = AugmentConfig()
    predict: Annotated[PredictConfig, Parameter(name="*", group="Prediction")] = PredictConfig()

    @classmethod
    def build(
        cls,
        preset: str = "lite",
        file: str | Path | None = None,
        overrides: Config | None = None,
    ) -> Config:
        """A preset, changed by a YAML file, changed by what is set explicitly in `overrides`."""
        if preset not in PRESETS:
            raise UserError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
        values: dict[str, Any] = PRESETS[preset]
        if file is not None:
            values = _merge(values, _read_yaml(file))
        if overrides is not None:
            values = _merge(values, overrides.model_dump(exclude_unset=True))
        return cls.parse(values, f"configuration file {file}" if file else "configuration")

    @classmethod
    def parse(cls, values: dict[str, Any], source: str) -> Config:
        """Check a nested dictionary; `source` names it in the error of a wrong key or value."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{source}: {explain(error)}") from None

    @classmethod
    def load(cls, file: str | Path) -> Config:
        """Read ``config.yaml``."""
        return cls.parse(_read_yaml(file), str(file))

    def changed(self, **groups: dict[str, Any]) -> Config:
        """A copy with some settings replaced: ``config.changed(train={"lr": 0.01})``."""
        return self.parse(_merge(self.model_dump(exclude_unset=True), groups), "configuration")

    def to_yaml(self) -> str:
        """All settings, one group after the other."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


RESNET: dict[str, Any] = {
    "channels": 256,
    "box_channels": 1024,
    "mask_channels": 256,
}

PRESETS: dict[str, dict[str, Any]] = {
    "lite": {},
    "resnet50": {"model": {"backbone": "resnet50", **RESNET}},
    "resnet101": {"model": {"backbone": "resnet101", **RESNET}},
}


def _read_yaml(file: str | Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(file).read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read the configuration file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"the configuration file {file} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(
            f"{file} must hold groups of settings ({', '.join(Config.model_fields)}), not a {type(values).__name__}"
        )
    return values


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = _merge(base[key], value) if both else value
    return result


def explain(error: ValidationError, top: list[str] | None = None) -> str:
    """One line a mistake, with the nearest right name for a misspelt key; `top` are the names outside of groups."""
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            *groups, key = (str(part) for part in item["loc"])
            names = {f"{g}.{n}": n for g, f in Config.model_fields.items() for n in f.annotation.model_fields}  # type: ignore[union-attr]
            known = top or [*Config.model_fields]
            if groups:
                known = [name for path, name in names.items() if path.startswith(groups[0])]
            near = difflib.get_close_matches(key, known, 1)
            lines.append(f"there is no setting {place!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{place} = {item.get('input')!r}: {message[:1].lower()}{message[1:]}")
    return "; ".join(lines)

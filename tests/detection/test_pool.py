"""Region pooling compared with torchvision, forward and backward."""

import numpy as np
import pytest
import torch
import torchvision

from maskrcnn.detection import pool as pool_module
from maskrcnn.detection.conventions import MATTERPORT, NATIVE
from maskrcnn.detection.pool import assign_levels, pool_arrays
from maskrcnn.detection.tensors import crop_and_resize, roi_align

STRIDES = (4, 8, 16, 32)


def pool(features, boxes, image_index, *, size, strides, conventions):
    """Call `detection.pool.pool` with channels-first maps."""
    maps = [f.permute(0, 2, 3, 1) for f in features]
    return pool_module.pool(maps, boxes, image_index, size, strides, conventions).permute(0, 3, 1, 2)


def reference(features, boxes, image_index, size, samples, aligned):
    rois = torch.cat([image_index[:, None].double(), boxes.double()], 1)
    levels = torch.from_numpy(assign_levels(boxes.numpy(), [(0, 0)] * 4, 4, NATIVE))
    out = torch.zeros(len(boxes), features[0].shape[1], size, size, dtype=torch.float64)
    for level, feature in enumerate(features):
        rows = (levels == level).nonzero()[:, 0]
        pooled = torchvision.ops.roi_align(feature, rois[rows], size, 1 / STRIDES[level], samples, aligned)
        out = out.index_put((rows,), pooled)
    return out


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [0, 1, 2, 3])
@pytest.mark.parametrize(("channels", "size"), [(3, 7), (40, 14)])
def test_pooling_matches_torchvision(aligned, samples, channels, size):
    generator = torch.Generator().manual_seed(samples)
    features = [
        torch.randn(2, channels, 96 // 2**k, 80 // 2**k, generator=generator).requires_grad_() for k in range(4)
    ]
    corner = torch.rand(60, 2, generator=generator) * 380 - 15
    side = torch.rand(60, 2, generator=generator) ** 3 * 350 + 0.3
    boxes = torch.cat([corner, corner + side], 1)
    image_index = torch.randint(0, 2, (60,), generator=generator)
    conventions = NATIVE.changed(pooling="aligned" if aligned else "shifted", roi_samples=samples)
    ours = pool(features, boxes, image_index, size=size, strides=STRIDES, conventions=conventions)
    theirs = reference([f.double() for f in features], boxes, image_index, size, samples, aligned)
    assert (ours - theirs).abs().max() < 1e-5
    grad = torch.randn(ours.shape, generator=generator)
    for a, b in zip(
        torch.autograd.grad(ours, features, grad),
        torch.autograd.grad(theirs, features, grad.double()),
        strict=True,
    ):
        assert (a - b).abs().max() < 2e-5


def bilinear(feature, y, x):
    """Interpolate the (C,) features at a point of a map (M, N, C); points more than one cell outside give zeros."""
    limits = np.array(feature.shape[:2])
    if min(y, x) < -1 or y > limits[0] or x > limits[1]:
        return np.zeros(feature.shape[2])
    point = np.clip([y, x], 0, limits - 1)
    total = np.zeros(feature.shape[2])
    for row in {int(np.floor(point[0])), int(np.ceil(point[0]))}:
        for column in {int(np.floor(point[1])), int(np.ceil(point[1]))}:
            total += feature[row, column] * (1 - abs(point[0] - row)) * (1 - abs(point[1] - column))
    return total


def averaged_bins(feature, box, size, scale, samples, aligned):
    """RoIAlign as the paper words it: a bin is the mean of regularly spaced samples; (S, S, C) float64."""
    x1, y1, x2, y2 = box * scale - 0.5 * aligned
    w, h = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1.0), max(y2 - y1, 1.0))
    rows = samples or max(int(np.ceil(h / size)), 1)
    columns = samples or max(int(np.ceil(w / size)), 1)
    out = np.zeros((size, size, feature.shape[2]))
    for i, j in np.ndindex(size, size):
        points = [
            (y1 + (i + (a + 0.5) / rows) * h / size, x1 + (j + (b + 0.5) / columns) * w / size)
            for a, b in np.ndindex(rows, columns)
        ]
        out[i, j] = np.mean([bilinear(feature, y, x) for y, x in points], 0)
    return out


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [0, 2, 3])
def test_kernel_matches_the_definition(aligned, samples, rng):
    feature = rng.standard_normal((18, 25, 5)).astype(np.float32)
    corner = rng.uniform(-10, 90, (12, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.5, 70, (12, 2))], 1).astype(np.float32)
    pooled = np.empty((12, 7, 7, 5), np.float32)
    zeros, pooling = np.zeros(12, np.int64), "aligned" if aligned else "shifted"
    pool_arrays([feature[None]], boxes, zeros, zeros, pooled, (4,), samples, pooling)
    for box, actual in zip(boxes.astype(np.float64), pooled, strict=True):
        assert np.abs(actual - averaged_bins(feature, box, 7, 1 / 4, samples, aligned)).max() < 1e-5


def test_linear_ramp_is_sampled_exactly():
    _, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    ramp = (x + 0.5) * 4  # the value at a cell's centre is its x coordinate in pixels
    box = torch.tensor([[20.0, 24.0, 76.0, 80.0]])
    pooled = pool([ramp[None, None]], box, torch.tensor([0]), size=7, strides=(4,), conventions=NATIVE)
    centers = 20 + (torch.arange(7) + 0.5) * 8
    assert torch.allclose(pooled[0, 0], centers.expand(7, 7), atol=1e-4)


def test_no_boxes_give_no_features():
    feature = torch.randn(1, 8, 16, 16, requires_grad=True)
    pooled = pool(
        [feature],
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.int64),
        size=7,
        strides=(4,),
        conventions=NATIVE,
    )
    pooled.sum().backward()
    assert pooled.shape == (0, 8, 7, 7)
    assert (feature.grad == 0).all()


def test_corner_pooling_matches_a_plain_gather():
    """Forward and backward, on boxes that leave the map or end exactly on its last cell."""
    generator = torch.Generator().manual_seed(5)
    features = [torch.randn(2, 20, 24, 40, generator=generator).requires_grad_()]
    boxes = torch.rand(50, 4, generator=generator) * 1.1
    boxes = torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])], 1)
    boxes[:10, 2:] = 1.0
    image_index = torch.randint(0, 2, (50,), generator=generator)
    ours = pool(features, boxes, image_index, size=7, strides=(4,), conventions=MATTERPORT)
    plain = crop_and_resize(features[0], boxes, image_index, 7)
    assert (ours - plain).abs().max() < 1e-5
    grad = torch.randn(ours.shape, generator=generator)
    a, b = (torch.autograd.grad(out, features[0], grad)[0] for out in (ours, plain))
    assert (a - b).abs().max() < 2e-5


@pytest.mark.parametrize("pooling", ["aligned", "corners"])
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck reads it
def test_roi_align_passes_opcheck(pooling, rng):
    """opcheck covers the schema, the gradient and the shapes of fake tensors."""
    features = [torch.randn(2, 8, 16 // k, 12 // k, requires_grad=True) for k in (1, 2)]
    corner = rng.uniform(0, 30, (6, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + rng.uniform(1, 18, (6, 2))], 1).astype(np.float32))
    image_index, levels = torch.arange(6) % 2, torch.arange(6) // 2 % 2
    torch.library.opcheck(roi_align, (features, boxes, image_index, levels, 7, [4, 8], 1, pooling))


def test_assign_levels_follows_the_fpn_paper():
    boxes = torch.tensor([[0.0, 0, 224, 224], [0, 0, 112, 112], [0, 0, 448, 448], [0, 0, 5, 5], [0, 0, 2000, 2000]])
    assert assign_levels(boxes.numpy(), [(0, 0)] * 4, 4, NATIVE).tolist() == [2, 1, 3, 0, 3]


@pytest.mark.parametrize("conventions", [NATIVE, MATTERPORT], ids=lambda c: c.name)
def test_torch_pooling_matches_the_kernel(conventions):
    """Maps in double precision take the GPU's path of torch operations, level by level."""
    generator = torch.Generator().manual_seed(3)
    features = [torch.randn(2, 6, 64 // 2**k, 48 // 2**k, generator=generator).requires_grad_() for k in range(4)]
    corner = torch.rand(40, 2, generator=generator) * 120
    boxes = torch.cat([corner, corner + torch.rand(40, 2, generator=generator) ** 3 * 500 + 1], 1)
    boxes = boxes / 640 if conventions.normalized_boxes else boxes
    image_index = torch.randint(0, 2, (40,), generator=generator)
    levels = assign_levels(boxes.numpy(), [f.shape[2:] for f in features], 4, conventions)
    assert len(set(levels.tolist())) > 1
    settings = {"size": 7, "strides": STRIDES, "conventions": conventions}
    ours = pool(features, boxes, image_index, **settings)
    theirs = pool([f.double() for f in features], boxes, image_index, **settings)
    assert theirs.dtype == torch.float64
    assert (ours - theirs).abs().max() < 1e-4
    grad = torch.randn(ours.shape, generator=generator)
    gradients = (torch.autograd.grad(out, features, grad.to(out.dtype)) for out in (ours, theirs))
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() < 1e-4


@pytest.mark.parametrize("conventions", [NATIVE, MATTERPORT], ids=lambda c: c.name)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_maps_are_pooled_at_exact_positions(conventions, half):
    """Corners keep float32: bfloat16 would move one at 500 px by up to 1 px, two thirds of a cell here."""
    generator = torch.Generator().manual_seed(1)
    feature = torch.randn(1, 8, 160, 160, generator=generator).to(half)
    corner = 400 + torch.rand(30, 2, generator=generator) * 200
    boxes = torch.cat([corner, corner + 8 + torch.rand(30, 2, generator=generator) * 24], 1)
    boxes = boxes / 640 if conventions.normalized_boxes else boxes
    settings = {"size": 7, "strides": (4,), "conventions": conventions}
    with torch.autocast("cpu", half):
        pooled = pool([feature], boxes, torch.zeros(30, dtype=torch.int64), **settings)
    exact = pool([feature.float()], boxes, torch.zeros(30, dtype=torch.int64), **settings)
    assert pooled.dtype == half
    assert ((pooled.float() - exact).abs() <= torch.finfo(half).eps * exact.abs() + 1e-6).all()


def half_precision_scene(seed, boxes_at=None):
    """Maps (2, 24, M, N) float32 that bfloat16 holds exactly, boxes, images and levels: arguments of `roi_align`."""
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(2, 24, 96 // 2**k, 80 // 2**k, generator=generator).bfloat16().float() for k in range(4)]
    corner = torch.rand(200, 2, generator=generator) * 300 - 10 if boxes_at is None else torch.tensor([boxes_at] * 200)
    boxes = torch.cat([corner, corner + 1 + torch.rand(200, 2, generator=generator) ** 3 * 350], 1)
    image_index = torch.randint(0, 2, (200,), generator=generator)
    levels = torch.from_numpy(assign_levels(boxes.numpy(), [f.shape[2:] for f in features], 4, NATIVE))
    return features, boxes, image_index, levels


def rounded_alike(half, exact):
    """Whether bfloat16 values are those of float32 rounded once, but for the order of the float32 sums."""
    tolerance = torch.finfo(torch.bfloat16).eps / 2 * exact.abs() + 1e-5
    return half.dtype == torch.bfloat16 and bool(((half.float() - exact).abs() <= tolerance).all())


@pytest.mark.parametrize("pooling", ["aligned", "shifted"])
@pytest.mark.parametrize("samples", [0, 2])
def test_bfloat16_maps_are_pooled_and_rounded_once(pooling, samples):
    features, *where = half_precision_scene(samples)
    exact = roi_align(features, *where, 7, STRIDES, samples, pooling)
    half = roi_align([f.bfloat16() for f in features], *where, 7, STRIDES, samples, pooling)
    assert rounded_alike(half, exact)


@pytest.mark.parametrize("boxes_at", [None, (40.0, 60.0)], ids=["spread", "on one place"])
def test_bfloat16_gradients_are_summed_in_float32_and_rounded_once(boxes_at):
    """Hundreds of boxes on one place add small gradients to a large sum, which bfloat16 would not take up."""
    features, *where = half_precision_scene(3, boxes_at)
    features = [f.requires_grad_() for f in features]
    halves = [f.detach().bfloat16().requires_grad_() for f in features]
    exact, half = (roi_align(maps, *where, 7, STRIDES, 2, "aligned") for maps in (features, halves))
    grad = torch.rand(exact.shape, generator=torch.Generator().manual_seed(4)).bfloat16()
    exact_gradients = torch.autograd.grad(exact, features, grad.float())
    half_gradients = torch.autograd.grad(half, halves, grad)
    assert sum(int(g.count_nonzero()) for g in half_gradients) > 1000
    assert all(map(rounded_alike, half_gradients, exact_gradients))


def test_nan_in_a_bfloat16_map_stays_nan():
    feature = torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16)
    feature[0, 1, 4, 4] = float("nan")
    one = torch.zeros(1, dtype=torch.int64)
    pooled = roi_align([feature], torch.tensor([[8.0, 8.0, 28.0, 28.0]]), one, one, 7, (4,), 2, "aligned")
    assert pooled[0, 1].isnan().any()
    assert not pooled[0, [0, 2]].isnan().any()

"""Proposals: the best anchors of each level -> decode -> clip -> non-maximum suppression -> the best of the image.

B images, L levels, T best anchors of a level, R proposals
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from maskrcnn.model.boxes import clip_boxes, decode_boxes
from maskrcnn.model.conventions import Conventions
from maskrcnn.model.rpn import RPNOutput
from maskrcnn.structures import Proposals


@torch.no_grad()
def select_proposals(
    rpn: RPNOutput,
    anchors: list[Tensor],
    windows: Tensor,
    *,
    per_level: int,
    total: int,
    nms_threshold: float,
    conventions: Conventions,
) -> Proposals:
    """At most `total` proposals an image, best first, out of the `per_level` best of each level.

    `windows` (B, 4) are what boxes are cut to; those that are then empty are dropped. Gradients do not pass. With
    joint conventions all levels count as one.
    """
    if conventions.proposals_jointly:
        rpn = RPNOutput([torch.cat(rpn.objectness_logits, 1)], [torch.cat(rpn.anchor_deltas, 1)], rpn.cells)
        anchors = [torch.cat(anchors)]
    boxes, logits, levels = [], [], []
    for level, (level_logits, deltas, grid) in enumerate(
        zip(rpn.objectness_logits, rpn.anchor_deltas, anchors, strict=True)
    ):
        if conventions.proposals_jointly:
            index = level_logits.sigmoid().sort(dim=1, descending=True, stable=True).indices[:, :per_level]
            best = level_logits.gather(1, index)
        else:
            best, index = level_logits.topk(min(per_level, level_logits.shape[1]), dim=1)  # (B, T)
        chosen = torch.gather(deltas, 1, index[..., None].expand(-1, -1, 4))  # (B, T, 4)
        boxes.append(decode_boxes(chosen, grid[index], conventions.rpn_delta_weights, conventions.delta_clip))
        logits.append(best)
        levels.append(torch.full_like(index, level))
    boxes_all = clip_boxes(torch.cat(boxes, 1), windows)
    logits_all, level_all = torch.cat(logits, 1), torch.cat(levels, 1)
    large = ((boxes_all[..., 2:] - boxes_all[..., :2]) > conventions.smallest_proposal).all(-1)
    large &= logits_all >= conventions.objectness_floor

    # Equal probabilities, such as those that round to 1, keep the order of the anchors.
    scores = logits_all.sigmoid() if conventions.proposals_jointly else logits_all
    kept = []
    for b in range(len(windows)):
        candidates = large[b].nonzero()[:, 0]
        keep = batched_nms(boxes_all[b, candidates], scores[b, candidates], level_all[b, candidates], nms_threshold)
        kept.append(candidates[keep[:total]])
    return _padded(boxes_all, logits_all, kept)


def _padded(boxes: Tensor, logits: Tensor, kept: list[Tensor]) -> Proposals:
    """Gather a different number of rows from each image into one length: (B, R, 4), (B, R), (B, R)."""
    length = max((len(k) for k in kept), default=0)
    index = torch.zeros(len(kept), length, dtype=torch.int64, device=boxes.device)
    valid = torch.zeros(len(kept), length, dtype=torch.bool, device=boxes.device)
    for b, rows in enumerate(kept):
        index[b, : len(rows)] = rows
        valid[b, : len(rows)] = True
    chosen = torch.gather(boxes, 1, index[..., None].expand(-1, -1, 4))
    return Proposals(chosen * valid[..., None], torch.gather(logits, 1, index), valid)

"""The network: image -> backbone -> fpn -> rpn; pooled boxes -> box head, mask head."""

"""image -> backbone -> fpn -> anchors -> rpn -> proposals -> roi_align -> box head, mask head."""

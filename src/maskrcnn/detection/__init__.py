"""The method between a picture and its masks: a module a step, each step written once.

fit -> (network) -> anchors -> propose -> pool -> (box head) -> select -> pool -> (mask head) -> finish

Training, every runtime and the exported graph use these definitions. Only tensors need torch.
"""

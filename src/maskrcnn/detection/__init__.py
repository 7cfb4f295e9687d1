"""The method between a picture and its masks: a module a step, each step written once.

fit -> (network) -> anchors -> propose -> pool -> (box head) -> select -> pool -> (mask head) -> finish

`detect.detect` calls the steps in this order. Training, prediction with any runtime, bundles without torch and the
exported graph all use these definitions. Nothing here needs torch unless it is given tensors.
"""

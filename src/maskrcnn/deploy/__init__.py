"""A trained model -> what runs elsewhere: bundles for OpenVINO and ONNX Runtime, torchvision's layout."""

"""A trained network -> detections in images of any size."""

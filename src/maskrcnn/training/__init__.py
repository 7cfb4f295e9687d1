"""Samples and a network -> five losses -> a trained model and its record."""

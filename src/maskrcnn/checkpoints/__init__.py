"""Model files: our own and those of other programs. Readers return a `Checkpoint`; `load` makes a `Predictor` of it."""

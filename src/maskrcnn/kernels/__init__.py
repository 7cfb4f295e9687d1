"""numba kernels: arrays in, arrays out; no torch, no files, and no state but memory and threads that are used again."""

import numba

# OpenMP comes with the system or with torch; TBB, where OpenVINO brings it along, complains of every fork.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]

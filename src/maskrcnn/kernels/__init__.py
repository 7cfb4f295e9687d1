"""numba kernels: arrays in, arrays out; no torch, no files, and no state but reused memory and threads."""

import numba

# OpenMP comes with the system or with torch. TBB, which OpenVINO may install, warns at every fork.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]

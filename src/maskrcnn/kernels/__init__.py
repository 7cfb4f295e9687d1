"""numba kernels: arrays in, arrays out; no torch, no files, and no state but reused memory and threads."""

import numba

# OpenMP comes with the system or with torch, which computes with it too.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]


def share_threads_of_tbb() -> None:
    """Take threads from TBB, if it is loaded and no kernel has run in several threads yet.

    For whoever computes with TBB: threads of OpenMP spin after each kernel, and take a core from those of TBB.
    """
    numba.config.THREADING_LAYER_PRIORITY = ["tbb", "omp", "workqueue"]  # type: ignore[attr-defined]

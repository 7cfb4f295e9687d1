#!/usr/bin/env bash
# Test and measure the package on a CUDA GPU in under 8 minutes, without a download.
#
#   bash benchmarks/gpu.sh [FOLDER]     results go to FOLDER, ./gpu-results by default
#
# It runs tests/gpu and then benchmarks/gpu.py from this checkout; the package need not be installed, but its
# dependencies must be. polars, TensorBoard and pycocotools may be missing.
set -uo pipefail
out=$(realpath -m "${1:-gpu-results}")
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src:$PWD/benchmarks"
mkdir -p "$out"

python - <<'PYTHON' || exit 2
import sys
from importlib.util import find_spec

packages = {
    "torch": "torch", "torchvision": "torchvision", "timm": "timm", "numpy": "numpy", "numba": "numba", "PIL": "pillow",
    "array_api_compat": "array-api-compat", "threadpoolctl": "threadpoolctl", "pydantic": "pydantic", "rich": "rich",
    "cyclopts": "cyclopts", "safetensors": "safetensors", "yaml": "pyyaml", "filelock": "filelock",
    "faster_coco_eval": "faster-coco-eval",
}
missing = [package for module, package in packages.items() if find_spec(module) is None]
if missing:
    sys.exit(f"missing packages: pip install {' '.join(missing)}")
import torch

if not torch.cuda.is_available():
    sys.exit("torch reports no CUDA GPU: nothing to test or measure")
PYTHON

status=0
if python -c "import pytest" 2>/dev/null; then
    # The project's settings name plugins and turn warnings into errors, for versions that this machine need not have.
    timeout 210 python -m pytest tests/gpu -m gpu -q -o filterwarnings=default -p no:cacheprovider 2>&1 |
        tee "$out/tests.txt" || status=1
else
    echo "tests/gpu was not run: pytest is not installed" | tee "$out/tests.txt"
    status=1
fi
timeout 250 python benchmarks/gpu.py --out "$out" --seconds 180 2>&1 | tee "$out/benchmark.txt" || status=1
exit $status

"""`load`, `import_checkpoint` and `save`: between files and a `Predictor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn.checkpoints.shipped import find_shipped, shipped_names
from maskrcnn.config import PrecisionChoice
from maskrcnn.errors import UserError, counted, say
from maskrcnn.inference.bundle import is_bundle, read_bundle

if TYPE_CHECKING:
    import torch

    from maskrcnn.checkpoints.native import Checkpoint
    from maskrcnn.inference.predictor import Predictor
    from maskrcnn.model.mask_rcnn import MaskRCNN

RUN_FILES = ("best.safetensors", "last.safetensors")

BATCH_COUNTER = "num_batches_tracked"
"""Batch norm's count of batches. Frozen batch norm of other programs has none, and ours never reads it."""


def load(
    path: str | Path,
    *,
    device: str = "auto",
    precision: PrecisionChoice = "auto",
    say: Callable[[str], None] = say,
) -> Predictor:
    """Open a run folder (its best, else its last weights), a model file or a bundle for prediction.

    "nuclei" and "nuclei-int8" come with the package; a file or folder of that name takes precedence. `device` is
    "auto", "cpu", "cuda", "cuda:1" or "mps". `precision` is "fp32", "bf16", "fp16", "int8" or "auto": the fastest on
    this processor of those whose cost in AP the export of a bundle measured and allowed, which `say` gets a line about;
    fp32 for what is no bundle. Raises `UserError`, also for a precision that the model or the machine lacks.
    """
    path = Path(path)
    if not path.exists():
        path = find_shipped(str(path), precision) or path
    if is_bundle(path):
        return read_bundle(path, precision, say)
    if path.is_dir():
        weights = next((path / name for name in RUN_FILES if (path / name).exists()), None)
        if weights is None:
            raise UserError(f"{path} is neither a run folder nor a bundle: it holds neither {' nor '.join(RUN_FILES)}")
        path = weights
    if not path.exists():
        raise UserError(
            f"{path}: there is no such run folder or model file, and no such model comes with the package. These do: "
            f"{', '.join(shipped_names())}"
        )
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: a model is a run folder or a .safetensors file. Convert another program's checkpoint with "
            f"maskrcnn import {path} -o NAME.safetensors"
        )
    from maskrcnn.checkpoints.native import read_model

    return open_checkpoint(read_model(path), str(path), device, precision)


def import_checkpoint(
    checkpoint: str | Path | Mapping[str, Any], source: str | None = None, **options: Any
) -> Predictor:
    """Open another program's Mask R-CNN; it gives the detections that it gave there.

    `checkpoint` is a ``.pth``, ``.pt``, ``.ckpt``, ``.pkl`` or ``.h5`` file, a dictionary of arrays or tensors, or
    "coco" or "coco-v2", torchvision's published weights, downloaded if they are not cached. `source` is "torchvision",
    "detectron2" or "matterport"; None guesses it from the names of the tensors. `options` are the fields of
    `maskrcnn.config.ImportConfig`. Class ids stay those of the source: 1 to K - 1 for torchvision and Matterport, 0 to
    K - 1 for Detectron2. ``provenance["unused"]`` lists the tensors that no model needs. Only arrays are read from a
    file, never code. Raises `UserError`, also for a tensor that is missing, unknown or misshapen.
    """
    from maskrcnn.checkpoints.foreign import read_foreign

    read = read_foreign(checkpoint, source, **options)
    return open_checkpoint(read, f"{read.provenance['source']} checkpoint", "cpu")


def open_checkpoint(checkpoint: Checkpoint, name: str, device: str, precision: PrecisionChoice = "auto") -> Predictor:
    """Build the network of a checkpoint; `name` stands for it in errors. Raises `UserError`."""
    from maskrcnn.inference.predictor import Predictor
    from maskrcnn.inference.runtimes.torch import HALF_TYPES, TorchRuntime, half_precisions, pick_device
    from maskrcnn.model.mask_rcnn import build_model

    config, ids, names = checkpoint.config, checkpoint.class_ids, checkpoint.class_names
    model = build_model(config.model, len(ids), checkpoint.conventions, freeze_norm=config.train.freeze_norm)
    load_weights(model, checkpoint.weights, name)
    picked = pick_device(device)
    offered = ["fp32", *half_precisions(picked)]
    if precision not in ("auto", *offered):
        bundle = "; int8 comes with a bundle: maskrcnn export --calibrate DATA" if precision == "int8" else ""
        raise UserError(f"{name} cannot predict in {precision} here: torch runs it in {' or '.join(offered)}{bundle}")
    runtime = TorchRuntime(model, picked, HALF_TYPES.get(precision))
    return Predictor(runtime, config, ids, names, provenance=checkpoint.provenance, reading=checkpoint.reading)


def load_weights(model: MaskRCNN, weights: dict[str, torch.Tensor], source: str) -> None:
    """Copy weights into a model. Raises `UserError` that names a missing, unknown or misshapen tensor."""
    state = model.state_dict()
    weights = {**{name: tensor for name, tensor in state.items() if name.endswith(BATCH_COUNTER)}, **weights}
    missing, unknown = sorted(set(state) - set(weights)), sorted(set(weights) - set(state))
    if missing or unknown:
        raise UserError(
            f"{source} does not fit the network: {counted(len(missing), 'tensor')} missing {missing[:2]}, "
            f"{len(unknown)} unknown {unknown[:2]}"
        )
    for name, tensor in weights.items():
        if tensor.shape != state[name].shape:
            raise UserError(f"{source}: {name} is {tuple(tensor.shape)}, the network's is {tuple(state[name].shape)}")
    model.load_state_dict(weights)


def save(predictor: Predictor, path: Path) -> None:
    """Write the model of a predictor to a model file. Raises `UserError`, also for a bundle, which has no weights."""
    from maskrcnn.checkpoints.native import Checkpoint, write_model

    write_model(path, Checkpoint(weights=predictor.model.state_dict(), **vars(predictor.description)))

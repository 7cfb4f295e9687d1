"""The package itself: public names, what an import loads, and which module may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import maskrcnn

ROOT = Path(maskrcnn.__file__).parent

# A module imports only from its own floor and from earlier floors.
FLOORS = [
    {"kernels", "config", "settings", "errors", "files", "reading"},
    {"runs", "polygons", "labels"},
    {"rle", "shapes"},
    {"fonts", "drawing", "compact_masks"},
    {"structures"},
    {"detection"},
    {"model", "data"},
    {"inference", "winograd"},
    {"checkpoints"},
    {"evaluation"},
    {"deploy", "inspection"},
    {"training"},
    {"cli"},
]
OPENS_AT_THE_CALL = {
    "inference/predictor.py": {"inspection", "training"},
    "structures.py": {"inspection"},
    "data/table.py": {"inspection"},
    "evaluation/metrics.py": {"inspection"},
}
"""A result is where users look for what can be done with it: a method may open a later floor, once it is called."""
HEAVY = {
    "torch", "torchvision", "timm", "numba", "polars", "supervision", "faster_coco_eval", "PIL", "numpy", "matplotlib",
    "IPython",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    listing = f"import sys\n{code}\nprint(*sys.modules, sep='\\n')"
    out = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout
    return {line.partition(".")[0] for line in out.splitlines()}


PUBLIC = {
    "Config", "Dataset", "Detections", "ImageError", "RLE", "RLEError", "UserError", "evaluate", "export",
    "import_checkpoint", "iou_matrix", "load", "open_dataset", "train",
}  # fmt: skip
"""The names of the design. A change here is a change for users, and belongs into the changelog."""


def test_public_names_are_those_of_the_design():
    assert set(maskrcnn.__all__) == PUBLIC
    assert set(dir(maskrcnn)) >= PUBLIC
    for name in PUBLIC:
        value = getattr(maskrcnn, name)
        assert value.__name__ == name
        assert value.__module__.startswith("maskrcnn.")


def test_import_loads_no_heavy_modules():
    assert not modules_after("import maskrcnn") & HEAVY


def test_help_loads_no_heavy_modules():
    code = "from maskrcnn.cli import main\ntry: main({})\nexcept SystemExit: pass"
    assert not modules_after(code.format(["--help"])) & HEAVY
    assert not modules_after(code.format(["convert", "--help"])) & HEAVY


def test_masks_need_no_torch():
    assert not modules_after("import maskrcnn; maskrcnn.RLE; maskrcnn.Detections") & {
        "torch",
        "torchvision",
        "timm",
        "supervision",
    }


def test_a_notebook_needs_neither_torch_nor_matplotlib():
    heavy = {"torch", "torchvision", "timm", "polars", "matplotlib", "IPython"}
    assert not modules_after("import maskrcnn.inspection.notebook, maskrcnn.inspection.plots") & heavy


def test_plots_leave_pyplot_alone():
    code = "import sys, maskrcnn.inspection.figures; print('matplotlib.pyplot' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_report_needs_no_torch():
    assert not modules_after("import maskrcnn.inspection.report") & {"torch", "torchvision", "timm"}


def test_detection_steps_need_no_torch():
    assert not modules_after("import maskrcnn.detection.detect, maskrcnn.inference.bundle") & {
        "torch",
        "torchvision",
        "timm",
    }


def test_import_has_no_side_effects():
    """Only the functions that need it set a warnings filter, block a module or change the umask."""
    code = """
import os, sys, warnings
import numpy, PIL.Image
os.umask(0o027)
filters = list(warnings.filters)
import maskrcnn, maskrcnn.files, maskrcnn.data.images, maskrcnn.inference.predictor, maskrcnn.cli
print(warnings.filters == filters, "openvino_telemetry" in sys.modules, oct(os.umask(0o027)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["True", "False", "0o27"]


def imported_by(path: Path, *, inside: bool = True) -> set[str]:
    """Subpackages that a module imports; without `inside`, only those that it imports at its top."""
    names, tree = set(), ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree) if inside else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("maskrcnn."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("maskrcnn.")}
    return names


def test_imports_follow_the_floors():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    violations = []
    for path in ROOT.rglob("*.py"):
        relative = path.relative_to(ROOT).as_posix()
        importer = relative.partition("/")[0].removesuffix(".py")
        if importer in ("__init__", "__main__"):
            continue
        opened = OPENS_AT_THE_CALL.get(relative, set())
        higher = {name for name in imported_by(path) if floor[name] > floor[importer]}
        at_import = {name for name in imported_by(path, inside=False) if floor[name] > floor[importer]}
        violations += [f"{relative} -> {name}" for name in (higher - opened) | at_import]
    assert violations == []


POSIX_ONLY = {"resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog"}


def test_modules_import_on_windows():
    """Modules that only Unix has are imported inside the functions that can do without them."""
    violations = []
    for path in ROOT.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            violations += [f"{path.relative_to(ROOT)}: {name}" for name in names if name in POSIX_ONLY]
    assert violations == []


def test_every_module_has_a_docstring():
    undocumented = [str(p) for p in ROOT.rglob("*.py") if not ast.get_docstring(ast.parse(p.read_text("utf-8")))]
    assert undocumented == []

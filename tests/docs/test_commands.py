"""Every command in the documents: the parser accepts all, and the quick ones run on a small made data set."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

import maskrcnn
from maskrcnn.cli import NAME_OF_FUNCTION, app, main
from maskrcnn.data.synthetic import write_shapes

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs/*.md", "docs/experiments/*.md", "src/maskrcnn/models/*.md"]

RUN = {
    "README.md": [
        "check train.csv --images images/",
        "split train.csv --images images/ --out val.txt",
        "evaluate train.csv --images images/ --ids val.txt --model runs/mine",
        "predict new_images/ --model runs/mine --out predictions",
        "predict cells.png --model nuclei",
        "predict photos/ --model model.safetensors",
        "predict photos/ --model bundle",
    ],
    "docs/data.md": [
        "check train.csv",
        "split train.csv --out val.txt --val 0.2",
        "predict test/ --model runs/mine --like sample_submission.csv",
    ],
    "docs/checkpoints.md": [
        "predict photos/ --model mine.safetensors --out found",
        "evaluate annotations.csv --images photos/ --model mine.safetensors",
    ],
    "docs/deploy.md": ["export runs/mine -o bundle", "predict photos/ --model small --out found", "benchmark small"],
    "docs/reports.md": [
        "evaluate train.csv --images images/ --ids val.txt --model runs/mine --report report.html",
        "evaluate other.csv --model model.safetensors --report report.html",
    ],
    "docs/training.md": ["train --resume runs/mine"],
}
"""Commands that run, by document; all others are parsed only: they train, download, quantise or read large files."""

TINY = shlex.split(
    "--backbone test_resnet --weights none --image-size 64 --channels 16 --box-channels 32 --mask-channels 16 "
    "--epochs 1 --epoch-images 2 --score-threshold 0 --detections 3"
)

OF_TORCHRUN = {"--max-restarts"}

MADE_BY_COMMAND = {"split": ["val.txt"], "export": ["bundle"]}
"""What must not exist yet when a command runs."""


def commands_in(text: str) -> list[str]:
    """Return the commands of fenced blocks and of inline code, without ``maskrcnn``, comments and other programs."""
    lines = []
    for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
        lines += block.replace("\\\n", " ").splitlines()
    lines += re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    commands = []
    for line in lines:
        for part in re.split(r"&&|\|", " ".join(line.split())):
            match = re.match(r"\s*(?:maskrcnn|python -m maskrcnn|torchrun .*-m maskrcnn)\s+([^=(].*)", part)
            if match:
                commands.append(" ".join(shlex.join(shlex.split(match[1], comments=True)).split()))
    return commands


DOCUMENTED = [
    (path.relative_to(ROOT).as_posix(), command)
    for pattern in DOCUMENTS
    for path in sorted(ROOT.glob(pattern))
    for command in dict.fromkeys(commands_in(path.read_text("utf-8")))
]


@pytest.mark.parametrize(("document", "command"), DOCUMENTED)
def test_the_parser_accepts_the_command(document, command):
    words = shlex.split(command)
    assert words[0] in NAME_OF_FUNCTION.values()
    if len(words) > 1:  # else the name of a command in a sentence
        app.parse_args(words, exit_on_error=False, print_error=False)


def test_options_in_sentences_exist():
    known = {"--help", "--version", *OF_TORCHRUN}
    for command in NAME_OF_FUNCTION.values():
        known.update(name for argument in app[command].assemble_argument_collection() for name in argument.names)
    unknown = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        if path.name != "benchmarks.md":  # names options of its scripts
            text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
            options = {option for code in re.findall(r"`(-[^`]+)`", text) for option in re.findall(r"--[\w-]+", code)}
            unknown += [f"{path.name}: {option}" for option in sorted(options - known)]
    assert unknown == []


def test_documents_hold_commands():
    assert len(DOCUMENTED) > 50
    assert {"README.md", "docs/data.md", "docs/deploy.md"} <= {document for document, _ in DOCUMENTED}


def test_the_table_of_commands_that_run_is_up_to_date():
    listed = [(document, command) for document, commands in RUN.items() for command in commands]
    assert [pair for pair in listed if pair not in DOCUMENTED] == []


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Make each file and folder that the commands name: data, pictures, a tiny trained run, a model file and bundles."""
    folder = tmp_path_factory.mktemp("documents")
    csv = write_shapes(folder, 6, seed=5, hw=(64, 64))
    with pytest.raises(SystemExit) as caught:
        main(["train", str(csv), "--val", "0.3", "--out", str(folder / "runs" / "mine"), *TINY])
    assert not caught.value.code
    data = maskrcnn.open_dataset(csv, say=lambda _: None)
    maskrcnn.export(maskrcnn.load(folder / "runs" / "mine"), folder / "bundle")
    shutil.copytree(folder / "bundle", folder / "small")
    for name in ("model.safetensors", "mine.safetensors"):
        shutil.copy(folder / "runs" / "mine" / "last.safetensors", folder / name)
    for name in ("annotations.csv", "other.csv"):
        shutil.copy(csv, folder / name)
    shutil.copytree(folder / "images", folder / "photos")
    Image.open(data.files[0]).save(folder / "cells.png")
    for name in ("new_images", "test"):
        (folder / name).mkdir()
        Image.open(data.files[0]).save(folder / name / "a.png")
    (folder / "sample_submission.csv").write_text("ImageId,EncodedPixels,ClassId\na.png,,\n")
    (folder / "val.txt").write_text(f"{data.names[0]}\n{data.names[1]}\n")
    return folder


@pytest.mark.parametrize(("document", "command"), [(d, c) for d, commands in RUN.items() for c in commands])
def test_the_command_runs(document, command, made, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    words = shlex.split(command)
    for name in MADE_BY_COMMAND.get(words[0], []):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert not caught.value.code
    for name in MADE_BY_COMMAND.get(words[0], []):
        assert (folder / name).exists()

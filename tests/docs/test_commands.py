"""Every command in the documents: the parser accepts all, and the quick ones run on a small made data set."""

import re
import shlex
import shutil

import pytest

from docs.documents import ROOT, commands_in
from maskrcnn.cli import NAME_OF_FUNCTION, app, main

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/stages/*.md",
    "docs/experiments/*.md",
    "docs/formats/*.md",
    "docs/tutorials/*.md",
    "src/maskrcnn/models/*.md",
]

USERS_PAGES = ["docs", "docs/formats", "docs/tutorials"]
"""Folders of pages whose options are those of the command. Experiments name options of scripts."""

RUN = {
    "README.md": [
        "check train.csv --images images/",
        "split train.csv --images images/ --out val.txt",
        "evaluate train.csv --images images/ --ids val.txt --model runs/mine",
        "predict new_images/ --model runs/mine --out predictions",
        "inspect new_images/a.png --model runs/mine -o a.html",
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
    "docs/deploy.md": [
        "export runs/mine -o exact",
        "predict photos/ --model small --out found",
        "predict photos/ --model bundle --precision fp32",
        "benchmark small",
    ],
    "docs/reports.md": [
        "evaluate train.csv --images images/ --ids val.txt --model runs/mine --report report.html",
        "evaluate other.csv --model model.safetensors --report report.html",
    ],
    "docs/training.md": ["train --resume runs/mine"],
}
"""Commands that run, by document; all others are parsed only: they train, download, quantise or read large files."""

OF_TORCHRUN = {"--max-restarts"}

MADE_BY_COMMAND = {"split": ["val.txt"], "export": ["exact"]}
"""What must not exist yet when a command runs."""


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
    for path in [ROOT / "README.md", *(p for folder in USERS_PAGES for p in sorted((ROOT / folder).glob("*.md")))]:
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

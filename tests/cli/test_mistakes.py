"""Each error of the parser becomes one sentence on standard error that names the option and what to do."""

import re

import pytest

from maskrcnn.cli import MISUSED, main
from maskrcnn.data.format_names import MODULES
from maskrcnn.errors import counted

MISTAKES = {
    "train x.csv --backbon resnet18": "train has no option --backbon; did you mean --backbone?",
    "train x.csv --train.lr 1": "has no option --train.lr; did you mean --lr?",
    "check x.csv --bad skip": "check has no option --bad.",
    "predict a.png --model m -xyz": "predict has no option -xyz.",
    "demo --no-json": "demo has no option --no-json; did you mean --json?",
    "predictt": "there is no command 'predictt'; did you mean predict?",
    "frobnicate": "there is no command 'frobnicate'; the commands are demo, check, convert, split,",
    "--versoin": "maskrcnn has no option --versoin; did you mean --version?",
    "check --help=3": "--help takes no value",
    "check": "maskrcnn check needs DATA.",
    "evaluate --model m": "maskrcnn evaluate needs DATA: write it before the options",
    "check --column image=a x.csv": "maskrcnn check needs DATA: write it before the options",
    "split x.csv": "maskrcnn split needs --out.",
    "split x.csv --ou y": "maskrcnn split needs --out; did you mean it by --ou?",
    "import x.pth -o": "-o needs a value.",
    "check x.csv --order": "--order needs a value: column or row.",
    "check x.csv --column": "--column needs a value.",
    "train x.csv --scale 1": "--scale needs 2 values, not 1.",
    "train x.csv --anchor-sizes --lr 1": "--anchor-sizes needs a value.",
    "demo here": "maskrcnn demo does not take 'here': leave it out",
    "train x.csv --scale 1 2 3": "maskrcnn train does not take '3'",
    "evaluate x.csv --model m --model n": "--model is given more than once",
    "train x.csv --preset resnet5": "--preset must be lite, resnet50 or resnet101, not 'resnet5'; did you mean resnet50?",
    "check x.csv --origin 2": "--origin must be 0 or 1, not '2'.",
    "train x.csv --freeze 4": "--freeze must be 'all', 'heads', '3+', '4+' or '5+', not '4'; did you mean '4+'?",
    "split x.csv --out y --val many": "--val must be a number, not 'many'.",
    "train x.csv --lr fast": "--lr must be a number, not 'fast'.",
    "benchmark m --rounds two": "--rounds: 'two' is not a whole number.",
    "split x.csv --out y --seed 1.5": "--seed: '1.5' is not a whole number.",
    "check x.csv --depth 11.6": "--depth: '11.6' is not a whole number.",
    "train x.csv --epochs 1.5": "--epochs must be a whole number, not '1.5'.",
    "import x.pth -o y --pixel-std 1 1 0": "--pixel-std must be above 0, not '0'.",
    "export m -o b --whole=maybe": "--whole must be true or false, not 'maybe'.",
    "demo --seed -1": "--seed must be at least 0, not '-1'.",
    "demo --seed 4294967296": "--seed must be below 4294967296, not '4294967296'.",
    "predict a.png --model m --score-threshold 3": "--score-threshold must be at most 1, not '3'.",
    "train x.csv --budget soon": "--budget: 'soon' is not a duration; write it like 20m, 1h30m or 90s.",
    "train x.csv --anchor-sizes 1 2": "error: anchor_sizes needs 5 values",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_wrong_command_line_ends_in_one_sentence(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    printed = capsys.readouterr()
    assert caught.value.code == MISUSED
    assert printed.out == ""
    [sentence] = printed.err.splitlines()
    assert sentence.startswith("error: ")
    assert MISTAKES[line] in sentence
    command = (
        "maskrcnn" if line.split()[0] in ("predictt", "frobnicate", "--versoin") else f"maskrcnn {line.split()[0]}"
    )
    assert sentence.endswith(f"See `{command} --help`")


@pytest.mark.parametrize("line", ["check x.csv --json --ordr row", "demo --json --seed x", "evaluate x.csv --json"])
def test_standard_output_stays_clean_for_machines(line, capsys):
    with pytest.raises(SystemExit):
        main(line.split())
    assert capsys.readouterr().out == ""


def test_help_is_no_mistake(capsys):
    for line in ("--help", "train --help", "--version"):
        with pytest.raises(SystemExit) as caught:
            main(line.split())
        assert not caught.value.code
        assert capsys.readouterr().out


def help_of(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return " ".join(word for word in capsys.readouterr().out.split() if word != "│")


@pytest.mark.parametrize("command", ["check", "train", "evaluate", "export", "inspect"])
def test_help_breaks_lines_at_the_margin_alone(command, capsys, monkeypatch):
    """And not where a line of the source ends: in a wide terminal, every option has one line."""
    monkeypatch.setenv("COLUMNS", "2000")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    rows = [line.strip("│* ") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert rows
    assert [row for row in rows if not re.match(r"-|[A-Z.]+ --", row)] == []


@pytest.mark.parametrize("command", ["check", "convert", "split", "train", "evaluate"])
def test_help_says_that_every_format_is_read(command, capsys):
    text = help_of(command, capsys)
    assert "Annotations: a file or a folder of any format." in text
    assert f"Format of the annotations: {', '.join(MODULES)}." in text
    assert "CSV" not in text.partition("--fix")[0]


def test_help_lists_the_formats_to_write(capsys):
    assert f"Format to write: {', '.join(MODULES)}." in help_of("convert", capsys)


@pytest.mark.parametrize(("command", "statuses"), [("check", "012"), ("convert", "031"), ("evaluate", "3")])
def test_help_says_how_a_command_exits(command, statuses, capsys):
    sentence = help_of(command, capsys).partition("Exits with ")[2].partition("╭")[0]
    assert re.findall(r"\d", sentence) == list(statuses)


def test_nouns_are_counted():
    assert [counted(n, "image") for n in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]
    assert counted(2, "class", "classes") == "2 classes"

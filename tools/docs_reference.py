"""Write the reference pages of the documentation site, from the command line, the settings and the docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel

import maskrcnn
from maskrcnn import evaluation
from maskrcnn.cli import COMMANDS, NAME_OF_FUNCTION, app
from maskrcnn.config import Config
from maskrcnn.detection.conventions import Conventions
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inspection import trace
from maskrcnn.inspection.explain import Explanation
from maskrcnn.rle import RunTable

GROUPS = {"model": "Model", "train": "Training", "augment": "Augmentation", "predict": "Prediction"}

PACKAGE = Path(maskrcnn.__file__).parent

MAX_LINE = 92
"""Longer signatures take a line for each parameter."""

PUBLIC = [getattr(maskrcnn, name) for name in maskrcnn.__all__]

API: dict[str, tuple[str, list[Any]]] = {
    "functions.md": ("Functions", [f for f in PUBLIC if inspect.isfunction(f)]),
    "predictor.md": ("Predictor", [Predictor]),
    "detections.md": ("Detections", [maskrcnn.Detections]),
    "dataset.md": ("Dataset", [maskrcnn.Dataset]),
    "rle.md": ("RLE", [maskrcnn.RLE, RunTable]),
    "evaluation.md": ("Evaluation", [evaluation.examine, evaluation.score, evaluation.Evaluation, evaluation.Metrics]),
    "trace.md": ("Trace", [trace.Trace, trace.Origin, trace.Truth, trace.Lesson, Explanation]),
    "conventions.md": ("Conventions", [Conventions]),
    "config.md": ("Config", [Config]),
    "errors.md": ("Errors", [e for e in PUBLIC if inspect.isclass(e) and issubclass(e, Exception)]),
}
"""Pages of the Python API: file, title, and the functions and classes that they describe."""


def write(folder: Path) -> None:
    """Write the pages to `folder`, which must not exist."""
    (folder / "commands").mkdir(parents=True)
    (folder / "api").mkdir()
    for name, text in command_texts().items():
        (folder / "commands" / f"{name}.md").write_text(command_page(name, text), "utf-8")
    (folder / "settings.md").write_text(settings_page(), "utf-8")
    for file, (title, things) in API.items():
        (folder / "api" / file).write_text(api_page(title, things), "utf-8")
    (folder / "README.md").write_text(overview(), "utf-8")


def overview() -> str:
    """Return the first page: every command and every public name in a line."""
    lines = ["# Reference", "", "Made from the code: what `--help`, the settings and the docstrings say.", ""]
    lines += ["## Commands", "", "| command | what it does |", "|---|---|"]
    for function, summary in COMMANDS.items():
        name = NAME_OF_FUNCTION[function]
        lines.append(f"| [`maskrcnn {name}`](commands/{name}.md) | {summary} |")
    lines += ["", "Every setting of a run, with its default, is on one page: [settings](settings.md).", ""]
    lines += ["## Python", "", "| name | what it is |", "|---|---|"]
    for file, (_, things) in API.items():
        for thing in things:
            lines.append(f"| [`{thing.__name__}`](api/{file}#{thing.__name__.lower()}) | {first_sentence(thing)} |")
    return "\n".join(lines) + "\n"


def command_texts() -> dict[str, str]:
    """Return what ``--help`` says about each subcommand, in Markdown."""
    summaries = {name: app[name].help for name in NAME_OF_FUNCTION.values()}
    try:
        for name in summaries:
            app[name].help = None  # its docstring says more than its line in the list of commands
        pages = re.split(r"^## maskrcnn (\S+)$", app.generate_docs(), flags=re.MULTILINE)[1:]
    finally:
        for name, summary in summaries.items():
            app[name].help = summary
    return dict(zip(pages[::2], pages[1::2], strict=True))


def command_page(name: str, text: str) -> str:
    """Return the page of a subcommand from its `text`: its usage and its options by group."""
    body = re.sub(r"^\*\*(.+)\*\*:$", r"## \1", text, flags=re.MULTILINE)
    body = re.sub(r"\*\[(default|choices): (.*?)\]\*", r"(\1: `\2`)", body).replace(" (default: `()`)", "")
    return f"# {name}\n\n{escaped(body.strip())}\n"


def settings_page() -> str:
    """Return the page with a table of each group of settings."""
    lines = [
        "# Settings",
        "",
        "Every setting is an option of `maskrcnn train` (`--image-size 640`), a key of `config.yaml` and a field of",
        "`maskrcnn.Config`. What you set is kept; what you leave alone may be chosen from the data, as the table says.",
    ]
    for key, title in GROUPS.items():
        group: type[BaseModel] = Config.model_fields[key].annotation  # type: ignore[assignment]
        schema = group.model_json_schema()["properties"]
        lines += ["", f"## {title}", "", f"{inspect.getdoc(group)} In `config.yaml`: under `{key}`.", ""]
        lines += ["| option | value | default | meaning |", "|---|---|---|---|"]
        for name, field in group.model_fields.items():
            meaning = " ".join((field.description or "").split())
            cells = [f"`--{name.replace('_', '-')}`", values_of(schema[name]), f"`{shown(field.default)}`", meaning]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def values_of(schema: dict[str, Any]) -> str:
    """Describe the values that a setting takes, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(values_of(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema["type"]
    if kind == "array":
        parts = schema.get("prefixItems")
        return f"{len(parts)} x {values_of(parts[0])}" if parts else f"list of {values_of(schema['items'])}"
    signs = {
        "exclusiveMinimum": "> ",
        "minimum": "≥ ",
        "exclusiveMaximum": "< ",
        "maximum": "≤ ",
        "multipleOf": "in steps of ",
    }
    limits = [f"{sign}{schema[limit]:g}" for limit, sign in signs.items() if limit in schema]
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "yes or no", "null": "none"}
    return " ".join([names[kind], ", ".join(limits)]).strip()


def shown(default: Any) -> str:
    """Return a default as a user writes it."""
    if isinstance(default, tuple):
        return " ".join(map(shown, default)) or "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "none" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def api_page(title: str, things: list[Any]) -> str:
    """Return the page that describes functions and classes by their signatures and docstrings."""
    depth = 1 if len(things) == 1 else 2
    heading = [f"# {title}"] if depth == 2 else []
    return "\n\n".join([*heading, *(block for thing in things for block in described(thing, depth))]) + "\n"


def described(thing: Any, depth: int) -> Iterator[str]:
    """Yield the Markdown blocks of a function or a class with its public members, from a heading of `depth` on."""
    yield f"{'#' * depth} {thing.__name__}"
    source = Path(inspect.getfile(thing)).relative_to(PACKAGE.parent).as_posix()
    yield f"Source: [`{thing.__module__}`](../../src/{source})"
    if inspect.isfunction(thing):
        yield signature(thing)
        yield docstring(thing)
        return
    yield docstring(thing)
    if is_dataclass(thing):
        yield fields_table(thing)
    for name, member in members(thing):
        yield f"{'#' * (depth + 1)} {name}"
        if isinstance(member, property):
            yield docstring(member.fget)
        else:
            yield signature(member)
            yield docstring(member)


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that `cls` defines, in the order of its source."""
    for name, member in vars(cls).items():
        value = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if not name.startswith("_") and (isinstance(value, property) or inspect.isfunction(value)):
            yield name, value


def fields_table(cls: Any) -> str:
    """Return the fields of a dataclass as a table, with shapes and units where they are described (`trace.Stage`)."""
    hints = get_type_hints(cls, include_extras=True) if issubclass(cls, trace.Trace | trace.Lesson) else {}
    stages = dict(described_fields(hints))
    if stages:
        rows = [f"| `{name}` | {s.shape} | {s.unit} | {s.meaning} |" for name, s in stages.items()]
        return "\n".join(["| field | shape | unit | meaning |", "|---|---|---|---|", *rows])
    rows = [f"| `{f.name}` | `{str(f.type).replace('|', chr(92) + '|')}` |" for f in fields(cls) if f.name[0] != "_"]
    return "\n".join(["| field | type |", "|---|---|", *rows])


def described_fields(hints: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, trace.Stage]]:
    """Yield the name and the description of each array of a trace and of its parts."""
    for name, hint in hints.items():
        stage = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, trace.Stage)), None)
        if stage:
            yield prefix + name, stage
        elif name in trace.PARTS and name != "lesson":
            yield from described_fields(get_type_hints(hint, include_extras=True), f"{name}.")


def signature(function: Any) -> str:
    """Return the signature as a code block, over several lines where it is long."""
    whole = inspect.signature(function)
    entries = [entry for entry in parameters(whole) if entry not in ("self", "cls")]
    returned = "" if whole.return_annotation is whole.empty else f" -> {whole.return_annotation}"
    text = f"{function.__name__}({', '.join(entries)}){returned}"
    if len(text) > MAX_LINE:
        lines = "".join(f"    {entry},\n" for entry in entries)
        text = f"{function.__name__}(\n{lines}){returned}"
    return f"```python\n{text}\n```"


def parameters(whole: inspect.Signature) -> Iterator[str]:
    """Yield each parameter as it stands in the source. Its annotation is the source's text already."""
    starred = False
    for parameter in whole.parameters.values():
        starred = starred or parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        annotation = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
        default = getattr(parameter.default, "__name__", None) or repr(parameter.default)
        yield f"{star}{parameter.name}{annotation}" + ("" if parameter.default is parameter.empty else f" = {default}")


def docstring(thing: Any) -> str:
    """Return a docstring as Markdown. Its single backticks name Python objects, its double ones anything else."""
    return escaped((inspect.getdoc(thing) or "").replace("``", "`"))


def first_sentence(thing: Any) -> str:
    """Return the first sentence of a docstring, on one line."""
    return " ".join(docstring(thing).partition("\n\n")[0].split()).partition(". ")[0].rstrip(".:") + "."


def escaped(text: str) -> str:
    """Escape what Markdown would take for markup outside code."""
    parts = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.DOTALL)
    return "".join(part if k % 2 else part.replace("<", "&lt;") for k, part in enumerate(parts))

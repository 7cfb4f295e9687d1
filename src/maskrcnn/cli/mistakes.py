"""What is wrong with a command line: an error of the parser -> one sentence that names the option and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any, Literal, get_args, get_origin

from cyclopts import CycloptsError
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

KINDS_OF_VALUES: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}

GLOBAL_OPTIONS = ("--help", "--version")

COMPARISONS = {">=": "at least", ">": "above", "<=": "at most", "<": "below"}
"""Words for the comparisons in cyclopts' messages, such as "Must be >= 1."."""

MIN_RESEMBLANCE = 0.65
"""Minimum `difflib` ratio of a word and the name that is suggested for it."""


def describe(error: CycloptsError, commands: Iterable[str]) -> str:
    """Return the sentence for `error`, with the nearest right name and the command that shows the help."""
    command = " ".join(["maskrcnn", *(error.command_chain or ())])
    fault = _fault(error, command, list(commands))
    return f"{fault}{'' if fault.endswith('?') else '.'} See `{command} --help`"


def _fault(error: CycloptsError, command: str, commands: list[str]) -> str:
    match error:
        case UnknownCommandError():
            [word, *_] = error.unused_tokens or [""]
            if word.startswith("-"):
                return _unknown_option(command, word, GLOBAL_OPTIONS)
            near = _nearest(word, commands) or f"; the commands are {', '.join(commands)}"
            return f"there is no command {word!r}{near}"
        case UnknownOptionError():
            names = [name for argument in error.argument_collection if argument.parse for name in argument.names]
            return _unknown_option(command, error.token.keyword or error.token.value, [*names, *GLOBAL_OPTIONS])
        case UnusedCliTokensError():
            words = ", ".join(map(repr, error.unused_tokens or []))
            return f"{command} does not take {words}: leave it out, or put a name with spaces in quotes"
        case MissingArgumentError():
            return _missing(error, command)
        case RepeatArgumentError():
            return f"{error.token.keyword} is given more than once; give it once"
        case CoercionError():
            return _unreadable_value(error)
        case ValidationError():
            return _invalid_value(error)
    error.verbose = False
    return " ".join(str(error).split()).rstrip(".")


def _unknown_option(command: str, word: str, names: Collection[str]) -> str:
    option = word.partition("=")[0]
    if option in names:
        return f"{option} takes no value"
    return f"{command} has no option {option}{_nearest(option, names)}"


def _nearest(word: str, names: Iterable[str]) -> str:
    """Suggest the name that resembles `word`, as the end of a sentence; "" if none does.

    Leading dashes do not count, nor does a group of settings: config.yaml has train.lr, the command line --lr.
    """
    name_of = {name.lstrip("-"): name for name in names}
    near = difflib.get_close_matches(word.lstrip("-").rpartition(".")[2], name_of, 1, MIN_RESEMBLANCE)
    return f"; did you mean {name_of[near[0]]}?" if near else ""


def _missing(error: MissingArgumentError, command: str) -> str:
    argument = error.argument
    assert argument is not None
    if option := getattr(error, "keyword", None):
        choices = _choices(argument.hint)
        n_values = argument.token_count()[0]
        values = f"{n_values} values, not {len(error.tokens_so_far) % n_values}" if n_values > 1 else "a value"
        return f"{option} needs {values}" + (f": {_listed(choices)}" if choices else "")
    if argument.field_info.is_positional:
        has_options = len(error.root_input_tokens or []) > len(error.command_chain or ())
        place = ": write it before the options, because some take several values" if has_options else ""
        return f"{command} needs {argument.name.lstrip('-').upper()}{place}"
    options = [word for word in error.unused_tokens or [] if word.startswith("--") and word not in argument.names]
    misspelt = difflib.get_close_matches(argument.name, options, 1)
    return f"{command} needs {argument.name}" + (f"; did you mean it by {misspelt[0]}?" if misspelt else "")


def _unreadable_value(error: CoercionError) -> str:
    name, value = _name_and_value(error)
    if error.msg is not None:
        return f"{name}: {error.msg}".rstrip(".")
    if choices := _choices(error.target_type):
        return f"{name} must be {_listed(choices)}, not {value!r}{_nearest(value, choices)}"
    kind = KINDS_OF_VALUES.get(error.target_type, f"a {getattr(error.target_type, '__name__', error.target_type)}")
    return f"{name} must be {kind}, not {value!r}"


def _invalid_value(error: ValidationError) -> str:
    from pydantic import ValidationError as InvalidSettings

    from maskrcnn.config import Config, fault

    if isinstance(error.__cause__, InvalidSettings):
        faults = []
        for item in error.__cause__.errors():
            names = [part for part in item["loc"] if isinstance(part, str) and part not in Config.model_fields]
            faults.append(fault("--" + names[-1].replace("_", "-") if names else "", item))
        return "; ".join(faults)
    name, value = _name_and_value(error)
    message = error.exception_message.rstrip(".")
    if comparison := re.fullmatch(r"Must be (>=|>|<=|<) (.+)", message):
        return f"{name} must be {COMPARISONS[comparison[1]]} {comparison[2]}, not {value!r}"
    return f"{name} = {value!r}: {message}"


def _name_and_value(error: CoercionError | ValidationError) -> tuple[str, str]:
    """Return the option, or the name of the argument, and the word that stands for its value."""
    argument = error.argument
    token = getattr(error, "token", None) or (argument.tokens[0] if argument is not None and argument.tokens else None)
    name = token.keyword if token is not None else None
    if name is None and argument is not None:
        name = argument.name.lstrip("-").upper() if argument.field_info.is_positional else argument.name
    return name or "an option", token.value if token is not None else ""


def _choices(kind: Any) -> list[str]:
    """Return the values of a Literal, also of an optional one; [] for any other type."""
    kinds = [kind, *get_args(kind)]
    return [str(value) for part in kinds if get_origin(part) is Literal for value in get_args(part)]


def _listed(choices: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))

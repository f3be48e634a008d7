"""Options of a verb: its `Config` dataclass, from the command line and from YAML.

jsonargparse does the work. Added here: the main input as a plain word (`dreamprm validate
data.jsonl`), one line per mistake with the nearest names, hyphens in option names, lists as plain
words (`--questions a.jsonl b.jsonl`), groups in `--help`, and presets, whose values are defaults:
whatever a user gives, in YAML or as an option, comes before them.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jsonargparse

from dreamprm.cli.groups import GROUPS, MAIN_INPUT, OUTPUTS

BUILT_IN = ("config", "help", "print_config")
FLAG_WORDS = ("true", "false", "yes", "no")
_UNKNOWN = (  # how jsonargparse says that a YAML file has an unknown name
    r"Option '([\w.-]+)' is not accepted",
    r"Group '([\w.]+)' does not accept option '([\w.-]+)'",
)


class UsageError(Exception):
    """The options are wrong."""


def parse(verb: str, module: ModuleType, words: Sequence[str]) -> Any:
    """The `module.Config` that the words of a command line describe.

    Args:
        verb: name of the verb.
        module: of the verb. Its `PRESETS`, if it has any, are {value of `--preset`: {option:
            default}}.
        words: what follows the verb.

    Raises:
        UsageError: in one line, with the nearest names where a name is unknown.
        SystemExit: after `--help`.
    """
    kinds = option_kinds(module.Config)
    presets: Mapping[str, Mapping[str, Any]] = getattr(module, "PRESETS", {})
    parser = _parser(verb, module, kinds)
    try:
        plain = _plain(words, kinds, MAIN_INPUT.get(verb))
        namespace = parser.parse_args(plain)
        if changes := presets.get(getattr(namespace, "preset", "")):
            parser.set_defaults(dict(changes))
            namespace = parser.parse_args(plain)
        options = parser.instantiate(namespace)
    except UsageError as error:
        raise UsageError(f"{verb}: {error}") from None
    except (jsonargparse.ArgumentError, argparse.ArgumentError) as error:
        raise UsageError(f"{verb}: {_in_one_line(str(error), kinds)}") from None
    fields = dataclasses.fields(module.Config)
    return module.Config(**{field.name: getattr(options, field.name) for field in fields})


def outputs(verb: str, config: Any) -> list[Path]:
    """What a verb writes.

    Raises:
        UsageError: one file twice.
    """
    paths = [path for name in OUTPUTS.get(verb, ()) if (path := getattr(config, name)) is not None]
    if len(set(map(os.path.realpath, paths))) < len(paths):
        raise UsageError(f"{verb}: the outputs must be different files")
    return paths


def option_kinds(config: type[Any], prefix: str = "") -> dict[str, Any]:
    """Option -> type, of a config class; those of a nested one as `outer.inner`."""
    hints = get_type_hints(config)
    kinds: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        kind = kinds[prefix + field.name] = hints[field.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            kinds |= option_kinds(kind, f"{prefix}{field.name}.")
    return kinds


def _parser(verb: str, module: ModuleType, kinds: Mapping[str, Any]) -> jsonargparse.ArgumentParser:
    main = MAIN_INPUT.get(verb)
    main_word = f"[{main.upper()}{' ...' * _is(kinds[main], list)}] " if main else ""
    parser = jsonargparse.ArgumentParser(
        prog=f"dreamprm {verb}",
        usage=f"dreamprm {verb} {main_word}[options]",
        description=(module.__doc__ or "").strip(),
        formatter_class=_HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    parser.add_class_arguments(module.Config, fail_untyped=True)
    actions = {action.dest: action for action in parser._actions}
    for name, action in actions.items():
        if _is(kinds.get(name), list):
            action.metavar = "ITEM ..."
            action.option_strings = action.option_strings[:1]  # not --name+
    all_groups: Any = parser._action_groups  # argparse has no call that moves an option
    general = next(group for group in all_groups if actions["config"] in group._group_actions)
    for title, names in GROUPS.get(verb, {}).items():
        moved = [actions[name] for name in names if name in actions]
        for group in all_groups:
            group._group_actions = [a for a in group._group_actions if a not in moved]
        parser.add_argument_group(title)._group_actions = moved
    all_groups.remove(general)
    all_groups.append(general)
    return parser


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
    """Keeps the lines of a verb's docstring; tells type and default where they say something."""

    def _get_help_string(self, action: argparse.Action) -> str:
        facts = ["required"] if action.required else []
        kind = getattr(action, "_typehint", None)
        facts += [_described(kind)] * (_without_none(kind) in (int, float))
        if action.dest not in BUILT_IN and action.default not in (None, [], {}, ""):
            facts.append(f"default: {_shown(action.default)}")
        return (action.help or "") + (f" ({', '.join(facts)})" if facts else "")


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    text = str(default)
    return text if text.isprintable() and text.strip() == text else repr(default)


def _plain(words: Sequence[str], kinds: Mapping[str, Any], main_input: str | None) -> list[str]:
    """`--name=value` for each option and for the main input, lists as JSON."""
    plain: list[str] = []
    main_words: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") and word != "-h":
            main_words.append(word)
            continue
        option, equals, value = word.removeprefix("--").partition("=")
        name, kind = ("help", None) if word == "-h" else _option(option, kinds)
        if name in ("help", "print_config"):
            plain.append(word)
        elif _is(kind, list):
            values = [value] if equals else []
            while rest and not rest[0].startswith("--"):
                values.append(rest.pop(0))
            plain.append(_list(name, values))
        elif kind is bool and not equals and (not rest or rest[0].lower() not in FLAG_WORDS):
            plain.append(f"--{name}=true")
        elif not equals and (not rest or rest[0].startswith("--")):
            raise UsageError(f"--{name} needs a value")
        else:
            value = value if equals else rest.pop(0)
            is_none = value == "none" and kind in (int | None, float | None)
            plain.append(f"--{name}={'null' if is_none else value}")
    return _main(main_words, plain, kinds, main_input) + plain


def _main(
    words: Sequence[str], plain: Sequence[str], kinds: Mapping[str, Any], option: str | None
) -> list[str]:
    """The option that words without an option's name are values of."""
    if not words:
        return []
    if option is None or any(word.startswith(f"--{option}=") for word in plain):
        more = f"; --{option} is given already" if option else ""
        raise UsageError(f"'{words[0]}' belongs to no option{more}")
    if _is(kinds[option], list):
        return [_list(option, words)]
    if len(words) > 1:
        raise UsageError(f"'{words[1]}' belongs to no option; {option} is '{words[0]}'")
    return [f"--{option}={words[0]}"]


def _option(option: str, kinds: Mapping[str, Any]) -> tuple[str, Any]:
    """Name and type of an option as it was typed."""
    outer, dot, inner = option.partition(".")
    outer = outer.replace("-", "_")
    if _is(kinds.get(outer), dict) and dot:  # keys of a dict are the user's own
        return f"{outer}.{inner}", None
    name = f"{outer}{dot}{inner.replace('-', '_')}"
    if name not in kinds and name.removesuffix("+") not in kinds and name not in BUILT_IN:
        raise UsageError(_unknown(name, kinds))
    return name, kinds.get(name.removesuffix("+"))


def _list(name: str, values: Sequence[str]) -> str:
    if not values:
        raise UsageError(f"--{name} needs at least one value")
    is_json = len(values) == 1 and values[0].startswith("[")
    return f"--{name}={values[0] if is_json else json.dumps(values)}"


def _unknown(name: str, kinds: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, [*kinds, "config"], n=2)
    return f"there is no option {name}" + (f"; did you mean {' or '.join(near)}?" if near else "")


def _in_one_line(message: str, kinds: Mapping[str, Any]) -> str:
    """What jsonargparse says, in the words of the command line."""
    line = " ".join(message.split())
    if required := re.search(r"arguments are required: ([\w., ]+)", line):
        return "required: " + ", ".join(f"--{name}" for name in required[1].split(", "))
    for pattern in _UNKNOWN:
        if unknown := re.search(pattern, line):
            return _unknown(".".join(unknown.groups()), kinds)
    wrong = re.match(r'Parser key "([\w.]+)": .*(?:Got|Given) value: (.*)', line)
    if wrong is None or wrong[1] not in kinds:
        return re.sub(r'Parser key "([\w.]+)":', r"--\1:", line)
    (name, value), kind = wrong.groups(), kinds[wrong[1]]
    if _is(kind, dict) and Any not in get_args(_without_none(kind)):
        return f"--{name} takes a name of yours with each value: --{name}.NAME {value}"
    words = map(str, get_args(_without_none(kind)))
    near = difflib.get_close_matches(value, words, n=1, cutoff=0.4)
    guess = f"; did you mean {near[0]}?" if near else ""
    return f"--{name}: expected {_described(kind)}. Got value: {value}{guess}"


def _described(kind: Any) -> str:
    """A type as a user says it.

    >>> _described(Literal["mse", "bce"] | None)
    'one of mse, bce'
    >>> _described(list[int])
    'a list of int'
    """
    kind = _without_none(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, UnionType):
        return " or ".join(map(_described, inner))
    if origin is list:
        return f"a list of {_described(inner[0])}"
    if origin is dict:
        return "a JSON object"
    return {str: "text", Path: "a path"}.get(kind, getattr(kind, "__name__", str(kind)))


def _without_none(kind: Any) -> Any:
    """X of `X | None`."""
    inner = [one for one in get_args(kind) if one is not type(None)]
    return inner[0] if get_origin(kind) in (Union, UnionType) and len(inner) == 1 else kind


def _is(kind: Any, container: type) -> bool:
    return get_origin(_without_none(kind)) is container

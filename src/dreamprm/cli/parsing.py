"""Options of a verb: its config dataclass, from the command line and from YAML.

jsonargparse does the work. Added here: one line per mistake with the nearest names, hyphens in
option names, lists as plain words (`--questions a.jsonl b.jsonl`), and presets, whose values are
defaults: whatever a user gives, in YAML or as an option, comes before them.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, get_origin, get_type_hints

import jsonargparse

from dreamprm.errors import offer

_UNKNOWN = (  # how jsonargparse says that there is no such option
    r"nrecognized arguments: --([\w.-]+)",
    r"Option '([\w.-]+)' is not accepted",
    r"Group '([\w.]+)' does not accept option '([\w.-]+)'",
)


class UsageError(Exception):
    """The options are wrong."""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
    """Keeps the lines of a verb's docstring as they are."""


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
    parser = jsonargparse.ArgumentParser(
        prog=f"dreamprm {verb}",
        usage=f"dreamprm {verb} [options]",
        description=(module.__doc__ or "").strip(),
        formatter_class=_HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,  # a word left out of an option's name is a mistake to be told
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    parser.add_class_arguments(module.Config, fail_untyped=True)
    for action in parser._actions:
        if get_origin(get_type_hints(module.Config).get(action.dest)) is list:
            action.metavar = "ITEM ..."
    presets: Mapping[str, Mapping[str, Any]] = getattr(module, "PRESETS", {})
    known = option_names(module.Config)
    try:
        plain = _plain(words, module.Config)
        namespace = parser.parse_args(plain)
        if changes := presets.get(getattr(namespace, "preset", "")):
            parser.set_defaults(dict(changes))
            namespace = parser.parse_args(plain)
        found = parser.instantiate(namespace)
    except UsageError as error:
        raise UsageError(f"{verb}: {error}") from None
    except (jsonargparse.ArgumentError, argparse.ArgumentError) as error:
        raise UsageError(f"{verb}: {_one_line(str(error), known)}") from None
    fields = {field.name for field in dataclasses.fields(module.Config)}
    return module.Config(**{name: getattr(found, name) for name in fields})


def option_names(config: type[Any], prefix: str = "") -> list[str]:
    """All options of a config class; those of a nested one as `outer.inner`."""
    names = ["config"] if not prefix else []
    for name, kind in get_type_hints(config).items():
        names.append(prefix + name)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            names += option_names(kind, f"{prefix}{name}.")
    return names


def _plain(words: Sequence[str], config: type[Any]) -> list[str]:
    """Hyphens in option names to underscores, and lists of words to JSON."""
    kinds = get_type_hints(config)
    plain: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            plain.append(word)
            continue
        option, equals, value = word.partition("=")
        outer, dot, inner = option[2:].partition(".")
        outer = outer.replace("-", "_")
        if get_origin(kinds.get(outer)) is not dict:  # keys of a dict are the user's own
            inner = inner.replace("-", "_")
        option = f"--{outer}{dot}{inner}"
        is_last = not rest or rest[0].startswith("--")
        if kinds.get(outer) is bool and not equals and is_last:  # a flag
            equals, value = "=", "true"
        if get_origin(kinds.get(outer)) is list:
            values = [value] if equals else []
            while rest and not rest[0].startswith("--"):
                values.append(rest.pop(0))
            if not values:
                raise UsageError(f"{option[2:]} needs at least one value")
            is_json = len(values) == 1 and values[0].startswith("[")
            equals, value = "=", values[0] if is_json else json.dumps(values)
        plain.append(option + equals + value)
    return plain


_NAMED = r"\1 takes a name of yours with each value: \1.NAME \2"
_UNION = re.compile(
    r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: (.*?) "
    r"Given value type: .*? Given value: (\S+)"
)


def _kinds(match: re.Match[str]) -> str:
    kinds = [kind for kind in re.findall(r"- expected (\w+)", match[1]) if kind != "NoneType"]
    return f"expected {' or '.join(kinds) or 'another kind'}. Got value: {match[2]}"


def _one_line(message: str, known: Sequence[str]) -> str:
    line = " ".join(message.split())
    line = re.sub(r"Expected a <class '(\w+)'>", r"expected \1", line)
    line = re.sub(r"Expected a typing.Literal\[(.*?)\]", r"expected one of \1", line)
    line = re.sub(r'Parser key "([\w.]+)":', r"--\1:", line)
    line = re.sub(r"(--[\w.]+): expected dict\. Got value: (\S+)", _NAMED, line)
    line = _UNION.sub(_kinds, line)
    if required := re.search(r"the following arguments are required: ([\w., ]+)", line):
        names = ", ".join(f"--{name}" for name in required[1].split(", "))
        return line.replace(required[1], names)
    if choice := re.search(r"expected one of (.*)\. Got value: (\S+)", line):
        offered = offer(choice[2], re.findall(r"'([^']*)'", choice[1]))
        return f"{line}; {offered}" if offered.startswith("did you mean") else line
    unknown = next(filter(None, (re.search(pattern, line) for pattern in _UNKNOWN)), None)
    if unknown is None:
        return line
    near = difflib.get_close_matches(".".join(unknown.groups()), known, n=2)
    return f"{line}; did you mean {' or '.join(near)}?" if near else line

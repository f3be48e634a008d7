"""The command line: `dreamprm VERB ...`, one file per verb.

A verb's module holds its docstring (the head of its `--help`), a frozen dataclass `Config` and
`run(config)`. Nothing of it is imported before the verb is known, and the heavy packages not before
the options are parsed, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from dreamprm import __version__
from dreamprm.errors import DreamPRMError, offer, shortened

VERBS = {
    "questions": "a data set, by hub name or path -> questions",
    "sample": "questions -> candidates (N reasonings per question)",
    "label": "candidates -> Monte Carlo labels on every step",
    "meta": "candidates -> a balanced meta set, apart from training and benchmarks",
    "status": "what sampling and labelling have done, what is left, and the cost",
    "convert": "one data format -> another",
    "validate": "an account of a data file: counts, labels, defects",
    "weigh": "labelled trajectories -> weights by data selection, as baselines",
    "train": "labelled trajectories -> a process reward model and its domain weights",
    "score": "reward model + candidates -> step scores",
    "select": "questions (or candidates and scores) -> the chosen answer of each",
    "evaluate": "outcomes + scores -> accuracy of every way of choosing",
    "benchmark": "responses or step scores -> figures of a published benchmark",
    "compare": "result files -> differences on shared questions, and how sure they are",
    "report": "an evaluation, or any number of result files -> one HTML page",
    "serve": "reward model -> scores over HTTP",
    "export": "reward model -> the form that vLLM serves",
    "push": "reward model -> the Hugging Face hub, with a model card",
    "demo": "all of it on the embedded model, in minutes",
}
"""Verb -> what it turns into what. The module is `dreamprm.cli.<verb>`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns:
        0; 1 for bad input or a failed environment; 2 for wrong options; 130 when interrupted. Bugs
        keep their traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    verb = words[0]
    if verb == "--version":
        print(f"dreamprm {__version__}")
        return 0
    if verb not in VERBS:
        return _fail(f"unknown verb '{verb}'; {offer(verb, VERBS)}", 2)
    return _run(verb, words[1:])


def overview() -> str:
    """The text of `dreamprm --help`."""
    verbs = "\n".join(f"  {verb:<10}{text}" for verb, text in VERBS.items())
    return f"""usage: dreamprm VERB [options]

Multimodal process reward models with learned domain weights.

verbs:
{verbs}

  dreamprm VERB --help    options of a verb, with an example
  dreamprm --version

Every option can also stand in a YAML file: dreamprm VERB --config options.yaml"""


def _run(verb: str, words: list[str]) -> int:
    try:
        from dreamprm.cli import terminal
        from dreamprm.cli.parsing import UsageError, outputs, parse
        from dreamprm.data.files import locked

        module = importlib.import_module(f"dreamprm.cli.{verb}")
        try:
            config = parse(verb, module, words)
            with terminal.one_line_warnings(), ExitStack() as locks:
                for output in outputs(verb, config):
                    locks.enter_context(locked(output))
                module.run(config)
            sys.stdout.flush()
        except UsageError as error:
            return _fail(str(error), 2)
        except DreamPRMError as error:
            return _fail(str(error), 1)
        except Exception as error:
            if (line := terminal.refusal(error)) is None:
                raise
            return _fail(line, 1)
    except KeyboardInterrupt:
        start = "\n" if sys.stderr.isatty() else ""  # behind the ^C that a terminal shows
        print(f"{start}interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except SystemExit as done:  # --help
        return int(done.code or 0)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"dreamprm: error: {shortened(message)}", file=sys.stderr)
    return code

"""Options of the command line: help, mistakes, YAML, presets."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from dreamprm.cli import VERBS, evaluate, label, main, parsing, select, train
from dreamprm.cli.groups import GROUPS, MAIN_INPUT
from dreamprm.training.config import preset
from tests.conftest import Refused


def test_help_of_the_program_and_of_every_verb_comes_without_torch() -> None:
    verbs = list(VERBS)
    code = (
        "import sys; from dreamprm.cli import main\n"
        f"for words in [['--help']] + [[verb, '--help'] for verb in {verbs}]:\n"
        "    assert main(words) == 0\n"
        "    heavy = {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in verbs:
        assert f"usage: dreamprm {verb} [" in done.stdout


def test_help_shows_the_note_of_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "lower steps between two upper steps" in " ".join(text.split())
    titles = [f"\n{title}:\n" for title in GROUPS["train"]]
    assert [text.count(title) for title in titles] == [1] * len(titles)
    *groups, rest = re.split("|".join([*titles, "\noptions:\n"]), text)[1:]
    assert [re.findall(r"^  --(\w+)", group, re.M) for group in groups] == [
        *map(list, GROUPS["train"].values())
    ]
    assert set(parsing.option_kinds(train.Config)) == {*chain(*GROUPS["train"].values())}
    assert "--config" in rest


def test_an_unknown_verb_is_answered_with_the_nearest(refused: Refused) -> None:
    assert "did you mean evaluate" in refused(["evalute"], 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trajectory", "t.jsonl"], "did you mean trajectories?"),
        (["--n", "eight"], "--n: expected int. Got value: eight"),
        (["--method", "beam"], "did you mean beam_search"),
        (["--prompt", "question"], "expected one of five_steps, plain, bare. Got value: question"),
        (["--output"], "--output needs a value"),
        (["q.jsonl", "more.jsonl"], "'more.jsonl' belongs to no option; questions is 'q.jsonl'"),
        (["q.jsonl", "--questions", "p.jsonl"], "'q.jsonl' belongs to no option"),
        (["--question", "q.jsonl"], "did you mean questions?"),
        (["--config", "{folder}/unknown.yaml"], "did you mean aggregation?"),
        (["--config", "{folder}/type.yaml"], "--n: expected int. Got value: eight"),
        (["--config", "{folder}/broken.yaml"], "config"),
        ([], "required: --questions, --output"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(
    words: list[str], said: str, tmp_path: Path, refused: Refused
) -> None:
    needed = "{questions: q.jsonl, trajectories: t.jsonl, output: o.jsonl, %s}"
    (tmp_path / "unknown.yaml").write_text(needed % "agregation: min")
    (tmp_path / "type.yaml").write_text(needed % "n: eight")
    (tmp_path / "broken.yaml").write_text("questions: [q.jsonl")
    assert said in refused(["select", *(word.format(folder=tmp_path) for word in words)], 2)


def test_options_may_have_hyphens_lists_are_plain_words_and_keys_of_a_dict_stay() -> None:
    words = ["--questions", "a.jsonl", "b.jsonl", "--trajectories=t.jsonl", "--main-method=my-prm"]
    config = parsing.parse("evaluate", evaluate, [*words, "--scores.my-prm", "s.jsonl"])
    assert config.questions == [Path("a.jsonl"), Path("b.jsonl")]
    assert config.trajectories == [Path("t.jsonl")]
    assert config.scores == {"my-prm": Path("s.jsonl")}
    assert config.main_method == "my-prm"


def test_the_main_input_may_stand_without_its_option() -> None:
    words = ["q.jsonl", "--single_steps", "--output", "o.jsonl"]
    config = parsing.parse("select", select, words)
    assert (config.questions, config.single_steps) == (Path("q.jsonl"), True)
    words = ["a.jsonl", "b.jsonl", "--questions", "q.jsonl"]
    assert parsing.parse("evaluate", evaluate, words).trajectories == [
        Path("a.jsonl"),
        Path("b.jsonl"),
    ]
    words = ["--questions=q", "--domain_completions.my-set", "3", "t.jsonl", "--output", "o"]
    config = parsing.parse("label", label, words)
    assert config.trajectories == Path("t.jsonl")
    assert config.domain_completions == {"my-set": 3}
    for verb, option in MAIN_INPUT.items():
        module = importlib.import_module(f"dreamprm.cli.{verb}")
        assert option in parsing.option_kinds(module.Config)


def test_a_preset_gives_way_to_yaml_and_yaml_to_an_option(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "{preset: paper, output_dir: x, max_steps: 7, unroll_steps: 3}"
    )
    words = ["--config", str(tmp_path / "c.yaml"), "--unroll-steps", "2"]
    found = parsing.parse("train", train, words).settings()
    assert found == preset("paper", max_steps=7, unroll_steps=2, save_steps=100)


def test_a_bool_option_without_a_value_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["questions", "--list"]) == 0
    listed = capsys.readouterr().out
    assert "scienceqa" in listed
    assert main(["questions", "--list", "true"]) == 0
    assert capsys.readouterr().out == listed

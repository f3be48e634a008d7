"""The public API: what README shows runs, docstring examples hold, imports are lazy."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import dreamprm as dp
from examples import train_and_choose as example

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SMALLER = {
    '"Qwen/Qwen2-VL-2B-Instruct"': '"tiny"',
    '"Qwen/Qwen2.5-VL-7B-Instruct", base_urls=["http://localhost:8000/v1"]': '"tiny"',
    "max_steps=2000": "max_steps=20",
}
"""README's values, and those of the example."""


def test_what_readme_shows_trains_a_model_that_weighs_domains_and_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example.write_data()

    async def notebook() -> None:
        example.train_and_choose()  # inside a running event loop

    asyncio.run(notebook())
    weights, scores, answer = capsys.readouterr().out.splitlines()
    learned = eval(weights)
    assert learned["clean"] > 2 * learned["inverted"]
    assert all(0 < score < 1 for steps in eval(scores) for score in steps)
    prm, policy = dp.PRM.from_pretrained("prm"), dp.Policy("tiny")
    question = dp.load("meta_questions.jsonl", "meta.jsonl").questions[0]
    best = dp.best_of_n(question, policy, prm, n=8)  # outside of any loop
    assert (len(best.candidates), str(best.answer)) == (8, answer)


def test_the_code_of_readme_is_the_code_of_the_example() -> None:
    shown = README.split("```python\nimport dreamprm as dp\n\n")[1].split("```")[0]
    for large, small in SMALLER.items():
        assert large in shown
        shown = shown.replace(large, small)
    assert shown in textwrap.dedent(inspect.getsource(example.train_and_choose).split('"""\n')[1])


@pytest.mark.parametrize("name", [name for name in dp.__all__ if callable(getattr(dp, name))])
def test_docstring_examples_hold(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    public = getattr(dp, name)
    module = importlib.import_module(public.__module__)
    for found in doctest.DocTestFinder().find(public, name, globs=vars(module).copy()):
        assert doctest.DocTestRunner().run(found).failed == 0, found.name


def test_importing_the_package_imports_nothing_heavy_and_every_name_is_found() -> None:
    code = "import sys, dreamprm; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(dp, name) is not None for name in dp.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = dp.nonsense  # type: ignore[attr-defined]

"""The examples run, and show what they say they show."""

from __future__ import annotations

import sys

import pytest
import torch

from examples.noisy_classes import ANNOTATORS, Results, World, compare, main, make_world

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(seed=0)


@pytest.fixture(scope="module")
def results(world: World) -> Results:
    return compare(world, max_steps=600)


def test_annotators_with_many_wrong_labels_end_below_those_with_few(results: Results) -> None:
    weights = dict(zip(ANNOTATORS, results.annotators.tolist(), strict=True))
    noisy = [weights[name] for name, wrong in ANNOTATORS.items() if wrong >= 0.5]
    good = [weights[name] for name, wrong in ANNOTATORS.items() if wrong <= 0.1]
    assert max(noisy) < 0.5 * min(good)


def test_examples_with_a_wrong_label_end_below_the_others(world: World, results: Results) -> None:
    right = world.given == world.true
    assert results.examples[right].mean() > 2 * results.examples[~right].mean()


def test_more_labels_are_put_right_than_spoiled(world: World, results: Results) -> None:
    right, now = world.given == world.true, results.labels.argmax(1) == world.true
    assert now[~right].float().mean() > 0.5
    assert now[right].float().mean() > 0.8


def test_accuracy_with_what_was_learned_is_above_that_with_all_weights_1(results: Results) -> None:
    plain, oracle = results.accuracy["all weights 1"], results.accuracy["oracle"]
    assert plain + 0.04 < results.accuracy["weights of annotators"] < oracle + 0.02
    assert results.accuracy["weights of annotators"] > results.accuracy["clean points alone"]
    assert results.accuracy["weights of examples"] > plain
    assert results.accuracy["corrected labels"] > plain


def test_the_script_prints_every_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["noisy_classes.py", "--max_steps", "6"])
    main()
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*ANNOTATORS, "oracle", "corrected labels"))

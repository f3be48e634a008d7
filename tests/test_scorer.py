"""The scorer: candidates behind one prefill, in streams, with the scores of the plain pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dreamprm.errors import DreamPRMError
from dreamprm.prm.folder import LayoutConfig, PRMConfig
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import Pair, StepScorer
from dreamprm.prm.shared_prefix import share
from dreamprm.records import Question, Trajectory
from tests.tiny_backbones import BUILDERS
from tests.tiny_models import STEPS, picture_question, random_prm

CANDIDATES = [  # they part in the first step, within a step, and not at all
    ("it is red", "so 3"),
    ("it is blue", "so", "4 then it is"),
    ("it is red", "so 3 and more"),
    ("it is red", "so 3"),
]


def one_per_prefix(model: PRM, question: Question, steps: tuple[str, ...]) -> list[float]:
    """What the paper does: every prefix is a sequence of its own, judged at its end."""
    with torch.inference_mode():
        prefixes = [model.encoder()([(question, steps[:n])]) for n in range(1, len(steps) + 1)]
        return [float(model(batch)[0, n]) for n, batch in enumerate(prefixes)]


HOW = [("value", "trajectory"), ("vocab", "prefix"), ("token", "turns")]


@pytest.mark.parametrize(
    ("backbone", "head", "layout"),
    [(name, *HOW[i % 3]) for i, name in enumerate(BUILDERS)],
)
def test_every_architecture_scores_behind_a_shared_prefix_as_prefix_by_prefix(
    backbone: str, head: str, layout: str
) -> None:
    torch.manual_seed(0)
    instruction = "" if layout == "turns" else "Judge"
    config = PRMConfig(head=head, layout=LayoutConfig(name=layout, instruction=instruction))
    model = PRM(*BUILDERS[backbone](), config).eval()
    if head != "token":
        torch.nn.init.normal_(model.head.weight, std=0.5)
    groups = [
        (picture_question("two", 1, images=2), CANDIDATES),
        (picture_question("one", 2), CANDIDATES[1:3]),
    ]
    with torch.inference_mode():
        batch = share(model.encoder(), groups)
        found = model(batch)
    expected = [one_per_prefix(model, q, steps) for q, candidates in groups for steps in candidates]
    assert batch.begins.tolist() == [0, 0, 0, 0, 1, 1]
    assert torch.tensor([z for row in expected for z in row]).std() > 0.05
    for row, mask, wanted in zip(found, batch.mask, expected, strict=True):
        torch.testing.assert_close(row[mask], torch.tensor(wanted), atol=1e-4, rtol=0)


def test_a_model_with_adapters_scores_one_questions_candidates() -> None:
    model = random_prm()
    model.add_lora(Lora())
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    question = picture_question("q", 1)
    found = model.train().score(question, CANDIDATES)
    assert model.training, "scoring leaves the mode as it was"
    model.eval()
    for scores, steps in zip(found, CANDIDATES, strict=True):
        expected = torch.tensor(one_per_prefix(model, question, steps)).sigmoid()
        assert scores == pytest.approx(expected.tolist(), abs=1e-5), "probabilities"


def test_a_prompt_is_computed_once_for_all_candidates() -> None:
    model = random_prm()
    question, steps = picture_question("q", 1), [("so 3",), ("it is",), ("it is red",)]
    encode = model.encoder()
    batch = share(encode, [(question, steps)])
    prompt, tails = len(encode.lay_out(question, steps[0]).prompt), 0
    for one in steps:
        tails += len(encode.lay_out(question, one).tail)
    assert batch.tokens <= prompt + tails


def pairs(count: int) -> Iterator[Pair]:
    for i in range(count):
        question = picture_question(f"q{i // 4}", i // 4, images=i // 4 % 2)
        steps = STEPS[: 1 + i % 4]
        yield question, Trajectory(question_id=question.id, steps=steps, sample_index=i % 4)


def test_a_stream_is_scored_before_it_ends() -> None:
    taken = 0

    def counted() -> Iterator[Pair]:
        nonlocal taken
        for pair in pairs(400):
            taken += 1
            yield pair

    scorer = StepScorer(random_prm(), batch_size=4)
    next(scorer.score(counted()))
    assert taken <= scorer.window


def test_scores_do_not_depend_on_batches_and_sharing() -> None:
    model = random_prm()
    expected = {
        (s.question_id, s.sample_index): s.logits
        for s in StepScorer(model, batch_size=1, share_prefix=False).score(pairs(22))
    }
    for batch_size in (3, 4, 64):
        told: list[int] = []
        found = list(StepScorer(model, batch_size).score(pairs(22), told.append))
        assert len(found) == sum(told) == 22
        for s in found:
            assert s.logits == pytest.approx(expected[s.question_id, s.sample_index], abs=1e-4)


def test_steps_beyond_the_context_are_counted_not_scored() -> None:
    model = random_prm(PRMConfig(layout=LayoutConfig(max_length=60)))
    question = picture_question("q", 1)
    long = ("it is red",) * 12
    t = [Trajectory(question_id="q", steps=long[: 1 + 11 * i], sample_index=i) for i in (0, 1)]
    short, cut = sorted(
        StepScorer(model).score([(question, one) for one in t]), key=lambda s: s.sample_index
    )
    assert (len(short.logits), short.cut) == (1, 0)
    assert cut.cut > 0
    assert len(cut.logits) + cut.cut == 12


def test_logits_that_are_no_numbers_are_one_line() -> None:
    model = random_prm()
    torch.nn.init.constant_(model.head.weight, float("nan"))
    with pytest.raises(DreamPRMError, match="'q0'.* not finite"):
        list(StepScorer(model).score(pairs(1)))

"""Search over steps on the policy protocol: what is result, what it costs, what survives a stop."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dreamprm
from dreamprm.errors import DreamPRMError
from dreamprm.policy import Completion, Reply, Request, RequestRefused
from dreamprm.policy.chat import read_reply
from dreamprm.policy.policy import Policy
from dreamprm.prm.folder import PRMConfig
from dreamprm.records import Question
from dreamprm.rollouts.sampler import Sampler
from dreamprm.rollouts.store import RolloutStore
from dreamprm.search.api import as_judge
from dreamprm.search.choosing import METHODS, TREES
from dreamprm.search.search import Search, SearchOptions, SearchResult, agreement
from dreamprm.steps import opening, step_end, step_stops
from tests.fake_endpoint import FakeEndpoint, Writer
from tests.scripted_policy import Scripted
from tests.tiny_models import random_prm

LENGTH = 4
QUESTION = Question(id="q", domain="d", text="Which digits?", answer="0000")


def digits(request: Request, seed: int, index: int) -> str:
    """A reasoning of four steps, each a digit from 0 to 2; right if all are 0."""
    written = [step.split()[-1] for step in request.steps]
    numbers = [
        str((seed >> (3 * i)) % 3) if index == 0 else str((seed + index * i + index) % 3)
        for i in range(LENGTH)
    ]
    whole = [*written, *numbers][:LENGTH]
    lines = [f"Step {i + 1}: {d}" for i, d in enumerate(whole)][len(written) :]
    return "\n".join([*lines, f"Final answer: {''.join(whole)}"])


@dataclass
class Judge:
    """Scores each step; as it is, knows that every digit should be 0."""

    logit: Callable[[str], float] = lambda step: 1.0 - 2.0 * int(step.split()[-1])

    def score_steps(
        self, question: Question, candidates: Sequence[Sequence[str]]
    ) -> list[tuple[float, ...]]:
        return [tuple(map(self.logit, steps)) for steps in candidates]


FLAT = Judge(lambda step: 0.5)


def search(
    options: SearchOptions, folder: Path, policy: Scripted | None = None, seed: int = 0
) -> tuple[SearchResult, Search]:
    folder.mkdir(exist_ok=True)

    async def session() -> tuple[SearchResult, Search]:
        with RolloutStore(folder / "rollouts.db") as store:
            sampler = Sampler(policy or Scripted(digits, most=1), store, seed)
            judge = Judge() if options.needs_judge else None
            asked = Search(QUESTION, sampler, options, judge, lambda text: len(text.split()))
            return await asked.run(), asked

    return asyncio.run(session())


@pytest.mark.parametrize("one_step", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_every_method_gives_a_finished_candidate_within_its_budget(
    method: str, one_step: bool, n: int, tmp_path: Path
) -> None:
    result, asked = search(SearchOptions(method, n=n, single_steps=one_step), tmp_path)
    assert 1 <= len(result.candidates) <= asked.sampled <= n
    assert result.chosen in result.candidates
    assert len(result.chosen.steps) == LENGTH
    indices = [c.trajectory.sample_index for c in result.candidates]
    assert indices == list(range(len(asked.candidates)))
    assert all(not c.open and c.trajectory.answer for c in result.candidates)
    assert result.tokens >= sum(c.tokens for c in result.candidates)
    assert result.tokens >= result.candidates[-1].spent
    assert result.trace[-1].sample_index == result.chosen.trajectory.sample_index
    assert all(a.tokens < b.tokens for a, b in zip(result.trace, result.trace[1:], strict=False))


@pytest.mark.parametrize("one_step", [True, False])
@pytest.mark.parametrize("method", TREES)
def test_going_on_from_good_steps_beats_sampling(
    method: str, one_step: bool, tmp_path: Path
) -> None:
    wins = {"best_of_n": 0, method: 0}
    for seed in range(12):
        for name in wins:
            folder = tmp_path / f"{name}-{seed}"
            n = 16 * LENGTH if one_step and name in TREES else 16  # single steps, or reasonings
            options = SearchOptions(name, n=n, width=2, expand=3, single_steps=one_step)
            result, _ = search(options, folder, seed=seed)
            wins[name] += bool(result.chosen.trajectory.outcome)
    assert wins[method] > wins["best_of_n"]


def test_a_continuation_costs_what_follows_its_prefix(tmp_path: Path) -> None:
    options = SearchOptions("step_best_of_n", n=8, width=1, expand=2)
    result, _ = search(options, tmp_path)
    whole = 3 * LENGTH + 3  # words of a reasoning from its beginning
    assert result.candidates[0].tokens == whole
    assert result.candidates[2].tokens == whole - 3


def test_a_search_by_single_steps_pays_for_steps_and_their_ends(tmp_path: Path) -> None:
    options = SearchOptions("step_best_of_n", n=64, width=1, expand=2, single_steps=True)
    result, asked = search(options, tmp_path)
    open_step = 3 + 2  # "Step 1: 0", and "Step 2" behind it
    last_step = 3 + 3  # with the final answer
    assert asked.sampled == 2 * LENGTH
    assert result.tokens == 2 * ((LENGTH - 1) * open_step + last_step)
    assert len(result.candidates) == 2


def test_a_policy_that_cannot_stop_at_steps_is_searched_all_the_same(tmp_path: Path) -> None:
    """Its texts are whole: each is a candidate, and the search goes on from their first steps."""
    sampled = {}
    for one_step in (True, False):
        folder = tmp_path / str(one_step)
        policy = Scripted(digits, most=1, stops_at_steps=False)
        options = SearchOptions("beam_search", n=30, single_steps=one_step)
        result, asked = search(options, folder, policy, seed=3)
        sampled[one_step] = asked.sampled
        assert asked.sampled == len(result.candidates) > 4
    assert sampled[True] == sampled[False]


def test_a_policy_that_stops_without_a_word_ends_the_search(tmp_path: Path) -> None:
    def nothing_behind(request: Request, seed: int, index: int) -> str:
        return "" if request.steps else "Step 1: 0\nStep 2: 0\nStep 3"

    policy = Scripted(nothing_behind, most=1, finish_reason="step")
    options = SearchOptions("step_best_of_n", n=50, single_steps=True)
    result, _ = search(options, tmp_path, policy)
    assert result.chosen.steps == ("Step 1: 0",)
    assert len(policy.asked) < 20


async def served_search(method: str, write: Writer, folder: Path) -> tuple[SearchResult, Search]:
    """By single steps, on a server that writes so behind the user's text and a prefix."""
    with (
        FakeEndpoint(continues="assistant", writer=write) as server,
        RolloutStore(folder / "r.db") as store,
    ):
        policy = Policy("fake", base_urls=[server.url], prompt="plain", continuation="assistant")
        options = SearchOptions(method, 40, single_steps=True)
        asked = Search(QUESTION, Sampler(policy, store), options, FLAT, len)
        result = await asked.run()
        await policy.close()
        return result, asked


@pytest.mark.parametrize("method", TREES)
def test_a_search_goes_on_behind_a_final_answers_line(method: str, tmp_path: Path) -> None:
    paragraphs = ["First look", "Then add", "**Final answer:**", "42"]

    def write(prompt: str, begun: str, seed: int) -> str:
        return "\n\n".join(paragraphs[sum(p in begun for p in paragraphs) :])

    result, _ = asyncio.run(served_search(method, write, tmp_path))
    assert result.chosen.trajectory.answer == "42"


@pytest.mark.parametrize("method", TREES)
def test_a_server_that_stops_at_once_is_asked_for_the_rest(method: str, tmp_path: Path) -> None:
    """Its chat template takes the blank line from the prefix, so the model writes it first."""

    def write(prompt: str, begun: str, seed: int) -> str:
        return "\n\nThen add\n\nFinal answer: 42" if begun else "First look\n\nThen add"

    result, asked = asyncio.run(served_search(method, write, tmp_path))
    assert asked.sampler.unstarted > 0
    assert result.chosen.trajectory.answer == "42"
    assert result.chosen.steps == ("First look", "Then add")
    assert len(result.candidates) > 1


PIECES = ("Step 1: a", "Step 2: b", "**Step 2:** b", "- Step 1", "Step 0: x", "\n", "\n", "\n\n")
PIECES += (" ", "Final answer:", "Final answer: 4", "**Final answer:**", "a long paragraph", "42")


@settings(max_examples=150)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["local", "named", "unnamed"]),
    st.booleans(),
    st.sampled_from(TREES),
)
def test_whatever_a_policy_writes_a_search_ends_within_its_budget(
    seed: int, kind: str, marked: bool, method: str
) -> None:
    """Texts of marks, blank lines and answers in any order, stopped as policies do."""

    class Anything(Scripted):
        def _completion(self, request: Request, text: str) -> Completion:
            if not request.one_step:
                return Completion(text)
            if kind == "local":
                end = step_end(opening(request.steps), text)
                return Completion(text, "stop" if end is None else "step")
            stops = step_stops(request.steps, marked)
            cut, stop = min([(text.find(s), s) for s in stops if s in text], default=(None, None))
            message = {"message": {"content": text[:cut]}, "finish_reason": "stop"}
            told = {"stop_reason": stop} if kind == "named" else {}
            reply = read_reply(json.dumps({"choices": [message | told]}).encode(), 1, stops)
            assert isinstance(reply, Reply)
            return reply.completions[0]

    def say(request: Request, seed: int, index: int) -> str:
        chance = random.Random(f"{seed}/{index}")
        return "".join(chance.choice(PIECES) for _ in range(chance.randint(0, 14)))

    async def session(folder: str) -> None:
        with RolloutStore(Path(folder) / "r.db") as store:
            sampler = Sampler(Anything(say), store, seed)
            options = SearchOptions(method, 24, single_steps=True)
            asked = Search(QUESTION, sampler, options, FLAT, len)
            result = await asyncio.wait_for(asked.run(), 20)
            assert asked.sampled <= 24
            assert result.candidates

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(session(folder))


def test_a_prefix_that_is_refused_ends_its_line_and_not_the_question(tmp_path: Path) -> None:
    def refuse_deep(request: Request) -> None:
        if len(request.steps) > 1:
            raise RequestRefused("too long")

    for single in (True, False):
        folder = tmp_path / str(single)
        policy = Scripted(digits, most=1, fail=refuse_deep)
        options = SearchOptions("beam_search", n=30, single_steps=single)
        result, asked = search(options, folder, policy)
        assert result.candidates
        assert asked.sampler.refusals


def test_single_steps_are_never_taken_for_whole_reasonings(tmp_path: Path) -> None:
    search(SearchOptions("beam_search", n=12, single_steps=True), tmp_path)
    result, asked = search(SearchOptions("best_of_n", n=2), tmp_path)
    assert asked.sampled == 2
    assert all(len(c.steps) == LENGTH for c in result.candidates)


def test_the_same_search_again_costs_nothing_and_gives_the_same(tmp_path: Path) -> None:
    policy = Scripted(digits, most=1)
    options = SearchOptions("beam_search", n=12)
    first, _ = search(options, tmp_path, policy)
    calls = len(policy.asked)
    again, _ = search(options, tmp_path, policy)
    assert len(policy.asked) == calls
    assert again == first


def test_a_budget_of_tokens_ends_the_search_with_what_there_is(tmp_path: Path) -> None:
    result, _ = search(SearchOptions("beam_search", n=100, max_tokens=60), tmp_path)
    assert len(result.candidates) < 20
    with pytest.raises(DreamPRMError, match="budget allows no completion"):
        search(SearchOptions("best_of_n", max_tokens=0), tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_tokens_are_passed_by_less_than_a_wave(method: str, tmp_path: Path) -> None:
    each = 3 * LENGTH + 3  # words of a reasoning
    for limit in (1, each, 5 * each, 9 * each + 1):
        folder = tmp_path / str(limit)
        result, _ = search(SearchOptions(method, n=64, max_tokens=limit), folder)
        assert result.tokens < limit + 4 * each
        if method in ("best_of_n", "weighted_vote") and limit > 4 * each:
            assert result.tokens <= limit + each, "the mean length is known by then"


@pytest.mark.parametrize("method", METHODS)
def test_a_limit_that_is_far_away_changes_nothing(method: str, tmp_path: Path) -> None:
    options = SearchOptions(method, n=40, width=2, expand=5)
    free, _ = search(options, tmp_path)
    limited, _ = search(replace(options, max_tokens=10**6), tmp_path)
    assert limited == free


def test_sampling_stops_when_candidates_agree(tmp_path: Path) -> None:
    def same(request: Request, seed: int, index: int) -> str:
        return "Step 1: 0\nFinal answer: 4"

    options = SearchOptions("self_consistency", n=32, early_stop=0.95)
    result, _ = search(options, tmp_path, Scripted(same))
    assert len(result.candidates) == 4
    result, _ = search(options, tmp_path / "b", Scripted(digits, most=1))
    assert len(result.candidates) > 4


def test_agreement_is_the_chance_to_lead() -> None:
    assert agreement([]) == agreement([None, None]) == 0.5
    assert agreement(["1"] * 8) > agreement(["1"] * 4) > agreement(["1", "1", "1", "2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "beam"}, "did you mean beam_search"),
        ({"n": 0}, "n is 0"),
        ({"early_stop": 0.3}, "between 0.5 and 1"),
    ],
)
def test_wrong_options_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(DreamPRMError, match=message):
        SearchOptions(**options)  # type: ignore[arg-type]


def test_a_method_that_needs_a_judge_says_so(tmp_path: Path) -> None:
    async def session() -> None:
        with RolloutStore(tmp_path / "r.db") as store:
            sampler = Sampler(Scripted(digits), store, 0)
            await Search(QUESTION, sampler, SearchOptions("best_of_n"), None, len).run()

    with pytest.raises(DreamPRMError, match="needs a reward model"):
        asyncio.run(session())


# ---- the public functions


@pytest.mark.parametrize("name", ["best_of_n", "weighted_vote", "beam_search"])
def test_one_call_answers_a_question_also_where_an_event_loop_is_running(name: str) -> None:
    policy = Scripted(digits, most=1)
    plain, awaited = getattr(dreamprm, name), getattr(dreamprm, f"a{name}")

    async def notebook() -> list[SearchResult]:
        one, two = await asyncio.gather(*(awaited(QUESTION, policy, Judge(), 6) for _ in range(2)))
        assert one == two
        return [plain(QUESTION, policy, Judge(), n=6), one]

    results = [plain(QUESTION, policy, Judge(), n=6), *asyncio.run(notebook())]
    assert results[0] == results[1] == results[2]
    result = results[0]
    assert 1 <= len(result.candidates) <= 6
    assert result.answer == result.trajectory.answer
    assert result.chosen in result.candidates
    assert result.score == sum(result.chosen.logits) / LENGTH
    assert plain(QUESTION, policy, Judge(), n=6, seed=1).candidates != result.candidates
    if name == "best_of_n":
        assert result.score == max(sum(c.logits) / LENGTH for c in result.candidates)
    assert all(0 < p < 1 for p in result.chosen.step_scores)


@pytest.mark.parametrize(("logits", "answer"), [((4.0, -4.0), "0"), ((4.0, 0.0), "1")])
def test_a_weighted_vote_weighs_by_scores(logits: tuple[float, float], answer: str) -> None:
    """One reasoning says 0, seven say 1."""

    def one_of_eight(request: Request, seed: int, index: int) -> str:
        return f"Step 1: {int(index > 0)}\nFinal answer: {int(index > 0)}"

    judge = Judge(lambda step: logits[int(step[-1])])
    assert dreamprm.weighted_vote(QUESTION, Scripted(one_of_eight), judge, n=8).answer == answer
    assert dreamprm.best_of_n(QUESTION, Scripted(one_of_eight), judge, n=8).answer == "0"


def test_a_step_is_chosen_by_its_own_score_and_not_by_what_follows(tmp_path: Path) -> None:
    def well_begun_or_well_ended(request: Request, seed: int, index: int) -> str:
        begun = [step.split()[-1] for step in request.steps]
        whole = [*begun, *("0222" if index else "1000")][:LENGTH]
        lines = [f"Step {i + 1}: {d}" for i, d in enumerate(whole)][len(begun) :]
        return "\n".join([*lines, f"Final answer: {''.join(whole)}"])

    policy = Scripted(well_begun_or_well_ended)
    search(SearchOptions("step_best_of_n", n=4, width=1, expand=2), tmp_path, policy)
    assert policy.asked[1][1] == ("Step 1: 0",)


def test_a_reward_model_is_asked_by_the_aggregation_that_it_was_trained_for() -> None:
    judge, count_tokens, aggregation = as_judge(random_prm(PRMConfig(aggregation="min")))
    assert aggregation == "min"
    assert count_tokens is not None
    assert count_tokens("what is 2 ?") > 0
    assert [len(z) for z in judge.score_steps(QUESTION, [["a"], ["a", "b"]])] == [1, 2]

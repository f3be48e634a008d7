"""Monte Carlo labels: K completions per step prefix; how many reach the right answer.

Candidates of one question share prefixes (the first steps above all). Each distinct prefix is
completed once and its counts serve every trajectory that begins with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from dreamprm.answers import extract_answer, verify_answer
from dreamprm.policy import Policy, Request
from dreamprm.records import Question, StepLabel, Trajectory
from dreamprm.rollouts.sample import Progress, derive_seed


def label_trajectories(
    policy: Policy,
    questions: Mapping[str, Question],
    trajectories: Sequence[Trajectory],
    completions: int,
    seed: int,
    per_domain: Mapping[str, int] | None = None,
    done: Collection[tuple[str, int]] = (),
    progress: Progress = lambda done: None,
) -> Iterator[Trajectory]:
    """Label every step of every trajectory.

    Args:
        questions: by id.
        completions: K, per distinct prefix.
        per_domain: K of some domains, where it differs.
        done: (question id, sample index) of trajectories that an earlier run has labelled.

    Yields:
        The trajectories with a label on each step, in the order given within a group of questions.
    """
    by_question: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        by_question.setdefault(trajectory.question_id, []).append(trajectory)
    by_kind: dict[tuple[bool, int], list[str]] = {}
    for question_id in by_question:
        question = questions[question_id]
        k = (per_domain or {}).get(question.domain, completions)
        by_kind.setdefault((bool(question.images), k), []).append(question_id)
    for (_, k), ids in by_kind.items():
        for group in _groups(ids, by_question, max(1, policy.batch_size // k)):
            mine = [t for question_id in group for t in by_question[question_id]]
            if all((t.question_id, t.sample_index) in done for t in mine):
                progress(len(mine))
                continue
            counts = _complete(policy, questions, mine, k, derive_seed(seed, "label", group[0]))
            for t in mine:
                if (t.question_id, t.sample_index) not in done:
                    labels = tuple(counts[t.question_id, prefix] for prefix in _prefixes(t))
                    yield t.model_copy(update={"labels": labels})
            progress(len(mine))


def _prefixes(trajectory: Trajectory) -> Iterator[tuple[str, ...]]:
    return (trajectory.steps[:i] for i in range(1, len(trajectory.steps) + 1))


def _groups(
    ids: Sequence[str], by_question: Mapping[str, Sequence[Trajectory]], capacity: int
) -> Iterator[list[str]]:
    """Questions together whose distinct prefixes fill about one call of the policy."""
    group: list[str] = []
    held = 0
    for question_id in ids:
        size = len({p for t in by_question[question_id] for p in _prefixes(t)})
        if group and held + size > capacity:
            yield group
            group, held = [], 0
        group.append(question_id)
        held += size
    if group:
        yield group


def _complete(
    policy: Policy,
    questions: Mapping[str, Question],
    trajectories: Sequence[Trajectory],
    k: int,
    seed: int,
) -> dict[tuple[str, tuple[str, ...]], StepLabel]:
    keys = list(dict.fromkeys((t.question_id, p) for t in trajectories for p in _prefixes(t)))
    requests = [Request(questions[question_id], prefix) for question_id, prefix in keys]
    size = max(1, policy.batch_size // k)
    counts = {}
    for start in range(0, len(keys), size):
        part = slice(start, start + size)
        texts = policy.sample(requests[part], k, seed + start)
        for key, request, completions in zip(keys[part], requests[part], texts, strict=True):
            question = request.question
            right = sum(
                verify_answer(
                    extract_answer(text, question.options), question.answer, question.options
                )
                for text in completions
            )
            counts[key] = StepLabel(right, k)
    return counts

"""Hypothesis strategies for records."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from dreamprm.records import Label, Question, Record, StepScores, Trajectory

text = st.text(min_size=1, max_size=40).filter(lambda value: bool(value.strip()))
image = st.binary(max_size=30) | st.sampled_from(["images/a.png", "https://example.org/a.png"])
label = st.integers(1, 20).flatmap(
    lambda total: st.builds(Label.of, st.integers(0, total), st.just(total))
) | st.builds(Label, st.floats(0, 1))
extras = st.dictionaries(
    text,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=2,
)

questions = st.builds(
    Question,
    id=text,
    domain=text,
    text=text,
    images=st.lists(image, max_size=3).map(tuple),
    options=st.lists(st.text(max_size=10), max_size=4).map(tuple),
    answer=text,
    subject=st.none() | text,
    extra=extras,
)
question_lists = st.lists(questions, max_size=4, unique_by=lambda question: question.id)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """A trajectory with labels for some, all or none of its steps."""
    steps = tuple(draw(st.lists(text, min_size=1, max_size=5)))
    labels = draw(
        st.none() | st.lists(st.none() | label, min_size=len(steps), max_size=len(steps)).map(tuple)
    )
    return Trajectory(
        question_id=draw(text),
        steps=steps,
        answer=draw(st.none() | text),
        outcome=draw(st.none() | st.booleans()),
        labels=labels,
        domain=draw(st.none() | text),
        policy=draw(text),
        sample_index=draw(st.integers(0, 1000)),
        extra=draw(extras),
    )


scores = st.builds(
    StepScores,
    question_id=text,
    sample_index=st.integers(0, 1000),
    logits=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5).map(tuple),
)

LISTS: dict[type[Record], st.SearchStrategy[list[Any]]] = {
    Question: question_lists,
    Trajectory: st.lists(trajectories(), max_size=4),
    StepScores: st.lists(scores, max_size=4),
}

"""The outcome reward model: the same model and data, supervised by the final outcome alone."""

from __future__ import annotations

from collections.abc import Sequence

from dreamprm.records import Label, Trajectory


def outcome_labels(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Label only the last step, with the outcome; trajectories without an outcome are left out.

    At inference the score of the last step is the solution's (aggregation `last`).
    """
    return [
        t.model_copy(update={"labels": (*[None] * (len(t.steps) - 1), Label(float(t.outcome)))})
        for t in trajectories
        if t.outcome is not None
    ]

"""The method, for any model: weights of training data, learned by bi-level optimisation.

A lower level fits a model on weighted data; an upper level fits the weights so that the model does
well on a separate meta set. Read in this order: `loop` (the two levels in turn), `weights` (what is
learned), `hypergradient` (why it is an inner product), `jacobian` (what the optimiser does to it),
`per_trajectory` (weights of single trajectories); `losses` has those of reward models.
`examples/noisy_classes.py` uses it on its own. The paper is DreamPRM, arXiv 2505.20241.
"""

from dreamprm.bilevel.hypergradient import Estimator, Hypergradient, Levels, MicroBatch, Settings
from dreamprm.bilevel.loop import ESTIMATORS, Bilevel, Step
from dreamprm.bilevel.per_trajectory import PerTrajectory
from dreamprm.bilevel.weights import (
    DomainWeights,
    FixedWeights,
    InstanceNet,
    InstanceTable,
    LabelCorrection,
    Weights,
)

__all__ = [
    "ESTIMATORS",
    "Bilevel",
    "DomainWeights",
    "Estimator",
    "FixedWeights",
    "Hypergradient",
    "InstanceNet",
    "InstanceTable",
    "LabelCorrection",
    "Levels",
    "MicroBatch",
    "PerTrajectory",
    "Settings",
    "Step",
    "Weights",
]

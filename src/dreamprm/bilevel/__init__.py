"""The method, for any model: weights of training data, learned by bi-level optimisation.

A lower level fits a model on weighted data; an upper level fits the weights so that the model does
well on a separate meta set. Read in this order: `loop` (the two levels in turn), `weights` (what is
learned), `hypergradient` (why it is an inner product), `jacobian` (what the optimiser does to it),
`losses`. `examples/noisy_classes.py` uses it on its own.
"""

from dreamprm.bilevel.hypergradient import Estimator, Hypergradient, MicroBatch
from dreamprm.bilevel.loop import ESTIMATORS, Bilevel, Step
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
    "MicroBatch",
    "Step",
    "Weights",
]

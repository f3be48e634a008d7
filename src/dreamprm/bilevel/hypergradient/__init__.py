"""Hypergradient estimators, one per file, behind one small signature.

An estimator watches the lower steps of a window and then says how the meta loss would change with
each domain's weight. `inner_product` is the default; `unrolled` is the exact oracle that tests hold
the others to; `finite_difference` is the paper's.
"""

from collections.abc import Callable

from torch.optim import Optimizer

from dreamprm.bilevel.hypergradient.base import Estimator, Hypergradient, LowerStep, Problem
from dreamprm.bilevel.hypergradient.finite_difference import FiniteDifference
from dreamprm.bilevel.hypergradient.inner_product import InnerProduct
from dreamprm.bilevel.hypergradient.preconditioner import Momentum, Preconditioning
from dreamprm.bilevel.hypergradient.unrolled import Unrolled

ESTIMATORS: dict[str, Callable[[Problem, Optimizer, Preconditioning, Momentum], Estimator]] = {
    "inner_product": InnerProduct,
    "finite_difference": FiniteDifference,
    "unrolled": Unrolled,
}

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "FiniteDifference",
    "Hypergradient",
    "InnerProduct",
    "LowerStep",
    "Momentum",
    "Preconditioning",
    "Problem",
    "Unrolled",
]

"""Hypergradient estimators behind one small signature.

An estimator watches the lower steps of a window and then says how the meta loss would change with
each upper-level variable. `inner_product` is the default; `unrolled` is the exact oracle that tests
hold the others to; `finite_difference` is the paper's.
"""

from collections.abc import Callable

from torch.optim import Optimizer

from dreamprm.bilevel.hypergradient.base import (
    Estimator,
    Hypergradient,
    LowerOutput,
    LowerStep,
    Problem,
    Upper,
)
from dreamprm.bilevel.hypergradient.direction import Settings
from dreamprm.bilevel.hypergradient.finite_difference import FiniteDifference
from dreamprm.bilevel.hypergradient.implicit import ConjugateGradient, Neumann
from dreamprm.bilevel.hypergradient.inner_product import InnerProduct
from dreamprm.bilevel.hypergradient.per_trajectory import Ghost, Jvp
from dreamprm.bilevel.hypergradient.preconditioner import Momentum, Preconditioning
from dreamprm.bilevel.hypergradient.unrolled import Unrolled

ESTIMATORS: dict[str, Callable[[Problem, Optimizer, Upper, Settings], Estimator]] = {
    "inner_product": InnerProduct,
    "finite_difference": FiniteDifference,
    "jvp": Jvp,
    "ghost": Ghost,
    "neumann": Neumann,
    "conjugate_gradient": ConjugateGradient,
    "unrolled": Unrolled,
}

__all__ = [
    "ESTIMATORS",
    "ConjugateGradient",
    "Estimator",
    "FiniteDifference",
    "Ghost",
    "Hypergradient",
    "InnerProduct",
    "Jvp",
    "LowerOutput",
    "LowerStep",
    "Momentum",
    "Neumann",
    "Preconditioning",
    "Problem",
    "Settings",
    "Unrolled",
    "Upper",
]

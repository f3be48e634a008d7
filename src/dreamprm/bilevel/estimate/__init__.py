"""What a training run will need, before it is started: memory, computation and time.

shapes = read_shapes("Qwen/Qwen2-VL-2B-Instruct", PRMConfig())
plan = plan_training(shapes, PRMConfig(), config, measure_lengths(encoder, pairs), domains=15)
print(render_plan(plan))
"""

from dreamprm.bilevel.estimate.lengths import Lengths, measure_lengths
from dreamprm.bilevel.estimate.plan import Plan, cheaper, measure_flops, plan_training
from dreamprm.bilevel.estimate.shapes import Shapes, read_shapes
from dreamprm.bilevel.estimate.table import render_plan

__all__ = [
    "Lengths",
    "Plan",
    "Shapes",
    "cheaper",
    "measure_flops",
    "measure_lengths",
    "plan_training",
    "read_shapes",
    "render_plan",
]

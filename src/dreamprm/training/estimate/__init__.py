"""What a training run will need, before it is started: memory, computation and time.

print(describe_run("Qwen/Qwen2-VL-2B-Instruct", PRMConfig(), config, data, device="cuda"))
"""

from dreamprm.training.estimate.dry_run import describe_run
from dreamprm.training.estimate.lengths import Lengths, measure_lengths
from dreamprm.training.estimate.plan import Plan, cheaper, measure_flops, plan_training
from dreamprm.training.estimate.shapes import Shapes, read_shapes
from dreamprm.training.estimate.table import render_plan

__all__ = [
    "Lengths",
    "Plan",
    "Shapes",
    "cheaper",
    "describe_run",
    "measure_flops",
    "measure_lengths",
    "plan_training",
    "read_shapes",
    "render_plan",
]

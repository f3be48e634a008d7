"""The whole of DreamPRM on the embedded model: sample, label, train, score, evaluate, report.

Needs no data, no network and no GPU. Writes report.html (open it in a browser), summary.json and
all files in between to the output folder.

  dreamprm demo --output_dir demo
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamprm.tiny.demo_config import DemoConfig


@dataclass(frozen=True, kw_only=True)
class Config(DemoConfig):
    """Options of demo.

    Attributes:
        output_dir: folder that gets the results.
    """

    output_dir: Path = Path("demo")


def run(config: Config) -> None:
    """Run the demo."""
    from dreamprm.cli.models import quiet_transformers
    from dreamprm.tiny.demo import run_demo

    quiet_transformers()
    print(run_demo(config, config.output_dir))

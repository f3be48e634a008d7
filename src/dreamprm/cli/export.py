r"""Write a trained PRM as vLLM serves it: adapters merged, the head one row of the model's weights.

A whole model with head `value` is saved like that by `dreamprm train`; LoRA adapters, and the heads
`vocab` and `token`, are not. The scores stay the same.

  dreamprm export prm --output served
  vllm serve served --config served/vllm.yaml
  dreamprm score --model_name_or_path served --prm_urls http://localhost:8000/v1 ...

vLLM judges at a step tag that is a special token and with a head without bias; a PRM that has other
ones (layout `turns`, a line's end as tag) is refused, and `dreamprm serve` serves it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreamprm.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of export.

    Attributes:
        model_name_or_path: folder of a PRM that `dreamprm train` wrote.
        output: folder that is served.
        base_model: path or hub name of the base of its adapters, where it has moved.
        dtype: of the weights; 16 bits halve the folder, and change scores in the third digit.
    """

    model_name_or_path: Path
    output: Path
    base_model: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


def run(config: Config) -> None:
    """Load, merge and write."""
    from dreamprm.cli.terminal import quiet_transformers
    from dreamprm.data.files import load_json_object
    from dreamprm.prm.folder import CONFIG_FILE, read_config, serve_command

    folder = config.model_name_or_path
    read_config(folder)  # is it one?
    if config.output.resolve() == folder.resolve():
        raise DataError("is the folder of the model itself; give another", file=config.output)
    from dreamprm.prm.model import PRM, export

    quiet_transformers()
    model = PRM.from_pretrained(folder, base_model=config.base_model, dtype=config.dtype)
    export(model, config.output, load_json_object(folder / CONFIG_FILE).get("domain_weights"))
    for name in ("training_config.json", "weights.json", "meta_ranking.json"):  # for the card
        if (folder / name).is_file():
            shutil.copyfile(folder / name, config.output / name)
    print(f"{config.output}: written; {serve_command(config.output)}")

"""Loading of vision-language models and their processors, with or without torchvision.

Processors of several architectures insist on a video processor, and that one insists on
torchvision. Nobody scores videos here, so for the Qwen-VL family an image-only processor of our own
takes its place: the same image processor, the same tokenizer, the same chat template.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    ProcessorMixin,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

from dreamprm.errors import DreamPRMError

TINY = "tiny"  # `tiny`, `tiny/policy`, `tiny/policy-strong`: the checkpoints in the package
_QWEN = ("qwen2_vl", "qwen2_5_vl")  # model types that share Qwen2-VL's processor


class ImageTextProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor without its video half."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]

    def to_dict(self) -> dict[str, Any]:
        """Saved under the stock class's name, so that any machine with torchvision loads it."""
        facts: dict[str, Any] = super().to_dict()
        return facts | {"processor_class": Qwen2VLProcessor.__name__}


def resolve(path: str) -> str:
    """Path or hub name of a model; names that begin with `tiny` are the embedded checkpoints."""
    if path == TINY:
        path = f"{TINY}/backbone"
    if path.startswith(f"{TINY}/") and not Path(path).exists():
        folder = Path(__file__).parent / "tiny" / "checkpoints" / path.removeprefix(f"{TINY}/")
        if not folder.is_dir():
            known = sorted(f"{TINY}/{p.name}" for p in folder.parent.glob("*") if p.is_dir())
            raise DreamPRMError(f"no embedded model '{path}'; there are: {', '.join(known)}")
        return str(folder)
    return path


def load_backbone(path: str, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Any:
    """Any `AutoModelForImageTextToText`; fp32 unless told otherwise, because it is trained."""
    try:
        return AutoModelForImageTextToText.from_pretrained(resolve(path), dtype=dtype, **kwargs)
    except (OSError, ValueError) as error:
        raise DreamPRMError(
            f"cannot load a vision-language model from '{path}': {error}"
        ) from error


def load_processor(path: str) -> Any:
    """The model's processor.

    For the Qwen-VL family it is image-only whether or not torchvision is there, so that a model
    scores alike on every machine, and a folder without a video processor (ours) loads.
    """
    path = resolve(path)
    try:
        if AutoConfig.from_pretrained(path).model_type not in _QWEN:
            return AutoProcessor.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(path)
        # The template is in the tokenizer's files or, in older repositories, in the processor's.
        facts, extra = ProcessorMixin.get_processor_dict(path)
        template = tokenizer.chat_template or (facts | extra).get("chat_template")
        return ImageTextProcessor(image_processor, tokenizer, chat_template=template)
    except (OSError, ValueError, ImportError) as error:
        raise DreamPRMError(f"cannot load the processor of '{path}': {error}") from error

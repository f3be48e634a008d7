"""Loading of vision-language models and their processors, with or without torchvision.

A model must score alike on every machine, so processors are made of the same parts everywhere: the
stock class without its video half (see `processors`), and the image processor that works with
Pillow, whose resizing differs from torchvision's by a little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    ProcessorMixin,
)
from transformers.models.auto.image_processing_auto import get_image_processor_config
from transformers.models.auto.video_processing_auto import get_video_processor_config

from dreamprm.errors import DreamPRMError
from dreamprm.models.processors import ImageTextProcessor, WithoutVideo, stock_class, without_video

__all__ = ["ImageTextProcessor", "load_backbone", "load_processor", "resolve"]

TINY = "tiny"  # `tiny`, `tiny/policy`, `tiny/policy-strong`: the checkpoints in the package


def resolve(path: str) -> str:
    """Path or hub name of a model; names that begin with `tiny` are the embedded checkpoints."""
    if path == TINY:
        path = f"{TINY}/backbone"
    if path.startswith(f"{TINY}/") and not Path(path).exists():
        folder = Path(__file__).parents[1] / "tiny" / "checkpoints" / path.removeprefix(f"{TINY}/")
        if not folder.is_dir():
            known = sorted(f"{TINY}/{p.name}" for p in folder.parent.glob("*") if p.is_dir())
            raise DreamPRMError(f"no embedded model '{path}'; there are: {', '.join(known)}")
        return str(folder)
    return path


def load_backbone(path: str, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Any:
    """Any `AutoModelForImageTextToText`; fp32 unless told otherwise, because it is trained.

    Raises:
        DreamPRMError: there is no model, or it is none that reads images and text.
    """
    folder = resolve(path)
    try:
        config = AutoConfig.from_pretrained(folder)
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            raise DreamPRMError(
                f"cannot load '{path}' as a vision-language model: its type '{config.model_type}' "
                "does not read images with text; choose one that does, such as Qwen2.5-VL, "
                "InternVL3-hf or Gemma 3"
            )
        return AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, **kwargs)
    except (OSError, ValueError) as error:
        raise DreamPRMError(
            f"cannot load a vision-language model from '{path}': {' '.join(str(error).split())}"
        ) from error


def load_processor(path: str) -> Any:
    """The model's processor, for images and text alone.

    Raises:
        DreamPRMError: there is none, it has no image processor, or it has no chat template.
    """
    folder = resolve(path)
    try:
        processor = _load_processor(folder)
    except (OSError, ValueError, ImportError) as error:
        raise DreamPRMError(
            f"cannot load the processor of '{path}': {' '.join(str(error).split())}"
        ) from error
    if not hasattr(processor, "image_processor"):
        raise DreamPRMError(
            f"cannot load the processor of '{path}': it has none for images; "
            "choose a vision-language model"
        )
    if processor.chat_template is None:  # some repositories have it in the tokenizer's files alone
        processor.chat_template = processor.tokenizer.chat_template
    if processor.chat_template is None:
        raise DreamPRMError(
            f"'{path}' has no chat template, so its prompts cannot be written; choose the "
            "instruction-tuned variant, or put its chat_template.jinja into the model's folder"
        )
    return processor


def _load_processor(folder: str) -> Any:
    config = AutoConfig.from_pretrained(folder)
    image = get_image_processor_config(folder)
    facts, _ = ProcessorMixin.get_processor_dict(folder)
    stock = stock_class(config, facts.get("processor_class") or image.get("processor_class"))
    if stock is None:  # code that comes with the model
        return AutoProcessor.from_pretrained(folder)
    processor = without_video(stock).from_pretrained(folder)
    if isinstance(processor, WithoutVideo):
        processor.video_settings = get_video_processor_config(folder)
    if "image_processor" in processor.get_attributes():
        processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor

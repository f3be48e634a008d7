"""Loading of vision-language models and their processors, with or without torchvision.

Processors of most vision-language models insist on a video processor, and every video processor
insists on torchvision. Videos are not scored here, so `without_video` derives from a stock
processor class one that takes only the other parts; all it does with images and text is stock code.
Images are resized by Pillow everywhere, because torchvision's resizing differs a little and a model
must score alike on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
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
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name
from transformers.models.auto.video_processing_auto import get_video_processor_config
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.smolvlm import processing_smolvlm

from dreamprm.errors import DreamPRMError

TINY = "tiny"  # `tiny`, `tiny/policy`, `tiny/policy-strong`: the checkpoints in the package
VIDEO = "video_processor"


def resolve(path: str) -> str:
    """Path or hub name of a model; names that begin with `tiny` are the embedded checkpoints."""
    if path == TINY:
        path = f"{TINY}/backbone"
    if path.startswith(f"{TINY}/") and not Path(path).exists():
        checkpoints = Path(__file__).parents[1] / "tiny" / "checkpoints"
        folder = checkpoints / path.removeprefix(f"{TINY}/")
        if not folder.is_dir():
            known = sorted(f"{TINY}/{p.name}" for p in checkpoints.glob("*") if p.is_dir())
            raise DreamPRMError(f"no embedded model '{path}'; there are: {', '.join(known)}")
        return str(folder)
    return path


def device_of(name: str | None) -> str:
    """The device of a name; None: a GPU where there is one, each process of a launch its own.

    Raises:
        DreamPRMError: the device cannot be used.
    """
    if name is None and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    if name is None:
        return "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        cause = str(error).splitlines()[0]
        raise DreamPRMError(f"device '{name}' cannot be used ({cause}); give another") from error
    return name


def load_backbone(
    path: str, dtype: torch.dtype = torch.float32, *, weights: bool = True, **kwargs: Any
) -> Any:
    """Any `AutoModelForImageTextToText`; fp32 unless told otherwise, because it is trained.

    `weights=False` builds it from its config alone, with random weights.

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
        if not weights:
            return AutoModelForImageTextToText.from_config(config, dtype=dtype, **kwargs)
        return AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, **kwargs)
    except (OSError, ValueError) as error:
        raise DreamPRMError(
            f"cannot load a vision-language model from '{path}': {error}"
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
        raise DreamPRMError(f"cannot load the processor of '{path}': {error}") from error
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
    facts, _ = ProcessorMixin.get_processor_dict(folder)
    image = get_image_processor_config(folder)
    name = facts.get("processor_class") or image.get("processor_class")
    stock: Any = processor_class_from_name(name) if name else None
    if stock is None and type(config) in PROCESSOR_MAPPING:  # as `AutoProcessor` finds it
        stock = PROCESSOR_MAPPING[type(config)]
    if not (isinstance(stock, type) and issubclass(stock, ProcessorMixin)):
        return AutoProcessor.from_pretrained(folder)  # code that comes with the model
    processor = without_video(stock).from_pretrained(folder)
    if isinstance(processor, WithoutVideo):
        processor.video_settings = get_video_processor_config(folder)
    if "image_processor" in processor.get_attributes():
        processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor


class WithoutVideo(ProcessorMixin):
    """Stands between a stock processor and `ProcessorMixin`, and leaves the video processor out.

    A class derived from `(Stock, WithoutVideo)` runs Stock's `__init__`, whose call of
    `super().__init__` lands here.
    """

    # What SmolVLM's `apply_chat_template` reads, also where there is no video. On the class,
    # because attributes of the instance are saved.
    video_processor = SimpleNamespace(num_frames=None, fps=None)

    def __init__(self, *parts: Any, **named: Any) -> None:
        names = super().get_attributes()  # all that the stock class takes
        kept = dict(zip(names, parts, strict=False)) | named
        kept.pop(VIDEO, None)
        super().__init__(**kept)
        self.video_settings: dict[str, Any] = {}

    @classmethod
    def get_attributes(cls) -> list[str]:
        return [name for name in super().get_attributes() if name != VIDEO]

    @classmethod
    def from_args_and_dict(
        cls, args: Sequence[Any], processor_dict: dict[str, Any], **kwargs: Any
    ) -> Any:
        """As stock, with the parts by name: the stock class has one more, anywhere among them."""
        named = dict(zip(cls.get_attributes(), args, strict=True)) | {VIDEO: None}
        return super().from_args_and_dict((), processor_dict, **named, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Saved under the stock class's name, so that any machine with torchvision loads it.

        `video_settings`, which `load_processor` fills, go along; an empty entry makes transformers
        build a video processor of defaults, and without any it would refuse.
        """
        facts: dict[str, Any] = super().to_dict()
        stock = next(c for c in type(self).__mro__ if not issubclass(c, WithoutVideo))
        return facts | {"processor_class": stock.__name__, VIDEO: self.video_settings}


class ImageTextProcessor(Qwen2VLProcessor, WithoutVideo):
    """Qwen2-VL's processor without its video half."""


def without_video(stock: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The stock processor class, without a video processor if it has one."""
    if VIDEO not in stock.get_attributes():
        return stock
    names = vars(processing_smolvlm)
    if stock is processing_smolvlm.SmolVLMProcessor and names["num2words"] is None:
        # It refuses to start without the package that spells the number of a video's frames.
        names["num2words"] = _no_number_words
    # The stock class's name is what is saved beside the tokenizer.
    return type(stock.__name__, (stock, WithoutVideo), {"__doc__": WithoutVideo.__doc__})


def _no_number_words(number: int) -> str:
    raise ImportError("videos need the package num2words, and are not supported here")

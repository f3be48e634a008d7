"""Stock processors without their video half.

Processors of most vision-language models insist on a video processor, and every video processor
insists on torchvision. Nobody scores videos here. `without_video` derives from a stock processor
class one that takes only the other parts; all that it does with images and text is the stock code.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from transformers import ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.smolvlm import processing_smolvlm

VIDEO = "video_processor"


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


def stock_class(config: Any, named: str | None) -> type[ProcessorMixin] | None:
    """The processor class of a model, as `AutoProcessor` finds it.

    Args:
        config: of the model.
        named: the class that the processor's own files name.

    Returns:
        The class; None where transformers knows none (code that comes with the model).
    """
    found: Any = processor_class_from_name(named) if named else None
    if found is None and type(config) in PROCESSOR_MAPPING:
        found = PROCESSOR_MAPPING[type(config)]
    return found if isinstance(found, type) and issubclass(found, ProcessorMixin) else None


def _no_number_words(number: int) -> str:
    raise ImportError("videos need the package num2words, and are not supported here")

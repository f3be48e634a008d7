"""Loading of models and what reads for them: a processor, or a text model's tokenizer.

A config's type says which it is: one that transformers loads as `AutoModelForImageTextToText` reads
images, one that it loads as `AutoModelForCausalLM` alone reads text.

Processors of most vision-language models insist on a video processor, and every video processor
insists on torchvision. Videos are not scored here, so `without_video` derives from a stock
processor class one that takes only the other parts; all it does with images and text is stock code.
Images are resized by Pillow everywhere, because torchvision's resizing differs a little and a model
must score alike on every machine.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    ProcessorMixin,
)
from transformers.models.auto.image_processing_auto import get_image_processor_config
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name
from transformers.models.auto.video_processing_auto import get_video_processor_config
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.smolvlm import processing_smolvlm

from dreamprm.errors import DataWarning, DreamPRMError
from dreamprm.models.templates import start_writer

M = TypeVar("M", bound=torch.nn.Module)

TINY = "tiny"  # `tiny`, `tiny/policy`, `tiny/policy-strong`: the checkpoints in the package
VIDEO = "video_processor"
HEAD_TENSOR = "score.weight"
"""Ends the name of a linear head among a model's weights; vLLM puts classifiers there."""
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
PROCESSOR_ERRORS = (ValueError, TypeError, ArithmeticError)
"""What a processor raises at a text, an image or a setting of its own that it cannot use."""


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


def source(path: str) -> tuple[str, dict[str, Any]]:
    """Folder or hub name of a model, and what transformers' `from_pretrained` needs besides.

    A file NAME.gguf, or a folder with one and without config.json, is config, tokenizer and weights
    in one, as llama.cpp writes them.

    Raises:
        DreamPRMError: the package gguf is not installed, or a folder holds several such files.
    """
    place = Path(resolve(path))
    files = [place] if place.suffix == ".gguf" and place.is_file() else sorted(place.glob("*.gguf"))
    if not files or (place / "config.json").is_file():
        return resolve(path), {}
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise DreamPRMError(f"'{path}' holds several GGUF files: give one of {names}")
    if find_spec("gguf") is None:
        raise DreamPRMError(
            f"'{path}' is a GGUF file, which needs the package gguf: pip install 'dreamprm[gguf]'"
        )
    return str(files[0].parent), {"gguf_file": files[0].name}


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


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Tell in one line why transformers, tokenizers, peft or safetensors cannot read a folder.

    A damaged file makes them raise anything at all, so this holds calls of theirs and nothing else.
    """
    try:
        yield
    except MemoryError as error:
        raise DreamPRMError(f"cannot load {what}: out of memory") from error
    except Exception as error:
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise DreamPRMError(f"cannot load {what}: {kind}{error}") from error


def load_backbone(
    path: str,
    dtype: torch.dtype = torch.float32,
    *,
    weights: bool = True,
    all_read: bool = False,
    **kwargs: Any,
) -> Any:
    """Any `AutoModelForImageTextToText` or `AutoModelForCausalLM`, in fp32 unless told otherwise.

    Args:
        weights: False: build it from its config alone, with random weights.
        all_read: tensors that the model has no place for are an error, not a warning.
        kwargs: of transformers' `from_pretrained`.

    Raises:
        DreamPRMError: there is no model, it is none that writes text, or its weights do not fit it.
    """
    config, kind = _config(path)
    if weights:
        model, unread = load_weights(kind, path, dtype=dtype, **kwargs)
        unread = [name for name in unread if not name.endswith(HEAD_TENSOR)]
        if unread:
            told = f"'{path}' holds weights that the model has no place for: {_some(unread)}"
            if all_read:
                raise DreamPRMError(f"{told}; copy the folder again")
            warnings.warn(f"{told}; they are not used", DataWarning, stacklevel=2)
        return model
    with reading(f"the config of '{path}'"):
        return kind.from_config(config, dtype=dtype, trust_remote_code=False, **kwargs)


def load_weights(kind: Any, path: str, **kwargs: Any) -> tuple[Any, list[str]]:
    """A model of one of transformers' Auto classes, and the names of tensors that it did not read.

    No code of the folder is run, and no pickle is opened.

    Raises:
        DreamPRMError: the weights are missing, damaged, pickled, or not those of the config.
    """
    start_writer()
    folder, gguf = source(path)
    if not gguf and not any(Path(folder).glob("model*.safetensors*")):
        refuse_pickles(Path(folder))
    with reading(f"the weights of '{path}'"), _without_report():
        if gguf:  # its weights are unpacked, so that it is trained and saved as any other
            from transformers import GgufConfig  # not in all that we run with

            kwargs |= gguf | {"quantization_config": GgufConfig(dequantize=True)}
        model, report = kind.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the report names them, the error would not
            **kwargs,
        )
    wrong = f"the weights of '{path}' do not fit its config: "
    if report["mismatched_keys"]:
        name, saved, wanted = min(report["mismatched_keys"])
        shapes = f"is {list(saved)} and should be {list(wanted)}"
        raise DreamPRMError(f"{wrong}'{name}' {shapes}; one of the two is of another model")
    if report["missing_keys"]:
        missing = _some(report["missing_keys"])
        raise DreamPRMError(f"{wrong}missing are {missing}; copy the folder again")
    return model, sorted(report["unexpected_keys"])


@contextmanager
def _without_report() -> Iterator[None]:
    """Without transformers' table of tensors that do not fit: callers tell of each in one line."""
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def refuse_pickles(folder: Path) -> None:
    """Raise a DreamPRMError where weights lie in files that could run code when they are read."""
    pickles = [p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    if pickles:
        raise DreamPRMError(
            f"{folder} holds its weights as pickles ({_some(pickles)}), which can run code when "
            "they are read; get the model as safetensors, or convert them with "
            "torch.load(..., weights_only=True) and safetensors.torch.save_file"
        )


def placed(model: M, device: str, path: str) -> M:
    """Move a model to its device, and refuse weights that are no finite numbers.

    That reads each weight once, on the device: less than the model does for one token.

    Raises:
        DreamPRMError: names the first such tensor.
    """
    model = model.to(device)
    for name, p in model.named_parameters():
        sums = p.is_floating_point() and p.element_size() > 1 and not p.is_meta
        if sums and not p.detach().sum(dtype=torch.float32).isfinite():
            raise DreamPRMError(
                f"the weights of '{path}' hold values that are not finite, in '{name}'; the model "
                "was damaged, or its training diverged"
            )
    return model


def _some(names: Iterable[str]) -> str:
    first, *rest = sorted(names)
    return f"'{first}' and {len(rest):,} more" if rest else f"'{first}'"


def _config(path: str) -> tuple[Any, Any]:
    """The config of a model, and the Auto class that loads it."""
    folder, gguf = source(path)
    with reading(f"the config of '{path}'"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **gguf)
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return config, AutoModelForImageTextToText
    # BERT and its kin are in the other mapping too, and read both ways where they are no decoders.
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and getattr(config, "is_decoder", True):
        return config, AutoModelForCausalLM
    raise DreamPRMError(
        f"cannot load '{path}': its type '{config.model_type}' does not write text from left to "
        "right; choose a decoder, such as Qwen3 or Llama, or one that reads images too, such as "
        "Qwen2.5-VL, InternVL3-hf or Gemma 3"
    )


def reads_images(path: str) -> bool:
    """Whether the model of a folder or hub name reads images; its config alone is read.

    Raises:
        DreamPRMError: there is no model, or none that writes text.
    """
    return _config(path)[1] is AutoModelForImageTextToText


def text_config(path: str) -> Any:
    """The config of a model's language part: its context and vocabulary among others."""
    return _config(path)[0].get_text_config()


def load_processor(path: str) -> Any:
    """The model's processor, for images and text alone; the tokenizer of a text model.

    Raises:
        DreamPRMError: there is none; a processor has no image processor, or no chat template.
    """
    config, kind = _config(path)
    if kind is AutoModelForCausalLM:
        return _load_tokenizer(path)
    with reading(f"the processor of '{path}'"):
        processor = _load_processor(resolve(path), config)
        if hasattr(processor, "tokenizer"):
            processor.tokenizer("a")  # settings of another type show when they are used
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


def _load_tokenizer(path: str) -> Any:
    """A text model's tokenizer. One without chat template is given a plain one, which is saved too.

    Plain: the contents of the messages, each with a line's end behind it.
    """
    folder, gguf = source(path)
    with reading(f"the tokenizer of '{path}'"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **gguf)
        empty = tokenizer("").input_ids
    # Some tokenizers give type ids, which decoders ignore, or add up as if they were tokens.
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    if tokenizer.chat_template is None:
        begins = "{{ bos_token }}" if empty[:1] == [tokenizer.bos_token_id] else ""
        tokenizer.chat_template = begins + PLAIN_TEMPLATE
        warnings.warn(
            f"'{path}' has no chat template, so its prompts are plain text; an instruction-tuned "
            "model needs its chat_template.jinja in the folder",
            DataWarning,
            stacklevel=2,
        )
    return tokenizer


def _load_processor(folder: str, config: Any) -> Any:
    facts, _ = ProcessorMixin.get_processor_dict(folder)
    image = get_image_processor_config(folder)
    name = facts.get("processor_class") or image.get("processor_class")
    stock: Any = processor_class_from_name(name) if name else None
    if stock is None and type(config) in PROCESSOR_MAPPING:  # as `AutoProcessor` finds it
        stock = PROCESSOR_MAPPING[type(config)]
    if not (isinstance(stock, type) and issubclass(stock, ProcessorMixin)):
        return AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    processor = without_video(stock).from_pretrained(folder, trust_remote_code=False)
    if isinstance(processor, WithoutVideo):
        processor.video_settings = get_video_processor_config(folder)
    if "image_processor" in processor.get_attributes():
        processor.image_processor = AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=False
        )
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
        processors = [c for c in type(self).__mro__ if issubclass(c, ProcessorMixin)]
        stock = next(c for c in processors if not issubclass(c, WithoutVideo))
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

"""`transformers serve` with our image-only processor: a script with the command's own arguments.

The server is the installed one, unchanged. All it lacks without torchvision is a processor for
Qwen2-VL models, so ours is registered under its own name before the command line starts.
"""

from __future__ import annotations

from transformers import AutoProcessor, Qwen2VLConfig
from transformers.cli.transformers import app

from dreamprm.models.loading import ImageTextProcessor

if __name__ == "__main__":
    AutoProcessor.register(Qwen2VLConfig, ImageTextProcessor, exist_ok=True)  # type: ignore[no-untyped-call]
    app()

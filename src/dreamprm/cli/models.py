"""Models without their chatter."""

from __future__ import annotations

from transformers.utils import logging


def quiet_transformers() -> None:
    """Silence what transformers says while it loads a model; errors are still told."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()

"""Loading of the local policy, and models without their chatter."""

from __future__ import annotations

from transformers.utils import logging

from dreamprm.cli.policy_options import PolicyOptions
from dreamprm.models.loading import device_of
from dreamprm.policy.local import LocalPolicy


def load_policy(options: PolicyOptions) -> LocalPolicy:
    """The local policy that the options describe."""
    quiet_transformers()
    return LocalPolicy(
        options.model_name_or_path,
        prompt=options.prompt_name(),
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        answer_tokens=options.answer_tokens,
        batch_size=options.per_device_batch_size,
        device=device_of(options.device),
        dtype=options.dtype,
    )


def quiet_transformers() -> None:
    """Silence what transformers says while it loads a model; errors are still told."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()

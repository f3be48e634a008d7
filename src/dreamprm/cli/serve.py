r"""Serve a reward model over HTTP: step scores for anybody who can send a request.

  dreamprm serve prm
  curl http://127.0.0.1:8000/v1/score -H 'content-type: application/json' \
    -d '{"question": "What is 2 + 3?", "candidates": [["2 + 3 = 5"], ["2 + 3 = 6"]]}'

Routes: /v1/score, /pooling (vLLM's form), /v1/models, /health, /metrics, and a page to try it at /.
With the servers of a policy, /v1/chat/completions too: it samples, scores, and answers with the
best, as one model would:

  dreamprm serve prm --policy_model Qwen/Qwen2.5-VL-7B-Instruct \
    --policy_urls http://localhost:8001/v1
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dreamprm.cli.inputs import RewardModel
from dreamprm.errors import DreamPRMError, require_positive


@dataclass(frozen=True, kw_only=True)
class Config(RewardModel):
    """Options of serve.

    Attributes:
        prm: folder of the reward model.
        name: that clients call it by; by default that of its folder.
        host: address to listen at; beyond this machine only with a key.
        port: to listen at.
        api_key_env: environment variable that holds the key which clients must send.
        policy_model: name of a served model, whose reasonings are chosen among.
        policy_urls: OpenAI-compatible endpoints that serve it, such as http://localhost:8001/v1.
        policy_api_key_env: environment variable that holds their key.
        policy_extra_body: further fields of each request to them, as JSON; they come before what
            clients ask for.
        policy_max_tokens: longest completion where a client does not say.
        prompt: put behind a client's last turn: `five_steps` (the paper's), `plain` (step by step)
            or `bare` (nothing).
        seed: `none` sends no seed to the policy's servers; some break at one. Otherwise the number
            says nothing: each request has its own, or the client's.
        score_batch_size: candidates in one forward pass.
        device: cpu, cuda, cuda:1, ...; by default cuda where there is one.
        max_image_pixels: a picture with more is refused before it is decoded.
        allowed_image_hosts: hosts that pictures are fetched from where a request names an http(s)
            address; none by default.
        timeout_s: seconds until a request is answered, or fails; here and at other servers.
        max_waiting: candidates that may wait to be scored; more get 429 and are told when to come
            again.
    """

    prm: Path
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    api_key_env: str = "DREAMPRM_API_KEY"
    policy_model: str | None = None
    policy_urls: list[str] = field(default_factory=list)
    policy_api_key_env: str = "OPENAI_API_KEY"
    policy_extra_body: dict[str, Any] | None = None
    policy_max_tokens: int = 1024
    prompt: Literal["five_steps", "plain", "bare"] = "bare"
    seed: int | None = 0
    score_batch_size: int = 16
    device: str | None = None
    max_image_pixels: int = 16_000_000
    allowed_image_hosts: list[str] = field(default_factory=list)
    timeout_s: float = 300.0
    max_attempts: int = 4
    give_up_after_s: float = 60.0
    max_waiting: int = 4096


def run(config: Config) -> None:
    """Load the model and serve it until interrupted."""
    key = os.environ.get(config.api_key_env, "").strip() or None
    if key is None and config.api_key_env != Config.api_key_env:
        raise DreamPRMError(f"the environment variable {config.api_key_env} holds no key")
    if key is None and not _is_loopback(config.host):
        raise DreamPRMError(
            f"{config.host} can be reached by others; put a key into the environment variable "
            f"{config.api_key_env}, or serve at 127.0.0.1"
        )
    require_positive(config, "score_batch_size", "timeout_s", "max_waiting")
    if bool(config.policy_urls) != bool(config.policy_model):
        raise DreamPRMError("policy_urls and policy_model belong together; give both")
    try:
        from dreamprm.serve.app import make_app
        from dreamprm.serve.server import serve
    except ImportError as error:
        raise DreamPRMError(
            f"{error.name} is not installed: pip install 'dreamprm[serve]'"
        ) from error
    from dreamprm.images import set_image_limits
    from dreamprm.serve.wire import Limits

    set_image_limits(config.max_image_pixels, config.allowed_image_hosts)
    model = _served(config)
    app = make_app(
        model,
        key=key,
        limits=Limits(timeout_s=config.timeout_s, max_waiting=config.max_waiting),
        batch_size=getattr(model.model, "batch_size", config.score_batch_size),
        policy=_policy(config),
    )
    serve(app, config.host, config.port)


def _served(config: Config) -> Any:
    from dreamprm.serve.app import Served

    model = config.reward_model(config.prm, config.device)
    name = config.name or config.prm.resolve().name
    return Served(model, name, model.config.aggregation, model.plain.check)


def _policy(config: Config) -> Any:
    """Options of the served policy, for requests that somebody waits for; None without one."""
    from dreamprm.policy.options import PolicyOptions

    if config.policy_model is None:
        return None
    options = PolicyOptions(
        config.policy_model,
        base_urls=config.policy_urls,
        api_key_env=config.policy_api_key_env,
        extra_body=config.policy_extra_body,
        max_new_tokens=config.policy_max_tokens,
        prompt=config.prompt,
        seed=config.seed,
        concurrency=config.concurrency,
        timeout_s=config.timeout_s,
        max_attempts=config.max_attempts,
        give_up_after_s=config.give_up_after_s,
    )
    options.check()
    return options


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""What a user says of a policy, on the command line and in Python."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

from dreamprm.errors import DreamPRMError, require_positive


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """How much servers are asked at once, and how long they are waited for.

    Attributes:
        concurrency: requests in flight per endpoint.
        timeout_s: seconds until a request counts as lost.
        max_attempts: failed tries of one request, at servers that work otherwise, after which it is
            left out; sampling goes on.
        give_up_after_s: seconds without an answer from any server after which the run stops; until
            then it waits for them, so that one may be restarted.
    """

    concurrency: int = 64
    timeout_s: float = 600.0
    max_attempts: int = 8
    give_up_after_s: float = 1800.0

    def check_limits(self) -> None:
        """Refuse what is not above 0."""
        require_positive(self, "concurrency", "timeout_s", "max_attempts", "give_up_after_s")


@dataclass(frozen=True)
class PolicyOptions(ServerLimits):
    """The policy, how it is sampled, what that may cost, and where its completions are kept.

    Attributes:
        model_name_or_path: any vision-language or text model of transformers, by path or hub name
            (`tiny/...` are the embedded ones); with base_urls, the name of the served model.
        base_urls: OpenAI-compatible endpoints that serve the model, such as
            http://localhost:8000/v1 (vLLM, SGLang, `transformers serve`, ...); several share the
            work. Without any, the model is loaded into this process.
        api_key_env: environment variable that holds the endpoints' key.
        continuation: how a served model continues given steps: `prefill` (as the beginning of its
            own answer, with vLLM's and SGLang's fields), `assistant` (the same on servers that need
            no fields for it), `prompt` (told in the prompt), or `auto` (the best the server can).
        extra_body: further fields of each request to a served model, as JSON: say
            {"chat_template_kwargs": {"enable_thinking": false}}.
        max_n: most samples asked for in one request; by default all at once where the server can.
        prompt: `five_steps` (the paper's), `plain` (step by step) or `bare` (the question alone);
            by default five_steps, and bare for the embedded models, which need no telling.
        temperature: of sampling.
        max_new_tokens: longest continuation; one that is cut here has no final answer.
        answer_tokens: where a continuation states no answer, put "Final answer:" behind it and
            sample up to so many more tokens; 0 leaves it without an answer, which counts as wrong.
            Local models only.
        per_device_batch_size: sequences that a local model samples at once.
        device: cpu, cuda, cuda:1, ...; by default cuda where there is one.
        dtype: of a local model: float32, bfloat16, float16, or auto (as it was saved).
        seed: of sampling; the same seed and settings give the same texts. `none` sends none to a
            served model (some servers break at one): what it writes cannot be repeated.
        store: file that keeps every completion (SQLite); by default rollouts.db beside the output.
            Verbs that share a store never ask for a completion twice.
        ask_again: ask once more for what the servers gave no usable reply to in an earlier run.
        judge_model: served model that verifies open answers which no rule can decide.
        judge_urls: endpoints that serve it; by default base_urls.
        budget_tokens: stop before prompt and completion tokens of the whole store exceed this; the
            last calls may overshoot it by what they cost more than any before.
        budget_cost: the same for their cost.
        prompt_token_price: of a million prompt tokens.
        completion_token_price: of a million completion tokens.
    """

    model_name_or_path: str = "tiny/policy"
    _: KW_ONLY
    base_urls: list[str] = field(default_factory=list)
    api_key_env: str = "OPENAI_API_KEY"
    continuation: Literal["auto", "prefill", "assistant", "prompt"] = "auto"
    extra_body: dict[str, Any] | None = None
    max_n: int | None = None
    prompt: Literal["five_steps", "plain", "bare"] | None = None
    temperature: float = 1.0
    max_new_tokens: int = 1024
    answer_tokens: int = 0
    per_device_batch_size: int = 32
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    seed: int | None = 0
    store: Path | None = None
    ask_again: bool = False
    judge_model: str | None = None
    judge_urls: list[str] = field(default_factory=list)
    budget_tokens: int | None = None
    budget_cost: float | None = None
    prompt_token_price: float = 0.0
    completion_token_price: float = 0.0

    @property
    def loaded(self) -> tuple[str, ...]:
        """The model, where it is loaded into this process."""
        return () if self.base_urls else (self.model_name_or_path,)

    def facts(self) -> dict[str, Any]:
        """Those that decide what the policy writes."""
        return {
            "model_name_or_path": self.model_name_or_path,
            "prompt": self.prompt_name(),
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "answer_tokens": self.answer_tokens,
            "extra_body": self.extra_body,
            "dtype": None if self.base_urls else self.dtype,
            "seed": self.seed,
        }

    def settings_of_all(self) -> dict[str, Any]:
        """What the `settings` of any policy hold."""
        return {
            "model": self.model_name_or_path,
            "prompt": self.prompt_name(),
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
        }

    def settings_of_served(self) -> dict[str, Any]:
        """The `settings` of a served policy, but for its continuation, which it has to find out."""
        return self.settings_of_all() | {"extra_body": dict(self.extra_body or {})}

    def prompt_name(self) -> str:
        """The prompt, or what suits the model where none is given."""
        return self.prompt or ("bare" if is_embedded(self.model_name_or_path) else "five_steps")

    def judge(self, temperature: float = 0.0) -> PolicyOptions:
        """Options of the served model that judges answers; its prompts are sent as they are."""
        return PolicyOptions(
            str(self.judge_model),
            base_urls=self.judge_urls or self.base_urls,
            api_key_env=self.api_key_env,
            prompt="bare",
            temperature=temperature,
            max_new_tokens=2048,  # for judges that think first; the verdict is one word
            continuation="prompt",
            seed=self.seed,
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            max_attempts=self.max_attempts,
            give_up_after_s=self.give_up_after_s,
        )

    def store_of(self, output: Path) -> Path:
        """The store that an output is made from."""
        return self.store or output.with_name("rollouts.db")

    def check(self) -> None:
        """Refuse what no policy can do, before a model is loaded."""
        require_positive(self, "temperature", "max_new_tokens", "per_device_batch_size")
        self.check_limits()
        if self.seed is None and not self.base_urls:
            raise DreamPRMError("seed none is for served models; give base_urls, or a number")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise DreamPRMError(f"seed is {self.seed}; it must be from 0 to 2^63 - 1")
        for name in ("budget_tokens", "budget_cost", "max_n"):
            if getattr(self, name) is not None:
                require_positive(self, name)
        if self.budget_cost and not (self.prompt_token_price or self.completion_token_price):
            raise DreamPRMError(
                "budget_cost needs prompt_token_price and completion_token_price (of a million)"
            )
        if self.budget_tokens and not self.base_urls:
            raise DreamPRMError("budget_tokens is for served models; give base_urls, or leave it")
        if self.answer_tokens and self.base_urls:
            raise DreamPRMError(
                "answer_tokens is for local models; leave it, or raise max_new_tokens"
            )
        if self.judge_model and not (self.judge_urls or self.base_urls):
            raise DreamPRMError("judge_model needs judge_urls: endpoints that serve it")
        if self.answer_tokens < 0:
            raise DreamPRMError(f"answer_tokens is {self.answer_tokens}; it must be 0 or more")


def is_embedded(model: str) -> bool:
    """Is it one of the toy models in the package?"""
    return model == "tiny" or model.startswith("tiny/")

"""What `/metrics` tells Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "dreamprm_requests", "Requests", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "dreamprm_request_seconds",
            "Seconds from a request's head to the end of its answer",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._candidates = Counter(
            "dreamprm_candidates_scored", "Candidates scored", registry=self._registry
        )
        self._batch = Histogram(
            "dreamprm_batch_candidates",
            "Candidates that were taken from the queue at once",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self._registry,
        )
        self._busy = Counter(
            "dreamprm_scoring_seconds", "Seconds spent on scoring", registry=self._registry
        )
        self._tokens = Counter(
            "dreamprm_policy_tokens",
            "Tokens of the policy, as its servers count them",
            ["kind"],
            registry=self._registry,
        )
        self.waiting = Gauge(
            "dreamprm_candidates_waiting", "Candidates in the queue", registry=self._registry
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request has ended."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def scored(self, candidates: int, seconds: float) -> None:
        """A batch has been scored."""
        self._candidates.inc(candidates)
        self._batch.observe(candidates)
        self._busy.inc(seconds)

    def sampled(self, prompt_tokens: int, completion_tokens: int) -> None:
        """The policy has answered."""
        self._tokens.labels("prompt").inc(prompt_tokens)
        self._tokens.labels("completion").inc(completion_tokens)

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self._registry)

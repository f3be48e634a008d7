"""Why a request to a served model failed, whether it may be asked again, and when.

Servers fail in four ways that must not be mixed up: this attempt went wrong and another may not
(`again`), the server has too much to do (`busy`), it will never answer this request (`refused`), or
it will answer none of ours (`fatal`: key, address, model).
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from dreamprm.errors import DreamPRMError
from dreamprm.policy import RequestRefused

LONGEST_WAIT_S = 3600.0
"""A server that asks for a longer pause (a daily quota, say) ends the run instead of hiding it."""

_LONGEST_MESSAGE = 300

Kind = Literal["again", "busy", "refused", "fatal"]


@dataclass(frozen=True)
class Backoff:
    """Exponential back-off with full jitter, so that clients that failed together part again.

    Attributes:
        first_s: upper bound of the first pause; it doubles with each failure.
        longest_s: bound of all pauses.
    """

    first_s: float = 0.5
    longest_s: float = 60.0

    def bound(self, failures: int) -> float:
        """The longest pause after so many failures (1 and up)."""
        return min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30))

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures (1 and up)."""
        return random.uniform(0.0, self.bound(failures))


@dataclass(frozen=True)
class Failure:
    """Why one attempt gave nothing.

    Attributes:
        kind: see the module.
        message: one line for the user.
        status: HTTP status; None when no reply came.
        wait_s: the pause that the server asks for.
    """

    kind: Kind
    message: str
    status: int | None = None
    wait_s: float | None = None

    def error(self) -> DreamPRMError:
        """What the caller of a policy is told."""
        if self.kind == "refused":
            return RequestRefused(self.message)
        return DreamPRMError(f"{self.message}; what was sampled before is kept")


def failure_of_status(status: int, headers: Mapping[str, str], body: object) -> Failure:
    """What an HTTP reply other than 2xx means.

    Args:
        status: of the reply.
        headers: of the reply; any case if the mapping does not care.
        body: parsed JSON, its `error` object, or the raw text.
    """
    message = f"{status} {server_message(body)}".rstrip()
    wait = read_wait(headers)
    if wait is not None and wait > LONGEST_WAIT_S:
        pause = f"asks for a pause of {wait / 3600:.1f} hours; run again then"
        return Failure("fatal", f"{message}; the server {pause}", status, wait)
    if status == 429:
        if "insufficient_quota" in json.dumps(body, default=str):  # time does not mend this one
            return Failure("fatal", f"{message}; the account has no quota left", status)
        return Failure("busy", message, status, wait)
    if status in (408, 409) or status >= 500:
        return Failure("again", message, status, wait)
    return Failure("refused" if status in (400, 413, 422) else "fatal", message, status)


def read_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` (seconds or an HTTP date) ask for."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if not text:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            seconds = _until(text)
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _until(date: str) -> float:
    """Seconds from now to an HTTP date, 0 for a past one; -1 where it cannot be read."""
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return -1.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def server_message(body: object) -> str:
    """The sentence in an error body; servers keep it in `error`, `message` or `detail`."""
    while isinstance(body, dict):
        inner = body.get("error") or body.get("message") or body.get("detail")
        if inner is None:
            break
        body = inner
    if isinstance(body, list) and body:  # FastAPI: one entry per bad field
        entry: Any = body[0]
        body = f"{entry.get('loc')}: {entry.get('msg')}" if isinstance(entry, dict) else entry
    return "" if body is None else str(body)


def one_line(text: str) -> str:
    """Text without line breaks, shortened."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} ..."

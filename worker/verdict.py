"""From an outcome to what is told to the store: decided here, without any I/O."""

from collections.abc import Callable
from typing import Any, assert_never

import orjson

from millpond.domain.call import Claimed, ClaimedJob, JobEnd, Settlement
from millpond.providers.outcome import (
    Answered,
    JobFailed,
    KeyRefused,
    NoAnswer,
    NotSent,
    Outcome,
    QuotaSpent,
    Refused,
    Rejected,
    Result,
    Stopped,
    Unwell,
)
from millpond.store.store import LOST_GRACE_MS

_BACKOFF_FIRST_MS = 1_000
_BACKOFF_MOST_MS = 60_000


def backoff_ms(failures: int, chance: float) -> int:
    """How long a job waits after its n-th failure: full jitter, so that retries spread out."""
    most = min(_BACKOFF_MOST_MS, _BACKOFF_FIRST_MS * 2 ** min(failures, 20))
    return int(most * chance)


def settlement(
    call: Claimed,
    outcome: Outcome,
    *,
    headers_ms: float | None,
    told: str | None = None,
    ended_ms: float,
    chance: Callable[[], float],
) -> Settlement | None:
    """How a call is settled; None: it was never sent and is given back.

    Without response headers nobody knows when, or if, the provider counted the call. It may even
    lie unread in a buffer when we give up, so it counts as if it were counted a grace later.
    """

    def ended(used: int | None, jobs: tuple[JobEnd, ...], **more: Any) -> Settlement:
        counted_by = ended_ms + LOST_GRACE_MS if headers_ms is None else headers_ms
        return Settlement(call, counted_by, used, jobs, told=told, **more)

    match outcome:
        case Answered(results, used, tokens):
            ends = tuple(
                _answered(job, result) for job, result in zip(call.jobs, results, strict=True)
            )
            return ended(used, ends, tokens=tokens)
        case Refused(retry_after_ms):
            return ended(0, _again(call), refused=True, shut_ms=retry_after_ms or 0)
        case KeyRefused(message, status):
            return ended(0, _again(call), pause=f"key: {message} ({status})")
        case QuotaSpent(message):
            return ended(0, _again(call), pause=f"quota: {message}")
        case Rejected(message, status):
            return ended(0, _failed(call, "rejected", message, status))
        case Unwell(message, status, charged):
            why = ("provider_error", message, status)
            return ended(None if charged else 0, _after_failure(call, *why, chance))
        case NoAnswer(reason):
            return ended(None, _after_failure(call, "no_answer", reason, None, chance))
        case Stopped():
            return ended(None, _again(call))
        case NotSent():
            return None
        case _:
            assert_never(outcome)


def _answered(job: ClaimedJob, result: Result | JobFailed) -> JobEnd:
    if isinstance(result, JobFailed):
        return JobEnd(job.id, "failed", body=_error(result.code, result.message, None))
    return JobEnd(job.id, "succeeded", body=orjson.dumps(result))


def _again(call: Claimed) -> tuple[JobEnd, ...]:
    return tuple(JobEnd(job.id, "retry") for job in call.jobs)


def _after_failure(
    call: Claimed, code: str, message: str, status: int | None, chance: Callable[[], float]
) -> tuple[JobEnd, ...]:
    ends: list[JobEnd] = []
    for job in call.jobs:
        failures = job.failures + 1
        if failures < call.attempts:
            delay_ms = backoff_ms(failures, chance())
            ends.append(JobEnd(job.id, "retry", failed=True, delay_ms=delay_ms))
        else:
            ends.append(JobEnd(job.id, "failed", body=_error(code, message, status)))
    return tuple(ends)


def _failed(call: Claimed, code: str, message: str, status: int) -> tuple[JobEnd, ...]:
    return tuple(JobEnd(job.id, "failed", body=_error(code, message, status)) for job in call.jobs)


def _error(code: str, message: str, status: int | None) -> bytes:
    error = {"code": code, "message": message, "pointer": None, "provider_status": status}
    return orjson.dumps({"error": error})

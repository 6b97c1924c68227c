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
    said: str | None = None,
    credit_ms: int = 0,
    ended_ms: float,
    chance: Callable[[], float],
) -> Settlement | None:
    """How a call is settled; None: it was never sent and is given back.

    Without response headers nobody knows when, or if, the provider counted the call. It may even
    lie unread in a buffer when we give up, so it counts as if it were counted a grace later.
    """

    def ended(jobs: tuple[JobEnd, ...], **more: Any) -> Settlement:
        counted_by = ended_ms + LOST_GRACE_MS if headers_ms is None else headers_ms
        more |= {"told": told, "said": said, "credit_ms": credit_ms}
        return Settlement(call, counted_by, _sum(jobs), jobs, **more)

    match outcome:
        case Answered(results, used, tokens):
            ends = zip(call.jobs, results, used, strict=True)
            return ended(tuple(_answered(*one) for one in ends), tokens=tokens)
        case Refused(retry_after_ms):
            return ended(_again(call, used=0), refused=True, shut_ms=retry_after_ms or 0)
        case KeyRefused(message, status):
            return ended(_again(call, used=0), pause=f"key: {message} ({status})")
        case QuotaSpent(message):
            return ended(_again(call, used=0), pause=f"quota: {message}")
        case Rejected(index=None) if len(call.jobs) > 1:
            return ended(_again(call, used=0), split=True)
        case Rejected():
            return ended(_without_rejected(call, outcome))
        case Unwell(message, status, charged):
            error = _error("provider_error", message, status)
            failed = _after_failure(call, error, chance, used=None if charged else 0)
            return ended(failed, trouble=True)
        case NoAnswer(reason):
            error = _error("no_answer", reason, None)
            failed = _after_failure(call, error, chance, used=None, unknown=True)
            return ended(failed, trouble=True)
        case Stopped():
            return ended(_again(call, used=None, unknown=True), cut=True)
        case NotSent():
            return None
        case _:
            assert_never(outcome)


def _sum(jobs: tuple[JobEnd, ...]) -> int | None:
    """What the call used in all; None if that is not known of one of its jobs."""
    total = 0
    for job in jobs:
        if job.used is None:
            return None
        total += job.used
    return total


def _answered(job: ClaimedJob, result: Result | JobFailed, used: int) -> JobEnd:
    if isinstance(result, JobFailed):
        error = _error(result.code, result.message, None)
        return JobEnd(job.id, "failed", body=error, used=used)
    return JobEnd(job.id, "succeeded", body=orjson.dumps(result), used=used)


def _again(call: Claimed, *, used: int | None, unknown: bool = False) -> tuple[JobEnd, ...]:
    return tuple(JobEnd(job.id, "retry", used=used, unknown=unknown) for job in call.jobs)


def _without_rejected(call: Claimed, rejected: Rejected) -> tuple[JobEnd, ...]:
    """The job that is to blame ends; the others, which it took along, go again at once."""
    error = _error("rejected", rejected.message, rejected.status)
    blamed = call.jobs[rejected.index or 0].id
    return tuple(
        JobEnd(job.id, "failed", body=error, used=0)
        if job.id == blamed
        else JobEnd(job.id, "retry", used=0)
        for job in call.jobs
    )


def _after_failure(
    call: Claimed,
    error: bytes,
    chance: Callable[[], float],
    *,
    used: int | None,
    unknown: bool = False,
) -> tuple[JobEnd, ...]:
    """Each job goes again while it has attempts left. One that has none is told when it could go
    all the same: if the provider serves nobody, that is no fault of the job."""
    ends: list[JobEnd] = []
    for job in call.jobs:
        failures = job.failures + 1
        delay_ms = backoff_ms(failures, chance())
        left = failures < (call.attempts if job.attempts is None else job.attempts)
        ends.append(
            JobEnd(
                job.id,
                "retry" if left else "failed",
                failed=True,
                delay_ms=delay_ms,
                body=error,
                used=used,
                unknown=unknown,
            )
        )
    return tuple(ends)


def _error(code: str, message: str, status: int | None) -> bytes:
    error = {"code": code, "message": message, "pointer": None, "provider_status": status}
    return orjson.dumps({"error": error})

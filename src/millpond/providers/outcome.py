"""What can come of one call: a closed set, and the table that tells statuses apart.

(The same as a page for people, with what follows for the jobs: docs/outcomes.md.)

| reply | is | burns an attempt | charge |
|---|---|---|---|
| 2xx that can be read | Answered | | what it used |
| nothing: not a byte was written (no connection, lease over, cut before) | NotSent | no | nothing |
| 429 | Refused: the lane waits for Retry-After | no | nothing |
| 401, 403, 498 | KeyRefused: the lane stands still until it is set again | no | nothing |
| 402 | QuotaSpent: the same | no | nothing |
| 408, 499, 5xx but 503 and 529 | Unwell: tried again, backing off | yes | unknown |
| 409, 425, 503, 529 | Unwell: tried again, backing off | yes | nothing |
| any other status | Rejected: never tried again | | nothing |
| timeout, reset, short or unreadable reply after sending | NoAnswer: tried again | yes | unknown |
| cut because the worker was told to stop | Stopped: tried again | no | unknown |

Of several jobs that are rejected together only one that is blamed ends; else they go in smaller
calls, until it is known whose fault it was.

An unknown charge keeps the whole reservation: only that can never overshoot a quota.
"""

from dataclasses import dataclass
from typing import Any

#: What an answer adds to its row.
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A job whose call was answered, and whose answer cannot be used; asking again is no help."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Answered:
    """One result for each job of the call, and the characters that each has used; `tokens` are the
    call's, None: not told."""

    results: tuple[Result | JobFailed, ...]
    used: tuple[int, ...]
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider said 429; `retry_after_ms` is None if it did not say for how long."""

    retry_after_ms: int | None


@dataclass(frozen=True, slots=True)
class KeyRefused:
    message: str
    status: int


@dataclass(frozen=True, slots=True)
class QuotaSpent:
    message: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider will never take this request. `index`: of its jobs, the one that is to blame."""

    message: str
    status: int
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Unwell:
    """The provider has trouble of its own; `charged` says whether it may have done the work."""

    message: str
    status: int
    charged: bool


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The request was sent and nothing usable came back: the work may have been done."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """We gave up waiting because we were told to stop; the work may have been done."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """No byte left us. `unreachable`: no connection could be made."""

    reason: str
    unreachable: bool


Outcome = (
    Answered | Refused | KeyRefused | QuotaSpent | Rejected | Unwell | NoAnswer | Stopped | NotSent
)

_UNWELL_CHARGED = frozenset({408, 499})
_UNWELL_FREE = frozenset({409, 425, 503, 529})
_KEY_REFUSED = frozenset({401, 403, 498})

#: Longer waits than this are not believed: a provider's clock or header is wrong.
RETRY_AFTER_MOST_MS = 86_400_000


def judge(status: int, message: str, retry_after: str | None) -> Outcome:
    """What a reply without a usable answer means, by the table above."""
    if status == 429:
        return Refused(read_retry_after(retry_after))
    if status == 402:
        return QuotaSpent(message)
    if status in _KEY_REFUSED:
        return KeyRefused(message, status)
    if status in _UNWELL_FREE:
        return Unwell(message, status, charged=False)
    if status in _UNWELL_CHARGED or status >= 500:
        return Unwell(message, status, charged=True)
    return Rejected(message, status)


def read_retry_after(value: str | None) -> int | None:
    """Seconds, whole or not, as ms; None for an absent or unusable value."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    if not 0 < seconds * 1_000 <= RETRY_AFTER_MOST_MS:
        return None
    return round(seconds * 1_000)

"""A call on its way through a worker: what was claimed, and how it is settled."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job as its call carries it: `payload` is an `Ask`, as written; `need` characters are
    reserved for it, and it may have so many `attempts` (None: as many as its call says)."""

    id: str
    failures: int
    payload: bytes
    need: int = 0
    attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """One call that this worker has claimed: what it holds of each unit.

    `flow` is whose turn it was; a pack may carry jobs of others, which share what is common.
    """

    id: str
    lane: str
    org: str
    flow: str
    need: int
    attempts: int
    jobs: tuple[ClaimedJob, ...]
    tokens: int = 0
    inputs: int = 1
    bulk: int = 1


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How one job of a call goes on: for good, or again after `delay_ms`.

    `used` characters, None: it may have used all that it needs; `failed`: this counts as one of the
    failures that a job may have. `unknown`: nobody knows whether the provider answered. `body` is
    what its row says, or the error after which it goes again.
    """

    id: str
    end: Literal["succeeded", "failed", "retry"]
    failed: bool = False
    delay_ms: int = 0
    body: bytes = b"{}"
    used: int | None = None
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a call that was sent.

    `counted_by_ms` is when (on the worker's monotonic clock) the provider had surely counted it:
    the response headers, or a while after the call was given up. The provider may vouch that it
    was at work for `credit_ms` before that; the lane says whether that is believed. `used` is in
    characters, None if the provider may have done the work and did not say.

    `refused`: it said 429, and to wait `shut_ms` (0: it did not say how long). `trouble`: it is
    unwell, or does not answer. `cut`: we gave it up ourselves. `split`: it will not take so many
    jobs in one call. `pause` is why the lane must stand still, if it must; `told` what the provider
    says its limits are, and `said` all that it says of them, for people.
    """

    call: Claimed
    counted_by_ms: float
    used: int | None
    jobs: tuple[JobEnd, ...]
    tokens: int | None = None
    credit_ms: int = 0
    refused: bool = False
    shut_ms: int = 0
    trouble: bool = False
    cut: bool = False
    split: bool = False
    pause: str = ""
    told: str | None = None
    said: str | None = None

    @property
    def id(self) -> str:
        return self.call.id

"""A call on its way through a worker: what was claimed, and how it is settled."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job as its call carries it: `payload` is an `Ask`, as written."""

    id: str
    failures: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Claimed:
    """One call that this worker has claimed. `need` characters and `tokens` are what it may use."""

    id: str
    lane: str
    org: str
    flow: str
    need: int
    attempts: int
    jobs: tuple[ClaimedJob, ...]
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How one job of a call goes on: for good, or again after `delay_ms`."""

    id: str
    end: Literal["succeeded", "failed", "retry"]
    failed: bool = False
    delay_ms: int = 0
    body: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a call that was sent.

    `counted_by_ms` is when (on the worker's monotonic clock) the provider had surely counted it:
    the response headers, or a while after the call was given up. `used` is in characters, None if
    the provider may have done the work and did not say. `refused`: it said 429, and to wait
    `shut_ms` (0: it did not say how long). `pause` is why the lane must stand still, if it must;
    `told` what the provider says its limits are.
    """

    call: Claimed
    counted_by_ms: float
    used: int | None
    jobs: tuple[JobEnd, ...]
    tokens: int | None = None
    refused: bool = False
    shut_ms: int = 0
    pause: str = ""
    told: str | None = None

    @property
    def id(self) -> str:
        return self.call.id

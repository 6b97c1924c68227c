"""Erasing an org with everything that is kept for it, a part at a time, with a receipt.

step ─▶ step ─▶ … ─▶ done        each is one script; who is cut off between two says it again
          └─ waits: for calls that workers make, or for a run
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millpond.errors import UnknownPart
from millpond.store.reading import texts
from millpond.store.store import Store

#: Looked at or erased in one step.
STEP_MOST = 200

_CALLS = "calls that workers make have not ended yet, nor were they reaped"
#: What a receipt says of what is left behind.
REMAINDER = (
    "Records of idempotency keys are not erased: each holds ids of jobs only, under a digest, and "
    "lapses within a day."
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Of an org that is erased, or is being erased: moments are logical ms, `ended_ms` None while
    it goes on. `erased`: how much of what."""

    org: str
    name: str
    by: str
    why: str
    begun_ms: int
    ended_ms: int | None
    erased: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Step:
    """How far it is. `waits`: for what, None if the next step can go on at once; `busy`: the flow
    of a run that stands in the way."""

    done: bool
    waits: str | None
    receipt: Receipt
    busy: str | None = None

    @property
    def erased(self) -> Mapping[str, int]:
        return self.receipt.erased


class Purge:
    """Erases orgs of one partition."""

    def __init__(self, store: Store) -> None:
        self._gateway = store.gateway

    async def step(self, org: str, by: str, why: str, *, most: int = STEP_MOST) -> Step:
        """Erase some more; once all is gone, what there was to tell. Of those who say it `by` and
        `why` of the first are kept. Raises UnknownPart."""
        match await self._gateway.run("raze", by, why, org, most):
            case [b"razed", told]:
                return Step(done=False, waits=None, receipt=_read(told))
            case [b"waits", told]:
                return Step(done=False, waits=_CALLS, receipt=_read(told))
            case [b"busy", told, flow]:
                return _busy(_read(told), flow.decode())
            case [b"done", told]:
                return Step(done=True, waits=None, receipt=_read(told))
            case [b"unknown"]:
                raise UnknownPart("org", org)
            case other:
                raise AssertionError(f"raze.lua replied {other}")

    async def receipt(self, org: str) -> Receipt:
        """Raises UnknownPart: the org was never purged, nor has that begun."""
        match await self._gateway.run("raze", "", "", org, 0):
            case [b"told", told]:
                return _read(told)
            case [b"unknown"]:
                raise UnknownPart("receipt of org", org)
            case other:
                raise AssertionError(f"raze.lua replied {other}")


def _busy(receipt: Receipt, flow: str) -> Step:
    waits = f"busy: flow {flow} of a run has jobs that are open, or rows that are not taken"
    return Step(done=False, waits=waits, receipt=receipt, busy=flow)


def _read(told: Sequence[bytes]) -> Receipt:
    return _receipt(texts(dict(zip(told[::2], told[1::2], strict=True))))


def _receipt(told: Mapping[str, str]) -> Receipt:
    return Receipt(
        org=told["org"],
        name=told["name"],
        by=told["by"],
        why=told["why"],
        begun_ms=int(told["begun"]),
        ended_ms=int(told["ended"]) if "ended" in told else None,
        erased={
            name.removeprefix("n:"): int(count)
            for name, count in sorted(told.items())
            if name.startswith("n:")
        },
    )

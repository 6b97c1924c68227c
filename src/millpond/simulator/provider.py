"""What becomes of one call, from its arrival to what is to be answered. No HTTP in here.

The order is the provider's: key, windows, quota, then what goes wrong, then what is asked for.
From the moment it is admitted a call counts, whatever becomes of it and of its client.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from millpond.simulator.author import Author
from millpond.simulator.books import Books, Page, QuotaSpent
from millpond.simulator.faults import (
    Behaviour,
    Breaks,
    Garbles,
    Hangs,
    Manner,
    Refuses,
    Resets,
    Spoils,
)
from millpond.simulator.journal import Call
from millpond.simulator.limits import NOTHING, Units
from millpond.simulator.weather import Weather
from millpond.simulator.wire import GARBAGE, Answer, Invalid, Wire

#: A key that is refused, so that clients can try what they do then.
REFUSED_KEY = "invalid"

BROKEN = {200: "internal error", 500: "internal server error", 503: "service unavailable"}

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    type: str = JSON
    manner: Manner = Manner.WHOLE


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that comes piece by piece; `units` are to be settled when all have come."""

    pieces: Sequence[bytes]
    units: Units
    seconds: float
    headers: Mapping[str, str]
    type: str
    manner: Manner = Manner.WHOLE


#: Resets and Hangs are ways not to reply.
Outcome = Reply | Stream | Resets | Hangs


def now_ms() -> float:
    """Unix milliseconds by this machine's clock: the provider's own, in this play."""
    return round(time.time() * 1_000, 3)


async def pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


class Provider:
    def __init__(self, books: Books, weather: Weather, author: Author) -> None:
        self._books = books
        self._weather = weather
        self._author = author

    async def receive(
        self, call: Call, wire: Wire, body: bytes, fault: Behaviour | None = None
    ) -> Outcome:
        """Take a call in; what is learnt about it is noted in `call`.

        Once its reply has ended, `leave` is to be told.
        """
        await pause(self._weather.delay_in_s())
        if call.org is None:
            return Reply(401, wire.error(401, "no api key supplied"))
        if call.org == REFUSED_KEY:
            return Reply(401, wire.error(401, "invalid api token"))
        answer = self._answer(call, wire, body)
        units = answer.units if isinstance(answer, Answer) else NOTHING

        # From here to the admission nothing awaits: the check and the entry are one step.
        call.at_ms = now_ms()
        page = self._books.page(call.org, call.endpoint)
        refused = _refused(call, wire, page, units, fault)
        if refused is not None:
            page.turn_away(call.at_ms)
            return refused
        page.admit(call.at_ms, NOTHING if isinstance(fault, Breaks | Hangs) else units)

        if isinstance(fault, Hangs):
            return fault
        if isinstance(fault, Breaks):
            headers = await self._work(call, wire, page)
            return Reply(fault.status, wire.error(fault.status, BROKEN[fault.status]), headers)
        if isinstance(answer, Invalid):
            headers = wire.headers(page, call.at_ms, 0)
            return Reply(400, wire.error(400, answer.message, answer.param), headers)
        headers = await self._work(call, wire, page)
        return self._served(call, wire, answer, fault, headers)

    def settle(self, call: Call, units: Units) -> None:
        """Charge a call with what it has used."""
        assert call.org is not None
        call.inputs, call.characters, call.tokens = units.inputs, units.characters, units.tokens
        self._books.settle(call.org, call.endpoint, units.characters)

    def leave(self, call: Call) -> None:
        """A call is over: its reply has ended, or it will never have one."""
        if call.admitted and call.org is not None:
            self._books.leave(call.org, call.endpoint)

    def _answer(self, call: Call, wire: Wire, body: bytes) -> Answer | Invalid:
        asked = wire.request(call.endpoint, body)
        if isinstance(asked, Invalid):
            return asked
        # An id made from the request: the same request is answered byte for byte the same.
        return asked.answer(self._author, str(UUID(hex=call.body_sha256[:32])))

    async def _work(self, call: Call, wire: Wire, page: Page) -> Mapping[str, str]:
        """Take the time that the work takes; what the head of the reply says of it."""
        begun_s = time.monotonic()
        await pause(self._weather.service_s())
        # Rounded down: who trusts it must not come too early.
        return wire.headers(page, now_ms(), int((time.monotonic() - begun_s) * 1_000))

    def _served(
        self,
        call: Call,
        wire: Wire,
        answer: Answer,
        fault: Behaviour | None,
        headers: Mapping[str, str],
    ) -> Reply | Stream | Resets:
        manner = fault.manner if isinstance(fault, Spoils) else Manner.WHOLE
        if answer.pieces is not None and not isinstance(fault, Garbles | Resets):
            pieces, seconds = answer.pieces(), self._weather.stream_s()
            return Stream(pieces, answer.units, seconds, headers, wire.STREAM_TYPE, manner)
        self.settle(call, answer.units)
        if isinstance(fault, Resets):
            return fault
        if isinstance(fault, Garbles):
            return (
                Reply(200, wire.WRONG_TYPES, headers)
                if fault.json
                else Reply(200, GARBAGE, headers, type="text/html")
            )
        return Reply(200, answer.body(), headers, manner=manner)


def _refused(
    call: Call, wire: Wire, page: Page, units: Units, fault: Behaviour | None
) -> Reply | None:
    """The reply to a call that a limit, the quota or a mood speaks against."""
    assert call.at_ms is not None
    against = page.refusal(call.at_ms, units)
    if against is not None:
        call.refused_by = "quota" if isinstance(against, QuotaSpent) else against.written
        status, body = wire.refusal(call.endpoint, against)
        return Reply(status, body, wire.headers(page, call.at_ms, None))
    if isinstance(fault, Refuses):
        call.refused_by = "fault"
        headers = wire.headers(page, call.at_ms, None)
        if fault.retry_after is not None:
            headers["Retry-After"] = fault.retry_after
        message = "too many requests, try again later"
        return Reply(fault.status, wire.error(fault.status, message), headers)
    return None

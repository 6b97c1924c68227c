"""What becomes of one call, from its arrival to what is to be answered. No HTTP in here.

The order is the provider's: key, windows, quota, then what goes wrong, then what is asked for.
From the moment it is admitted a call counts, whatever becomes of it and of its client.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import assert_never
from uuid import UUID

from millpond.simulator import cohere
from millpond.simulator.author import Author
from millpond.simulator.books import Books, QuotaSpent
from millpond.simulator.faults import Breaks, Hangs, Refuses, Resets
from millpond.simulator.journal import Call
from millpond.simulator.limits import Limit
from millpond.simulator.weather import Weather

#: A key that is refused, so that clients can try what they do then.
REFUSED_KEY = "invalid"

BROKEN = {500: "internal server error", 503: "service unavailable"}


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    retry_after_s: int | None = None


#: Resets and Hangs are ways not to reply.
Outcome = Reply | Resets | Hangs

NO_KEY = Reply(401, cohere.error("no api key supplied"))
WRONG_KEY = Reply(401, cohere.error("invalid api token"))


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

    async def receive(self, call: Call, body: bytes) -> Outcome:
        """Take a call in; what is learnt about it is noted in `call`."""
        await pause(self._weather.delay_in_s())
        if call.org is None:
            return NO_KEY
        if call.org == REFUSED_KEY:
            return WRONG_KEY

        # From here to the admission nothing awaits: the check and the entry are one step.
        call.at_ms = now_ms()
        against = self._books.refusal(call.org, call.endpoint, call.at_ms)
        if against is not None:
            return _refused(call, against)
        fault = self._weather.fault()
        if isinstance(fault, Refuses):
            call.refused_by = "fault"
            message = "too many requests, try again later"
            return Reply(fault.status, cohere.error(message), fault.retry_after_s)
        self._books.admit(call.org, call.endpoint, call.at_ms)

        match fault:
            case None:
                return await self._serve(call, call.org, body)
            case Breaks(status=status):
                await pause(self._weather.service_s())
                return Reply(status, cohere.error(BROKEN[status]))
            case Resets():
                await self._serve(call, call.org, body)
                return fault
            case Hangs():
                return fault
            case _:
                assert_never(fault)

    async def _serve(self, call: Call, org: str, body: bytes) -> Reply:
        asked = cohere.request(call.endpoint, body)
        if isinstance(asked, cohere.Invalid):
            return Reply(400, cohere.error(asked.message))
        await pause(self._weather.service_s())
        # An id made from the request: the same request is answered byte for byte the same.
        answer = asked.answer(self._author, str(UUID(hex=call.body_sha256[:32])))
        call.characters = answer.characters
        self._books.settle(org, call.endpoint, answer.characters)
        return Reply(200, answer.body)


def _refused(call: Call, against: Limit | QuotaSpent) -> Reply:
    call.refused_by = against.written if isinstance(against, Limit) else "quota"
    status, message = cohere.refusal(call.endpoint, against)
    return Reply(status, cohere.error(message))

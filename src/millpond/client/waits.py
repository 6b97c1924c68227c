"""How long to wait before a request is repeated, and how long in all."""

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from millpond.client.errors import ClientError

_FIRST_S, _MOST_S = 0.2, 10.0


@dataclass(slots=True)
class Patience:
    """What a call may take: until `deadline` (of the loop's clock), so many `retries` (None: only
    time counts). `unhurried`: what a 429 says with Retry-After is waited for however long it is,
    and the time is given back."""

    deadline: float
    retries: int | None
    unhurried: bool = False
    _tries: int = 0

    def pause(self, now: float, told_s: float | None, *, limited: bool = False) -> float | None:
        """How long to wait before the next try; None: there is none."""
        if limited and self.unhurried and told_s is not None:
            told_s = max(told_s, 0.05)
            self.deadline += told_s
            return told_s
        self._tries += 1
        if self.retries is not None and self._tries > self.retries:
            return None
        seconds = backoff_s(self._tries) if told_s is None else max(told_s, 0.05)
        return seconds if now + seconds < self.deadline else None


def backoff_s(tries: int) -> float:
    """Longer with each try, and by chance, so that many clients do not come back together."""
    return random.uniform(0.5, 1.0) * min(_MOST_S, _FIRST_S * 2.0 ** (min(tries, 20) - 1))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What Retry-After says, in seconds or as a date; None: nothing that can be read."""
    told = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", told):
        return float(told)
    until = _moment(told)
    if until is None:
        return None
    now = _moment(headers.get("Date", ""))  # by the clock that the date is of
    return max(0.0, until - (time.time() if now is None else now))


def _moment(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def seconds_of(timeout: float | None, usual: float) -> float:
    """A timeout that was given for a call, or the client's."""
    seconds = usual if timeout is None else timeout
    if not seconds > 0:
        raise ClientError(f"timeout={seconds:g}: it takes seconds, more than none")
    return seconds

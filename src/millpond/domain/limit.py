"""Limits: so much of a unit in any window of such a length.

Written `60/60s`: amount, optional unit (`calls`, `inputs`, `characters` or `tokens`), window in s,
m, h or d; `20@once` is so many at once, in flight. The limits of several endpoints are written
`generate=60/60s,50000/1d;embed=500/60s`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from millpond.domain.job import Endpoint

_WINDOW_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_FORM = re.compile(
    r"(\d{1,12})\s*([a-z]*)\s*(?:@\s*(once)|/\s*(\d{1,12}(?:\.\d{1,12})?)\s*([smhd]))"
)
_AMOUNT_MOST = 1_000_000_000
_WINDOW_MOST_MS = 31 * 86_400_000


class Unit(StrEnum):
    """What a limit counts. Of characters and tokens an answer's are counted too. BULK is calls that
    nobody waits for: what is left of a limit for them where some is kept for others."""

    CALLS = "calls"
    INPUTS = "inputs"
    CHARACTERS = "characters"
    TOKENS = "tokens"
    BULK = "bulk"


#: Units that a provider counts, and that a limit may be written in.
WRITTEN_UNITS = (Unit.CALLS, Unit.INPUTS, Unit.CHARACTERS, Unit.TOKENS)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` of a unit in any `window_ms`, or at once if that is 0; `written` is its
    name for people."""

    amount: int
    window_ms: int
    written: str
    unit: Unit = Unit.CALLS


Limits = dict[Endpoint, tuple[Limit, ...]]

#: An organisation in limited mode, and after approval (the provider's documented access rules).
LIMITED: Limits = {
    Endpoint.GENERATE: (Limit(60, 60_000, "60/60s"), Limit(50_000, 86_400_000, "50000/1d")),
    Endpoint.EMBED: (Limit(500, 60_000, "500/60s"), Limit(100_000, 86_400_000, "100000/1d")),
    Endpoint.CLASSIFY: (Limit(500, 60_000, "500/60s"), Limit(100_000, 86_400_000, "100000/1d")),
}
FULL: Limits = {endpoint: (Limit(10_000, 60_000, "10000/60s"),) for endpoint in Endpoint}


def parse_limit(text: str) -> Limit:
    """Read one limit. Raises ValueError that says what is wrong and what is accepted."""
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise ValueError(
            f"{text.strip()!r} is no limit: write AMOUNT/WINDOW, for example 60/60s, "
            "50000/1d, 20000tokens/60s or 20@once"
        )
    amount, unit, once, length, measure = found.groups()
    if unit and unit.rstrip("s") not in {one.value.rstrip("s") for one in WRITTEN_UNITS}:
        units = ", ".join(WRITTEN_UNITS)
        raise ValueError(f"{text.strip()!r} counts {unit}: a limit counts {units}")
    window_ms = 0 if once else round(float(length) * _WINDOW_MS[measure])
    if not 1 <= int(amount) <= _AMOUNT_MOST:
        raise ValueError(f"{text.strip()!r}: the amount must be 1 to {_AMOUNT_MOST:,}")
    if not once and not 100 <= window_ms <= _WINDOW_MOST_MS:
        raise ValueError(f"{text.strip()!r}: the window must be 0.1s to 31d long")
    counted = Unit(unit.rstrip("s") + "s") if unit else Unit.CALLS
    return Limit(int(amount), window_ms, text.strip(), counted)


def parse_limits(text: str) -> Limits:
    """Read the limits of one or several endpoints; endpoints not named are absent.

    Raises ValueError that says what is wrong and what is accepted.
    """
    limits: Limits = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, equals, list_text = part.partition("=")
        if not equals or name.strip() not in set(Endpoint):
            raise ValueError(
                f"{part!r}: write ENDPOINT=LIMIT,LIMIT with an endpoint of "
                f"{', '.join(Endpoint)}, for example generate=60/60s,50000/1d"
            )
        endpoint = Endpoint(name.strip())
        if endpoint in limits:
            raise ValueError(f"{endpoint} is named twice")
        found = tuple(parse_limit(one) for one in list_text.split(","))
        if len({(limit.window_ms, limit.unit) for limit in found}) < len(found):
            raise ValueError(f"{part!r}: two limits have the same window and unit")
        limits[endpoint] = found
    if not limits:
        raise ValueError("no limit is named, for example generate=60/60s,50000/1d")
    return limits


def write_limits(limits: Limits) -> str:
    """The inverse of `parse_limits`."""
    return ";".join(f"{endpoint}={write_limit_list(of)}" for endpoint, of in limits.items())


def write_limit_list(limits: Iterable[Limit]) -> str:
    """The limits of one endpoint, as they are written."""
    return ",".join(limit.written for limit in limits)

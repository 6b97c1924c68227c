"""The limits: so many calls in any stretch of so long, per organisation and endpoint.

    generate=60/60s,50000/1d;embed=500/60s,100000/1d

The simulator reads them by itself: were they read by the code that it judges, a misreading
would be on both sides.
"""

import re
from dataclasses import dataclass

from millpond.simulator.values import BadValue

#: What can be limited. The wire form of each is in cohere.py.
ENDPOINTS = ("generate", "embed")

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

FORM = "write ENDPOINT=AMOUNT/LENGTH,...;..., such as generate=60/60s,50000/1d;embed=500/60s"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` admitted calls in any stretch of `length_ms`."""

    amount: int
    length_ms: float
    written: str


#: endpoint -> its limits, all of which hold at once
Limits = dict[str, tuple[Limit, ...]]


def limits(text: str) -> Limits:
    """Every limit of every endpoint; `none` is no limit at all."""
    if text.strip() == "none":
        return {}
    found: Limits = {}
    for part in text.split(";"):
        endpoint, equals, written = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise BadValue(f"{part!r} has no '='; {FORM}")
        if endpoint not in ENDPOINTS:
            raise BadValue(f"there is no endpoint {endpoint!r}, only {', '.join(ENDPOINTS)}")
        if endpoint in found:
            raise BadValue(f"{endpoint} is given twice; {FORM}")
        found[endpoint] = tuple(limit(one) for one in written.split(","))
    return found


def limit(text: str) -> Limit:
    """One limit, such as `60/60s`."""
    written = text.strip()
    matched = re.fullmatch(r"([0-9]+)/([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", written)
    if not matched:
        raise BadValue(f"{written!r} is not AMOUNT/LENGTH with a unit of ms, s, m, h, d; {FORM}")
    amount, length, unit = matched.groups()
    length_ms = float(length) * UNITS_MS[unit]
    if int(amount) == 0 or length_ms == 0:
        raise BadValue(f"{written!r} has an amount or a length of 0; {FORM}")
    return Limit(int(amount), length_ms, written)

"""The limits: so many units in any stretch of so long, per organisation and endpoint.

    generate=60/60s,50000/1d;embed=500/60s,2000inputs/60s,20@once

The simulator reads them by itself: were they read by the code that it judges, a misreading
would be on both sides.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from millpond.simulator.values import BadValue

#: What can be limited: the lanes of calls. Which path leads to which is in server.py.
ENDPOINTS = ("generate", "embed", "classify")

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

FORM = (
    "write ENDPOINT=AMOUNT[UNIT]/LENGTH,AMOUNT@once,...;..., such as"
    " generate=60/60s,20000tokens/60s,20@once;embed=500/60s"
)


class Unit(StrEnum):
    CALLS = "calls"
    INPUTS = "inputs"
    CHARACTERS = "characters"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Units:
    """What one call takes of everything that can be limited."""

    calls: int = 1
    inputs: int = 0
    characters: int = 0
    tokens: int = 0

    def of(self, unit: Unit) -> int:
        match unit:
            case Unit.CALLS:
                return self.calls
            case Unit.INPUTS:
                return self.inputs
            case Unit.CHARACTERS:
                return self.characters
            case Unit.TOKENS:
                return self.tokens


#: A call that uses nothing counts as a call all the same.
NOTHING = Units()


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` units of admitted calls in any stretch of `length_ms`."""

    amount: int
    length_ms: float
    written: str
    unit: Unit = Unit.CALLS


@dataclass(frozen=True, slots=True)
class AtOnce:
    """At most `amount` calls between their arrival and the end of their reply."""

    amount: int
    written: str


#: endpoint -> its limits, all of which hold at once
Limits = dict[str, tuple[Limit | AtOnce, ...]]


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


def limit(text: str) -> Limit | AtOnce:
    """One limit, such as `60/60s`, `20000tokens/60s` or `20@once`."""
    written = text.strip()
    matched = re.fullmatch(
        rf"([0-9]+)({'|'.join(Unit)})?(?:/([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)|@once)", written
    )
    if not matched:
        raise BadValue(
            f"{written!r} is not AMOUNT/LENGTH, with a length in ms, s, m, h, d and a unit of"
            f" {', '.join(Unit)} behind the amount or none, nor AMOUNT@once; {FORM}"
        )
    amount, unit = int(matched[1]), Unit(matched[2] or Unit.CALLS)
    if amount == 0:
        raise BadValue(f"{written!r} has an amount or a length of 0; {FORM}")
    if matched[3] is None:
        if unit is not Unit.CALLS:
            raise BadValue(f"{written!r}: only calls can be limited at once; {FORM}")
        return AtOnce(amount, written)
    length_ms = float(matched[3]) * UNITS_MS[matched[4]]
    if length_ms == 0:
        raise BadValue(f"{written!r} has an amount or a length of 0; {FORM}")
    return Limit(amount, length_ms, written, unit)

"""What is wrong with a value, and where: places are JSON pointers (RFC 6901)."""

import math
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from millpond.producer.http.problems import ERRORS_MOST, Wrong

INTEGER_LEAST, INTEGER_MOST = -(2**63), 2**64 - 1
TOO_BIG = "an integer of more than 64 bits"
SURROGATE = "half of a surrogate pair: it is no character and cannot be kept"
_POINTER_MOST = 300
_DETAIL_MOST = 300
_MOMENT = "2026-11-24T15:55:36Z"


def wrongs(error: ValidationError, value: Any, *, where: str | None = None) -> list[Wrong]:
    """pydantic's errors about `value`. Names of union branches are left out of the places, and so
    is what a branch says that wants another type than one that had more to say."""
    found: dict[tuple[str, str], Wrong] = {}
    types: set[tuple[str, str]] = set()
    for each in error.errors(include_url=False, include_input=False):
        if each["type"] == "json_invalid" and (surrogates := list(unsound(value, ""))):
            return surrogates
        at, detail = _place(each["loc"], value, each["type"]), _detail(each)
        if each["type"].startswith("union_tag"):
            at = under(at, str(each["ctx"]["discriminator"]).strip("'"))
        found.setdefault((at, detail), Wrong(at, detail, where))
        if each["type"].endswith("_type"):
            types.add((at, detail))
        if len(found) > ERRORS_MOST:
            break
    taken = {at[:end] for at, _ in found for end, letter in enumerate(at) if letter == "/"}
    taken |= {at for at, detail in found if (at, detail) not in types}
    return [told for key, told in found.items() if key not in types or key[0] not in taken]


def _detail(each: Any) -> str:
    match each["type"]:
        case "extra_forbidden":
            return "there is no such field"
        case "missing":
            return "it is required"
        case "too_short" | "too_long":
            return str(each["msg"]).replace(" after validation", "")
        case "datetime_parsing" | "datetime_from_date_parsing":
            return f"there is no such moment: write it as {_MOMENT}"
        case _:
            return str(each["msg"]).removeprefix("Value error, ")[:_DETAIL_MOST]


def _place(loc: tuple[int | str, ...], value: Any, kind: str) -> str:
    """pydantic's `loc` without what is not in the value: branches of unions and the like."""
    at = ""
    for index, step in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(value, dict) and (step in value or (last and kind == "missing")):
            at, value = under(at, step), value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            at, value = under(at, step), value[step]
    return at


def under(at: str, step: int | str) -> str:
    """RFC 6901; a place that is too long to be told ends in an ellipsis."""
    if at.endswith("…"):
        return at
    token = str(step).replace("~", "~0").replace("/", "~1").encode(errors="replace").decode()
    place = f"{at}/{token}"
    return place if len(place) <= _POINTER_MOST else place[:_POINTER_MOST] + "…"


def unsound(value: Any, at: str) -> Iterator[Wrong]:
    """What no JSON says, in a value that was read already."""
    match value:
        case str() if not encodes(value):
            yield Wrong(at, SURROGATE)
        case float() if not math.isfinite(value):
            yield Wrong(at, "NaN and Infinity are not JSON")
        case int() if not INTEGER_LEAST <= value <= INTEGER_MOST:
            yield Wrong(at, TOO_BIG)
        case dict():
            for name, inner in value.items():
                if not encodes(name):
                    yield Wrong(under(at, name), SURROGATE)
                yield from unsound(inner, under(at, name))
        case list():
            for index, inner in enumerate(value):
                yield from unsound(inner, under(at, index))
        case None | str() | int() | float():
            pass
        case _:
            yield Wrong(at, "it is nothing that JSON has")


def encodes(text: str) -> bool:
    """Whether a text has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

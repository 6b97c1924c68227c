"""What the two wires have in common: how a request is read, and what an answer is made of.

Null means unset. Fields that would only change the style of a text (temperature and such) are
checked for their type and then have no effect.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from millpond.simulator.author import Author
from millpond.simulator.books import Against, Page
from millpond.simulator.limits import Units

CHARACTERS_PER_TOKEN = 4
#: No provider's keys are shorter.
_REAL_LEAST = 36

#: What a broken gateway answers instead of JSON.
GARBAGE = b"<html><body>upstream connect error</body></html>"

#: JSON types by the words of the providers' own messages.
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int": (int,),
    "number": (int, float),
    "bool": (bool,),
    "list": (list,),
    "object": (dict,),
}


@dataclass(frozen=True, slots=True)
class Invalid:
    """The provider will never take this request, because of the field `param`."""

    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent is only written once it is wanted.

    `pieces` is there if it was asked for piece by piece; the last one says that it was the last.
    """

    units: Units
    body: Callable[[], bytes]
    pieces: Callable[[], list[bytes]] | None = None


class Asked(Protocol):
    def answer(self, author: Author, answer_id: str) -> Answer: ...


class Wire(Protocol):
    """One provider's forms. The modules `cohere` and `openai` are the two."""

    #: How an answer is called in which no field has its type.
    WRONG_TYPES: bytes
    STREAM_TYPE: str

    def request(self, endpoint: str, body: bytes) -> Asked | Invalid:
        """What is asked for, or what is wrong with it."""

    def error(self, status: int, message: str, param: str | None = None) -> bytes:
        """The one shape of every error."""

    def refusal(self, endpoint: str, against: Against) -> tuple[int, bytes]:
        """Status and body for a call that a limit or the quota forbids."""

    def headers(self, page: Page, at_ms: float, service_ms: int | None) -> dict[str, str]:
        """What the head says beside; `service_ms` None: nothing was done."""


def fields(body: bytes) -> dict[str, Any] | Invalid:
    """The fields that are set."""
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        return Invalid(f"invalid json syntax: {fault}")
    if not isinstance(raw, dict):
        return Invalid("invalid request: the body must be a JSON object")
    return {name: value for name, value in raw.items() if value is not None}


def wrong_type(fields: Mapping[str, Any], table: Mapping[str, str]) -> Invalid | None:
    for name, value in fields.items():
        wanted = table.get(name)
        if wanted is None:
            continue
        # For Python True is an int; on the wire it is not.
        if not isinstance(value, TYPES[wanted]) or (wanted != "bool" and isinstance(value, bool)):
            return Invalid(f"invalid type: parameter {name} should be of type {wanted}", name)
    return None


def wrong_texts(name: str, texts: Sequence[object], most: int) -> Invalid | None:
    """What is wrong with a list of one to so many texts, none of them empty."""
    if not texts:
        return Invalid(f"invalid request: {name} must be at least 1 element long.", name)
    if len(texts) > most:
        return Invalid(
            f"invalid request: total number of {name} must be at most {most}"
            f" - received {len(texts)}",
            name,
        )
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            return Invalid(
                f"invalid type: element {index} of {name} should be of type string", name
            )
        if not text:
            return Invalid(
                f"invalid request: {name} contains an element that is the empty string"
                f" at index {index}",
                name,
            )
    return None


def tokens(text: str) -> int:
    return tokens_of(len(text))


def tokens_of(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


def units_of(texts: Iterable[str], *, inputs: int) -> Units:
    """What texts cost that are read and have none for an answer."""
    lengths = [len(text) for text in texts]
    return Units(
        inputs=inputs, characters=sum(lengths), tokens=sum(tokens_of(one) for one in lengths)
    )


def api_key(authorization: str | None) -> str | None:
    """The key of `Bearer KEY`, whatever the case of the scheme."""
    scheme, _, key = (authorization or "").partition(" ")
    return (key.strip() or None) if scheme.lower() == "bearer" else None


def org_of(key: str | None) -> str | None:
    """Whom a key names. Made-up keys are names; one that is as long as real ones are may be real,
    and the journal shall not hold it: its digest stands for it."""
    if key is None or len(key) < _REAL_LEAST:
        return key
    return f"key-{hashlib.sha256(key.encode(errors='replace')).hexdigest()[:16]}"

"""What is particular to one provider, behind one protocol: decisions only, no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from millpond.domain.request import Ask, Common, Need
from millpond.errors import Refused
from millpond.providers.outcome import Outcome

MESSAGE_MOST = 500
#: A count of tokens above this is no count.
TOKENS_MOST = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Wire:
    """A request as it is sent."""

    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it came, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Adapter(Protocol):
    """How one provider's requests are written and its replies read."""

    def need(self, common: Common, ask: Ask) -> Need:
        """Check a job as the provider would, and say what it may use.

        Raises BadParameter for what the provider would refuse or millpond sets itself.
        """
        ...

    def wire(self, common: Common, asks: Sequence[Ask]) -> Wire:
        """The request for the jobs of one call."""
        ...

    def read(self, common: Common, asks: Sequence[Ask], reply: Reply) -> Outcome:
        """What a reply means. A 200 that does not hold what was asked for is no answer."""
        ...

    def told(self, reply: Reply) -> str | None:
        """What a reply's headers say of the account's limits, as limits are written."""
        ...


class BadParameter(Refused):
    """A parameter of a request that cannot be sent; `name` is the parameter."""

    code = "bad_parameter"

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def none_of(params: Mapping[str, Any], ours: frozenset[str]) -> None:
    """Refuse parameters that millpond sets itself."""
    for name in params:
        if name in ours:
            raise BadParameter(name, f"parameter {name!r} is set by millpond itself")


def whole(
    params: Mapping[str, Any], name: str, *, least: int, most: int, default: int | None = None
) -> int:
    """A whole number within its range."""
    value = params.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise BadParameter(
            name, f"parameter {name!r} must be a whole number from {least} to {most:,}"
        )
    return value


def number(params: Mapping[str, Any], name: str, *, least: float, most: float) -> None:
    """A number within its range, if it is given."""
    value = params.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadParameter(name, f"parameter {name!r} must be a number from {least} to {most}")


def message_of(body: bytes, *path: str) -> str:
    """The error message of a reply, at `path` in its JSON, else its beginning."""
    try:
        found = orjson.loads(body)
        for name in path:
            found = found[name]
    except (ValueError, TypeError, KeyError):
        found = body.decode(errors="replace")
    return str(found)[:MESSAGE_MOST]

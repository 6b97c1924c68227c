"""What is particular to one provider, behind one protocol: decisions only, no I/O."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from millpond.domain.request import Ask, Common, Need
from millpond.errors import Refused
from millpond.providers.outcome import Outcome, Rejected

MESSAGE_MOST = 500
#: A count of tokens above this is no count.
TOKENS_MOST = 1_000_000_000
#: A count in a header. (Whatever is there is shown to people, so nothing else passes.)
_COUNT = re.compile(r"[0-9]{1,12}")


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
        """The request for the jobs of one call: one job, or several of one pack key."""
        ...

    def read(self, common: Common, asks: Sequence[Ask], reply: Reply) -> Outcome:
        """What a reply means. A 200 that does not hold what was asked for is no answer."""
        ...

    def pack_most(self, common: Common) -> int:
        """How many jobs one call may carry; 1: there are no packs."""
        ...

    def pack_key(self, common: Common, ask: Ask) -> str:
        """Jobs with the same key may share a call; those with an empty one are alone in theirs."""
        ...

    def told(self, reply: Reply) -> str | None:
        """What a reply's headers say of the account's limits, as limits are written."""
        ...

    def said(self, reply: Reply) -> str | None:
        """All that a reply's headers say of limits and what is left of them, for people."""
        ...

    def service_ms(self, reply: Reply) -> int | None:
        """How long the provider says that it worked before the reply began; None: it does not say,
        or counts calls where that tells nothing."""
        ...


class PackKeys:
    """Makes pack keys: digests of all that is the same for every job of a call.

    What a flow's jobs share and what one adds go in apart, not merged: a pack may mix flows, and is
    written with what the first flow's jobs share and the first job adds. A flow can share thousands
    of examples, so that part is digested once.
    """

    def __init__(self) -> None:
        self._last: tuple[Common, str] | None = None

    def key(self, common: Common, most: int, own: Mapping[str, Any]) -> str:
        """`own`: what the job adds beside its text."""
        last = self._last
        if last is None or last[0] is not common:
            examples = [[one.text, one.label] for one in common.examples]
            shared = _digest(common.endpoint, common.model, common.params, examples, most)
            self._last = last = (common, shared)
        return _digest(last[1], own) if own else last[1]


def _digest(*parts: Any) -> str:
    """Long enough that no two of many millions are the same: a pack of unlike jobs would be
    answered wrongly, and nobody would see it."""
    told = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(told, digest_size=8).hexdigest()


class BadParameter(Refused):
    """A parameter of a request that cannot be sent; `name` is the parameter."""

    code = "bad_parameter"

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def some_text(name: str, text: str) -> None:
    """Refuse an empty text: every provider does, and the whole pack with it."""
    if not text:
        raise BadParameter(name, f"{name!r} is empty: there is nothing to ask")


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
        return str(found)[:MESSAGE_MOST]
    except (ValueError, TypeError, KeyError, RecursionError):
        return body.decode(errors="replace")[:MESSAGE_MOST]


def blamed(outcome: Outcome, name: str, count: int, told: str) -> Outcome:
    """A rejection of several texts with the one that it is about, if `told` names exactly one.

    Providers name it `name[3]`, `name.3`, `name/3` or `name contains an element … at index 3`.
    """
    if not isinstance(outcome, Rejected) or count == 1:
        return outcome
    place = re.compile(
        rf"(?<![\w\]])(?<![\w\]]\.){name}"
        r"(?:\[([0-9]{1,4})\]|[./]([0-9]{1,4})(?!\w)"
        r"| contains an element that [\w ]{1,80} at index ([0-9]{1,4})(?!\w))"
        r"(?!\.?\w|\[)"
    )
    named = {int("".join(digits)) for digits in place.findall(told)}
    if len(named) == 1 and max(named) < count:
        return replace(outcome, index=named.pop())
    return outcome


def left_of(what: str, left: str | None, most: str | None) -> str | None:
    """What is left of a limit, as two headers tell it, for people."""
    some, all_ = _count(left), _count(most)
    if some and all_:
        return f"{what}: {some} of {all_} left"
    if some:
        return f"{what}: {some} left"
    return f"{what}: {all_} in all" if all_ else None


def _count(told: str | None) -> str | None:
    return f"{int(told):,}" if told and _COUNT.fullmatch(told) else None

"""What can go wrong with a call at the provider, and how it is asked for.

    429=0.02,retry_after=3    refused without reason; not counted in the windows
    429_garbage=0.01          the same, with a Retry-After that nobody can read
    reset_before=0.01         the connection is reset before the body is read; not counted

    500=0.01   503=0.01       counted, served, and then broken; charged nothing
    error_200=0.01            the same, but the error comes with the status 200
    hang=0.005                counted; nothing comes until the client leaves; charged nothing

    reset_after=0.01          counted, served, charged; the connection is reset instead of answered
    garbage=0.01              counted, served, charged; the answer is no JSON
    wrong_types=0.01          counted, served, charged; JSON in which nothing is what it should be
    short_body=0.01           counted, served, charged; more bytes are announced than come
    drip=0.01                 counted, served, charged; a byte every 0.2 s
    stream_cut=0.01           counted, served, charged; half of it comes

A further fault is one entry more in KINDS, and a branch in provider.py if it behaves anew.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from millpond.simulator.values import BadValue, number, whole

UNREADABLE_WAIT = "in a little while"


@dataclass(frozen=True, slots=True)
class ResetsBefore:
    """Not even read: the connection is reset once the head of the request is there."""


@dataclass(frozen=True, slots=True)
class Refuses:
    """Not admitted, though no limit was reached."""

    status: int
    retry_after: str | None


@dataclass(frozen=True, slots=True)
class Breaks:
    """Admitted, and answered with this error after the service time."""

    status: int


@dataclass(frozen=True, slots=True)
class Resets:
    """Admitted and served; then the connection is reset without a reply."""


@dataclass(frozen=True, slots=True)
class Hangs:
    """Admitted, and never answered while the client waits."""


@dataclass(frozen=True, slots=True)
class Garbles:
    """Admitted and served; what is sent is no answer."""

    json: bool


class Manner(Enum):
    """How a reply is sent."""

    WHOLE = auto()
    #: Less than the head announces; then the connection is closed.
    SHORT = auto()
    #: Byte by byte.
    DRIPPED = auto()
    #: Half of it. A stream then ends in good order; of any other reply the connection is closed.
    CUT = auto()


@dataclass(frozen=True, slots=True)
class Spoils:
    """Admitted and served; the answer is right, its sending is not."""

    manner: Manner


Behaviour = ResetsBefore | Refuses | Breaks | Resets | Hangs | Garbles | Spoils


@dataclass(frozen=True, slots=True)
class Fault:
    probability: float
    behaviour: Behaviour


@dataclass(frozen=True, slots=True)
class Kind:
    behaviour: Callable[[Mapping[str, int]], Behaviour]
    options: frozenset[str] = frozenset()


def _refuses(options: Mapping[str, int]) -> Refuses:
    wait = options.get("retry_after")
    return Refuses(429, None if wait is None else str(wait))


KINDS: dict[str, Kind] = {
    "429": Kind(_refuses, frozenset({"retry_after"})),
    "429_garbage": Kind(lambda options: Refuses(429, UNREADABLE_WAIT)),
    "reset_before": Kind(lambda options: ResetsBefore()),
    "500": Kind(lambda options: Breaks(500)),
    "503": Kind(lambda options: Breaks(503)),
    "error_200": Kind(lambda options: Breaks(200)),
    "hang": Kind(lambda options: Hangs()),
    "reset_after": Kind(lambda options: Resets()),
    "garbage": Kind(lambda options: Garbles(json=False)),
    "wrong_types": Kind(lambda options: Garbles(json=True)),
    "short_body": Kind(lambda options: Spoils(Manner.SHORT)),
    "drip": Kind(lambda options: Spoils(Manner.DRIPPED)),
    "stream_cut": Kind(lambda options: Spoils(Manner.CUT)),
}

FORM = (
    f"write NAME=PROBABILITY with a name of {', '.join(KINDS)}, such as 429=0.02,retry_after=3"
    " (seconds) or hang=0.005"
)


def faults(texts: Sequence[str]) -> tuple[Fault, ...]:
    found = tuple(fault(text) for text in texts)
    together = sum(one.probability for one in found)
    if together > 1:
        raise BadValue(f"the probabilities add up to {together:g}, which is more than 1")
    return found


def fault(text: str) -> Fault:
    (name, probability), *others = (_pair(part) for part in text.split(","))
    kind = KINDS.get(name)
    if kind is None:
        raise BadValue(f"there is no fault {name!r}; {FORM}")
    unknown = [option for option, _ in others if option not in kind.options]
    if unknown:
        raise BadValue(f"the fault {name} has no option {unknown[0]!r}; {FORM}")
    chance = number(probability, f"the probability of {name}")
    if chance > 1:
        raise BadValue(f"the probability of {name} is {chance:g}, which is more than 1")
    options = {option: whole(value, option) for option, value in others}
    return Fault(chance, kind.behaviour(options))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadValue(f"{text!r} has no '='; {FORM}")
    return name.strip(), value.strip()

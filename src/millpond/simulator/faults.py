"""What can go wrong with a call at the provider, and how it is asked for.

    429=0.02,retry_after=3    refused without reason; not counted in the windows
    500=0.01   503=0.01       counted, served, and then broken
    reset_after=0.01          counted, served, charged; the connection is reset instead of answered
    hang=0.005                counted; nothing comes until the client leaves

A further fault is one entry more in KINDS, and a branch in provider.py if it behaves anew.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from millpond.simulator.values import BadValue, number, whole


@dataclass(frozen=True, slots=True)
class Refuses:
    """Not admitted, though no limit was reached."""

    status: int
    retry_after_s: int | None


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


Behaviour = Refuses | Breaks | Resets | Hangs


@dataclass(frozen=True, slots=True)
class Fault:
    probability: float
    behaviour: Behaviour


@dataclass(frozen=True, slots=True)
class Kind:
    behaviour: Callable[[Mapping[str, int]], Behaviour]
    options: frozenset[str] = frozenset()


KINDS: dict[str, Kind] = {
    "429": Kind(
        lambda options: Refuses(429, options.get("retry_after")), frozenset({"retry_after"})
    ),
    "500": Kind(lambda options: Breaks(500)),
    "503": Kind(lambda options: Breaks(503)),
    "reset_after": Kind(lambda options: Resets()),
    "hang": Kind(lambda options: Hangs()),
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

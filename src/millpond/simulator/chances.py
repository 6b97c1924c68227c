"""Numbers that are drawn: how long things take, and how long answers are."""

from dataclasses import dataclass
from math import log
from random import Random

from millpond.simulator.values import BadValue, number, whole

DURATION_FORM = "write SECONDS, uniform:FROM,TO or lognormal:MEDIAN,SIGMA, such as uniform:0,0.6"
LENGTH_FORM = "write TOKENS, uniform:FROM,TO or lognormal:MEDIAN,SIGMA, such as lognormal:40,0.6"


@dataclass(frozen=True, slots=True)
class Constant:
    value: float

    def draw(self, rng: Random) -> float:
        return self.value


@dataclass(frozen=True, slots=True)
class Uniform:
    from_: float
    to: float

    def draw(self, rng: Random) -> float:
        return rng.uniform(self.from_, self.to)


@dataclass(frozen=True, slots=True)
class Lognormal:
    median: float
    sigma: float

    def draw(self, rng: Random) -> float:
        return rng.lognormvariate(log(self.median), self.sigma)


Chance = Constant | Uniform | Lognormal


def duration(text: str) -> Chance:
    """`0.3`, `uniform:0,0.6` or `lognormal:0.2,0.8`; seconds."""
    return _chance(text, DURATION_FORM)


def length(text: str) -> Chance:
    """`40`, `uniform:10,70` or `lognormal:40,0.6`; tokens."""
    chance = _chance(text, LENGTH_FORM)
    match chance:
        case Constant():
            if whole(text.strip(), "the length (tokens)") == 0:
                raise BadValue(f"{text!r} is no text at all; {LENGTH_FORM}")
        case Uniform(from_=from_) if from_ < 1:
            raise BadValue(f"{text!r} begins below 1 token; {LENGTH_FORM}")
    return chance


def _chance(text: str, form: str) -> Chance:
    shape, colon, numbers = text.strip().partition(":")
    if not colon:
        return Constant(_number(shape, form))
    first, comma, second = numbers.partition(",")
    if shape not in ("uniform", "lognormal") or not comma:
        raise BadValue(f"{text!r} is not understood; {form}")
    one, two = _number(first, form), _number(second, form)
    if shape == "lognormal":
        if one == 0:
            raise BadValue(f"{text!r} has a median of 0; {form}")
        return Lognormal(one, two)
    if one > two:
        raise BadValue(f"{text!r} ends before it starts; {form}")
    return Uniform(one, two)


def _number(text: str, form: str) -> float:
    try:
        return number(text.strip(), "a number in it")
    except BadValue as bad:
        raise BadValue(f"{bad}; {form}") from None

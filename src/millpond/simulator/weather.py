"""What the provider and the network do to calls: how long things take, and what goes wrong.

Every kind of chance has a stream of its own, made from the seed: asking for faults does not
change the delays, so that two policies can be compared under the same weather.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from random import Random

from millpond.simulator.faults import Behaviour, Fault
from millpond.simulator.values import BadValue, number

FORM = "write SECONDS, uniform:FROM,TO or lognormal:MEDIAN,SIGMA, such as uniform:0,0.6"


@dataclass(frozen=True, slots=True)
class Constant:
    seconds: float

    def draw_s(self, rng: Random) -> float:
        return self.seconds


@dataclass(frozen=True, slots=True)
class Uniform:
    from_s: float
    to_s: float

    def draw_s(self, rng: Random) -> float:
        return rng.uniform(self.from_s, self.to_s)


@dataclass(frozen=True, slots=True)
class Lognormal:
    median_s: float
    sigma: float

    def draw_s(self, rng: Random) -> float:
        return rng.lognormvariate(log(self.median_s), self.sigma)


Duration = Constant | Uniform | Lognormal


def duration(text: str) -> Duration:
    """`0.3`, `uniform:0,0.6` or `lognormal:0.2,0.8`; seconds."""
    shape, colon, numbers = text.strip().partition(":")
    if not colon:
        return Constant(_number(shape))
    first, comma, second = numbers.partition(",")
    if shape not in ("uniform", "lognormal") or not comma:
        raise BadValue(f"{text!r} is not understood; {FORM}")
    one, two = _number(first), _number(second)
    if shape == "lognormal":
        if one == 0:
            raise BadValue(f"{text!r} has a median of 0; {FORM}")
        return Lognormal(one, two)
    if one > two:
        raise BadValue(f"{text!r} ends before it starts; {FORM}")
    return Uniform(one, two)


def _number(text: str) -> float:
    try:
        return number(text.strip(), "a number in it")
    except BadValue as bad:
        raise BadValue(f"{bad}; {FORM}") from None


class Weather:
    def __init__(
        self,
        *,
        seed: int,
        service: Duration,
        delay_in: Duration,
        delay_out: Duration,
        faults: Sequence[Fault],
    ) -> None:
        self._service, self._service_rng = service, Random(f"{seed} service")
        self._delay_in, self._delay_in_rng = delay_in, Random(f"{seed} delay in")
        self._delay_out, self._delay_out_rng = delay_out, Random(f"{seed} delay out")
        self._faults, self._faults_rng = faults, Random(f"{seed} faults")

    def service_s(self) -> float:
        return self._service.draw_s(self._service_rng)

    def delay_in_s(self) -> float:
        return self._delay_in.draw_s(self._delay_in_rng)

    def delay_out_s(self) -> float:
        return self._delay_out.draw_s(self._delay_out_rng)

    def fault(self) -> Behaviour | None:
        """What goes wrong with the next call; the probabilities lie side by side in 0 to 1."""
        drawn = self._faults_rng.random()
        for fault in self._faults:
            drawn -= fault.probability
            if drawn < 0:
                return fault.behaviour
        return None

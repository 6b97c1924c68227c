"""What the provider and the network do to calls: how long things take, and what goes wrong.

Every kind of chance has a stream of its own, made from the seed: asking for faults does not
change the delays, so that two policies can be compared under the same weather.
"""

from collections.abc import Sequence
from random import Random

from millpond.simulator.chances import Chance
from millpond.simulator.faults import Behaviour, Fault


class Weather:
    def __init__(
        self,
        *,
        seed: int,
        service: Chance,
        delay_in: Chance,
        delay_out: Chance,
        stream: Chance,
        faults: Sequence[Fault],
    ) -> None:
        self._service, self._service_rng = service, Random(f"{seed} service")
        self._delay_in, self._delay_in_rng = delay_in, Random(f"{seed} delay in")
        self._delay_out, self._delay_out_rng = delay_out, Random(f"{seed} delay out")
        self._stream, self._stream_rng = stream, Random(f"{seed} stream")
        self._faults, self._faults_rng = faults, Random(f"{seed} faults")

    def service_s(self) -> float:
        return self._service.draw(self._service_rng)

    def delay_in_s(self) -> float:
        return self._delay_in.draw(self._delay_in_rng)

    def delay_out_s(self) -> float:
        return self._delay_out.draw(self._delay_out_rng)

    def stream_s(self) -> float:
        """From the first word of a stream to its last."""
        return self._stream.draw(self._stream_rng)

    def fault(self) -> Behaviour | None:
        """What goes wrong with the next call; the probabilities lie side by side in 0 to 1."""
        drawn = self._faults_rng.random()
        for fault in self._faults:
            drawn -= fault.probability
            if drawn < 0:
                return fault.behaviour
        return None

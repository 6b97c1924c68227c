"""Two windows at once. The simulator's report knows one at a time: the ideal is replayed here."""

from bench.admission.figures import Figures, Place, judged, ratio
from bench.admission.files import KEY, FileRun

from rig import Rows

#: Calls and seconds.
WINDOWS = ((60, 6), (200, 60))
RUN = FileRun(400, ",".join(f"{amount}/{length}s" for amount, length in WINDOWS))


def two_windows(place: Place) -> Figures:
    with RUN.under_way(place) as run:
        run.wait()
        figures = judged(run.provider)
        ideal_s = _ideal_drain_s(run.provider.calls(KEY))
    told = ("refused", "admitted", "duplicates", "drain_s")
    of_ideal = ratio(figures["drain_s"], ideal_s)
    return {**{name: figures[name] for name in told}, "drain_of_ideal": of_ideal}


def _ideal_drain_s(calls: Rows) -> float:
    """From the first arrival to the last, if each call is let go as soon as every window has fewer
    than its amount that are in flight or were answered within it."""
    answered_ms: list[float] = []
    arrived_ms: list[float] = []
    now_ms = 0.0
    for call in sorted(calls, key=lambda call: float(call["received_ms"])):
        answered_ms.sort()
        for amount, length_s in WINDOWS:
            if len(answered_ms) >= amount:
                now_ms = max(now_ms, answered_ms[-amount] + length_s * 1_000)
        answered_ms.append(now_ms + call["headers_ms"] - call["received_ms"])
        arrived_ms.append(now_ms + call["at_ms"] - call["received_ms"])
    return (max(arrived_ms) - min(arrived_ms)) / 1_000

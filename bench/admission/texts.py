"""Many short texts to embed, packed into the calls that a minute allows."""

from bench.admission.figures import Figures, Place, judged, rounded
from bench.admission.files import KEY, FileRun

CALLS_A_MINUTE = 500
RUN = FileRun(
    150_000,
    f"{CALLS_A_MINUTE}/60s",
    endpoint="embed",
    service="1",
    options=("--concurrency", "500"),
    words=(4, 12),
    seconds=420,
)


def three_windows(place: Place) -> Figures:
    """`texts_a_minute` is what the window held on average, with as many texts as a call had."""
    with RUN.under_way(place) as run:
        run.wait()
        figures = judged(run.provider)
        calls = run.provider.calls(KEY)
    texts_a_call = sum(call["inputs"] for call in calls) / len(calls)
    latency_ms = sum(call["headers_ms"] - call["received_ms"] for call in calls) / len(calls)
    first_ms = min(call["at_ms"] for call in calls)
    three = [call["inputs"] for call in calls if call["at_ms"] < first_ms + 180_000]
    return {
        **figures,
        "calls": len(calls),
        "texts_a_call": rounded(texts_a_call),
        "latency_s": rounded(latency_ms / 1_000),
        "texts_a_minute": round((figures["sustained"] or 0) * CALLS_A_MINUTE * texts_a_call),
        "texts_of_three_minutes": round(sum(three) / 3),
    }

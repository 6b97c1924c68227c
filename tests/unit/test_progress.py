"""How a run is shown."""

import io

import pytest

from millpond.clock import duration
from millpond.run.progress import Line, Rate, Silent, Standing, describe, progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (190, "3m10s"),
        (3_599, "59m59s"),
        (3_600, "1h00m"),
        (7_530, "2h05m"),
        (86_399, "23h59m"),
        (86_400, "1d00h"),
        (356_400, "4d03h"),
    ],
)
def test_a_length_of_time_is_told_in_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def standing(**more: object) -> Standing:
    told: dict[str, object] = {
        "lines": 1_319,
        "succeeded": 1_000,
        "failed": 0,
        "calls": 1_001,
        "characters": 12_345,
        "quota": None,
        "seconds_left": None,
        "waits_for": None,
    }
    return Standing(**{**told, **more})  # type: ignore[arg-type]


def test_what_is_nothing_is_left_out() -> None:
    assert describe(standing(), 60) == "60 calls/min"


def test_everything_that_is_known_is_told_in_one_line() -> None:
    full = standing(failed=2, quota=500_000, seconds_left=190, waits_for="60/60s")

    assert describe(full, 1_200) == (
        "2 failed, 1,200 calls/min, 12,345 of 500,000 characters, about 3m10s left, "
        "waits for 60/60s"
    )


def test_the_rate_is_that_of_the_last_minute_or_what_there_is_of_it() -> None:
    rate = Rate()

    assert rate.per_minute(100, 0.0) == 0
    assert rate.per_minute(101, 0.5) == 0
    assert rate.per_minute(110, 10.0) == 60
    assert rate.per_minute(400, 60.0) == 300
    assert rate.per_minute(400, 130.0) < 300
    assert [rate.per_minute(400, 130.0 + s) for s in (61, 122)][-1] == 0


def test_elsewhere_than_on_a_terminal_it_is_a_line_now_and_then() -> None:
    stream = io.StringIO()

    with progress(quiet=False, stream=stream) as shown:
        assert isinstance(shown, Line)
        shown.show(standing())
        shown.show(standing(succeeded=1_001))

    assert stream.getvalue() == "1,000 of 1,319 done, 0 calls/min\n"


def test_quiet_is_quiet() -> None:
    stream = io.StringIO()

    with progress(quiet=True, stream=stream) as shown:
        assert type(shown) is Silent
        shown.show(standing())

    assert stream.getvalue() == ""

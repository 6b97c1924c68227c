"""When the last call may go, against sums done by hand."""

import pytest

from millpond.domain import forecast
from millpond.domain.forecast import Taken, last_release_ms


def test_no_calls_take_no_time() -> None:
    assert last_release_ms(0, [], latency_ms=100, concurrency=1) == 0
    assert last_release_ms(-3, [Taken(1, 1_000, [])], latency_ms=100, concurrency=1) == 0


@pytest.mark.parametrize(
    ("calls", "last_ms"),
    [
        (1, 0),
        (3, 0),
        # A place is free again when its call was answered, and the window has passed after that.
        (4, 1_100),
        (6, 1_100),
        (7, 2_200),
        (10, 3_300),
    ],
)
def test_of_one_window_the_next_go_when_the_first_ones_have_left_it(
    calls: int, last_ms: float
) -> None:
    limits = [Taken(3, 1_000, [])]

    assert last_release_ms(calls, limits, latency_ms=100, concurrency=50) == last_ms


@pytest.mark.parametrize(
    ("calls", "last_ms"),
    [
        (2, 0),
        (3, 1_000),  # the short window
        (4, 1_000),
        (5, 10_000),  # the long one is full with four
        (6, 10_000),
        (7, 11_000),
        (8, 11_000),
        (9, 20_000),
    ],
)
def test_of_two_windows_the_one_that_is_later_decides(calls: int, last_ms: float) -> None:
    limits = [Taken(2, 1_000, []), Taken(4, 10_000, [])]

    assert last_release_ms(calls, limits, latency_ms=0, concurrency=50) == last_ms


@pytest.mark.parametrize(("calls", "last_ms"), [(1, 0), (4, 0), (5, 250), (8, 250), (9, 500)])
def test_without_a_window_only_so_many_run_at_once(calls: int, last_ms: float) -> None:
    assert last_release_ms(calls, [], latency_ms=250, concurrency=4) == last_ms


@pytest.mark.parametrize(("calls", "last_ms"), [(2, 0), (3, 500), (4, 500), (5, 1_500)])
def test_those_at_once_and_a_window_both_hold(calls: int, last_ms: float) -> None:
    """The fifth waits for the window: its first call was answered at 500."""
    limits = [Taken(4, 1_000, [])]

    assert last_release_ms(calls, limits, latency_ms=500, concurrency=2) == last_ms


@pytest.mark.parametrize(
    ("calls", "last_ms"),
    [
        (1, 0),  # one place is free
        (2, 300),
        (3, 700),
        (4, 1_100),  # the first of these calls has left the window
        (5, 1_400),  # and the second, which went at 300
    ],
)
def test_what_is_taken_already_frees_at_its_own_time(calls: int, last_ms: float) -> None:
    limits = [Taken(3, 1_000, [700, 300])]

    assert last_release_ms(calls, limits, latency_ms=100, concurrency=50) == last_ms


@pytest.mark.parametrize("calls", [5, 6, 7, 8, 20, 21, 1_000_001])
def test_beyond_what_is_played_it_goes_on_at_the_pace_of_the_last_ones(
    monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    limits = [Taken(3, 1_000, [])]
    monkeypatch.setattr(forecast, "PLAYED_MOST", 6)

    assert last_release_ms(calls, limits, latency_ms=100, concurrency=50) == pytest.approx(
        (calls - 1) // 3 * 1_100
    )


@pytest.mark.parametrize("calls", [7, 9, 40, 41])
def test_beyond_what_is_played_without_a_window_the_answers_set_the_pace(
    monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    monkeypatch.setattr(forecast, "PLAYED_MOST", 6)

    assert last_release_ms(calls, [], latency_ms=250, concurrency=2) == pytest.approx(
        (calls - 1) // 2 * 250
    )

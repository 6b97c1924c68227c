"""The figures of a report, on runs small enough to work out by hand."""

from collections.abc import Sequence
from itertools import count

import pytest

from millpond.simulator.journal import Call
from millpond.simulator.limits import AtOnce, Limit, Unit
from millpond.simulator.report import Arrival, Report, named, pick, report, sustained, tightest
from millpond.simulator.values import BadValue

TWO = Limit(2, 10_000, "2/10s")
START_MS = 1_700_000_000_000.0
NUMBERS = count()


def call(
    received_s: float,
    *,
    delay_s: float = 0.5,
    latency_s: float | None = 1.0,
    refused_by: str | None = None,
    org: str = "acme",
    endpoint: str = "generate",
    body: str | None = None,
    status: int = 200,
    answered: bool = True,
    tokens: int = 4,
) -> Call:
    received_ms = START_MS + received_s * 1_000
    return Call(
        received_ms=received_ms,
        org=org,
        endpoint=endpoint,
        attempt=None,
        body_sha256=body or f"body {next(NUMBERS)}",
        at_ms=received_ms + delay_s * 1_000,
        headers_ms=None if latency_s is None else received_ms + latency_s * 1_000,
        status=429 if refused_by else status,
        refused_by=refused_by,
        characters=0 if refused_by else 10,
        tokens=0 if refused_by else tokens,
        inputs=0 if refused_by else 1,
        answered=answered,
    )


def test_a_run_by_the_ideal_policy_is_as_good_as_the_ideal() -> None:
    """Two slots of 11 s each: 0, 0, 11, 11, 22, 22, 33. Of the 12 s from the end of
    the first window (10.5) to the fifth arrival (22.5), the second pair fills both places from
    11.5 to 21.5, and nothing the rest: 20 of 24.
    """
    calls = [call(received_s) for received_s in (0, 0, 11, 11, 22, 22, 33)]

    measured = report(calls, [TWO])

    assert (measured.admitted, measured.refused) == (7, {})
    assert measured.sustained == pytest.approx(20 / 24)
    assert measured.sustained_ideal == pytest.approx(20 / 24)
    assert measured.bound == pytest.approx(10 / 11)
    assert (measured.drain, measured.drain_ideal) == (33.0, 33.0)
    assert measured.duplicates == 0
    assert (measured.inputs, measured.characters, measured.tokens) == (7, 70, 28)


def test_a_slower_run_is_measured_against_the_ideal_with_its_own_delays() -> None:
    """One call every 8 s: arrivals 0.5, 8.5, 16.5, 24.5, 32.5. From 10.5 to the third, 16.5, the
    window holds only the second (8.5 to 18.5): half. The ideal lets go at 0, 0, 11, 11, 22; its
    third arrives at 11.5 and the window is empty from 10.5 on: 0.
    """
    measured = report([call(received_s) for received_s in (0, 8, 16, 24, 32)], [TWO])

    assert measured.sustained == pytest.approx(0.5)
    assert measured.drain == 32.0
    assert measured.sustained_ideal == 0.0
    assert measured.drain_ideal == 22.0


def test_a_policy_that_bursts_at_the_windows_edge_shows_its_refusals() -> None:
    """Two are let go at 0 and two at 10 s, when one of the first has not yet left the window."""
    calls = [
        call(0, delay_s=0.0),
        call(0, delay_s=0.6),
        call(10, delay_s=0.1),
        call(10, delay_s=0.2, refused_by="2/10s"),
        call(11, delay_s=0.0),
    ]

    measured = report(calls, [TWO])

    assert (measured.admitted, measured.refused) == (4, {"2/10s": 1})
    assert measured.drain == pytest.approx(11.0)
    assert measured.characters == 40


def test_each_call_keeps_its_own_delay_in_the_ideal_and_a_missing_one_gets_the_mean() -> None:
    """Slots of 10 + 2, 10 + 4 and, where no headers came, 10 + 3 s: 0, 0, 12, 14, 25."""
    calls = [
        call(0, delay_s=0, latency_s=2),
        call(0, delay_s=0, latency_s=4),
        call(30, delay_s=0, latency_s=None),
        call(40, delay_s=0, latency_s=3),
        call(50, delay_s=1, latency_s=3),
    ]

    measured = report(calls, [TWO])

    assert measured.bound == pytest.approx(10 / 13)
    assert measured.drain_ideal == pytest.approx(26.0)


@pytest.mark.parametrize(
    ("total", "drain"),
    [(None, 22.0), (4, 11.0), (5, 22.0), (6, None)],
)
def test_drain_ends_with_the_last_call_that_was_to_be_made(
    total: int | None, drain: float | None
) -> None:
    calls = [call(received_s) for received_s in (0, 0, 11, 11, 22)]

    assert report(calls, [TWO], total=total).drain == drain


@pytest.mark.parametrize(
    ("arrivals_s", "total", "share"),
    [
        #  from 10 s on, to the arrival number total - 2
        ((0, 0, 10, 10, 20, 20, 30, 30), 8, 1.0),
        ((0, 5, 10, 15, 20, 25, 30), 7, 1.0),
        ((0, 0, 12, 12, 24, 24), 6, 0.0),
        ((0, 0, 12, 12, 24, 24, 36, 36), 8, 20 / 28),
        ((0, 0, 10, 10), 4, None),               # the second is before the span
        ((0, 0), 2, None),                       # there is no arrival number 0
        ((), 0, None),
    ],
)  # fmt: skip
def test_sustained_is_the_share_of_the_window_in_use_while_there_was_work(
    arrivals_s: Sequence[float], total: int, share: float | None
) -> None:
    measured = sustained([Arrival(at_s * 1_000, 1) for at_s in arrivals_s], TWO, total)

    assert measured == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize(
    ("run_s", "written"),
    [
        (5, "2/10s"),       # none is shorter: the shortest
        (10, "2/10s"),
        (11, "2/10s"),      # the only one that is shorter
        (61, "6/60s"),      # 0.1 a second against 0.2
        (7_201, "6/60s"),   # the last allows more
    ],
)  # fmt: skip
def test_a_run_is_measured_by_the_slowest_window_shorter_than_itself(
    run_s: float, written: str
) -> None:
    tokens = Limit(1, 5_000, "1tokens/5s", Unit.TOKENS)
    calls = [TWO, Limit(6, 60_000, "6/60s"), Limit(1_440, 7_200_000, "1440/2h")]
    limits: list[Limit | AtOnce] = [AtOnce(1, "1@once"), tokens, *calls]

    chosen = tightest(limits, run_ms=run_s * 1_000)

    assert chosen is not None
    assert chosen.written == written


TEN_TOKENS = Limit(10, 10_000, "10tokens/10s", Unit.TOKENS)


def test_a_run_may_be_measured_by_a_limit_of_tokens() -> None:
    """Tokens 6, 4, 5, 6, 10 arrive at 0, 0, 10, 21 and 31 s. The last ten are one more window's
    worth, so from 10 to 21 s: 5 of 10 are in use until 20, then nothing. The ideal lets the first
    two go at 0. At 11 the second is back, but five do not fit in its four: the third goes when the
    first is back, at 13, the fourth when the third is, at 24, and the last at 35. From 10 to 24 s
    there are 5 of 10 in use for 10 s. A token waits (6·3 + 4 + 5 + 6 + 10) / 31 s on average.
    """
    calls = [
        call(0, delay_s=0, latency_s=3, tokens=6),
        call(0, delay_s=0, tokens=4),
        call(10, delay_s=0, tokens=5),
        call(21, delay_s=0, tokens=6),
        call(31, delay_s=0, tokens=10),
    ]

    measured = report(calls, [TWO, TEN_TOKENS], by=TEN_TOKENS)

    assert measured.sustained == pytest.approx(0.5 * 10 / 11)
    assert measured.sustained_ideal == pytest.approx(0.5 * 10 / 14)
    assert measured.bound == pytest.approx(10 / (10 + 43 / 31))
    assert (measured.drain, measured.drain_ideal) == (31.0, 35.0)


def test_a_call_that_never_fits_goes_alone_in_the_ideal() -> None:
    calls = [call(0, tokens=4), call(1, tokens=99), call(2, tokens=4)]

    assert report(calls, [], by=TEN_TOKENS).drain_ideal == 22.0


def test_the_limit_to_measure_by_is_named_as_it_was_written() -> None:
    limits: list[Limit | AtOnce] = [TWO, AtOnce(20, "20@once"), TEN_TOKENS]

    assert named(limits, "10tokens/10s") == TEN_TOKENS
    assert named(limits, "2calls/10000ms") == TWO
    with pytest.raises(BadValue, match=r"not among .*: 2/10s, 20@once, 10tokens/10s"):
        named(limits, "10inputs/10s")
    with pytest.raises(BadValue, match="20@once is not a window"):
        named(limits, "20@once")


def test_a_body_answered_twice_is_a_duplicate_and_one_that_was_not_is_none() -> None:
    calls = [
        call(0, body="a"),
        call(1, body="a"),
        call(2, body="a"),
        call(3, body="b", answered=False),
        call(4, body="b", status=500),
        call(5, body="b"),
    ]

    assert report(calls, [TWO]).duplicates == 2


def test_without_calls_or_limits_there_is_nothing_to_say() -> None:
    nothing = Report(0, {}, None, None, None, None, None, 0, 0, 0, 0)

    assert report([], [TWO]) == nothing
    assert report([], []) == nothing
    assert report([call(0), call(9)], []).sustained is None


def test_the_only_organisation_and_endpoint_need_not_be_named() -> None:
    assert pick([call(0)], None, None) == ("acme", "generate")
    assert pick([], None, None) is None


@pytest.mark.parametrize(
    ("org", "endpoint"),
    [(None, None), ("acme", None), (None, "generate"), ("nobody", None), ("other", "embed")],
)
def test_if_it_is_not_clear_which_is_meant_all_are_listed(
    org: str | None, endpoint: str | None
) -> None:
    calls = [call(0), call(1, endpoint="embed"), call(2, org="other")]

    with pytest.raises(BadValue, match="--org other --endpoint generate"):
        pick(calls, org, endpoint)


def test_an_organisation_and_an_endpoint_together_are_clear() -> None:
    calls = [call(0), call(1, endpoint="embed"), call(2, org="other")]

    assert pick(calls, "acme", "embed") == ("acme", "embed")
    assert pick(calls, "other", None) == ("other", "generate")

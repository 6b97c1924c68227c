"""The kinds of books: what each lets in, and what it says about its standing."""

from itertools import pairwise
from random import Random

import pytest

from millpond.simulator.limits import Limit, Unit
from millpond.simulator.windows import (
    FRONT_SKEW_MS,
    STALE_MAX,
    Fixed,
    Kind,
    Skewed,
    Sliding,
    Window,
    windows,
)

SIX = Limit(6, 60_000, "6/60s")
#: A moment at which minutes, seconds and everything else begin.
BEGIN_MS = 1_700_000_040_000.0


def window(kind: Kind, limit: Limit = SIX) -> Window:
    (one,) = windows(kind, limit)
    return one


def taken(window: Window, arrivals_s: list[float]) -> list[int]:
    """How many are let in at each of the times, if as many come as like."""
    counts = []
    for at_s in arrivals_s:
        at_ms = BEGIN_MS + at_s * 1_000
        count = 0
        while window.room(at_ms) >= 1:
            window.enter(at_ms, 1)
            count += 1
        counts.append(count)
    return counts


@pytest.mark.parametrize(
    ("kind", "amount", "arrivals_s", "counts"),
    [
        #  each a minute        come at                          let in
        (Kind.EXACT,         6, [0, 30, 59.999, 60],             [6, 0, 0, 6]),
        (Kind.EXACT,         6, [55, 60, 114.999, 115],          [6, 0, 0, 6]),
        (Kind.BUCKET,        6, [0, 9.999, 10, 30, 600],         [6, 0, 1, 2, 6]),
        (Kind.BUCKET,        6, [0, 5, 10, 15, 20],              [6, 0, 1, 0, 1]),
        (Kind.FIXED,         6, [55, 59.999, 60, 119, 120],      [6, 0, 6, 0, 6]),
        (Kind.FIXED,         6, [0, 300, 301],                   [6, 6, 0]),
        (Kind.SLICES,       60, [0, 0.999, 1, 1.5, 59.9, 60],    [1, 0, 1, 0, 1, 1]),
        (Kind.SLICES,       61, [0, 1, 2],                       [2, 2, 2]),
        (Kind.SLICES,        6, [0, 0.5, 1, 2],                  [1, 0, 1, 1]),  # at least 1
        (Kind.COUNT_REFUSED, 6, [0, 30, 60],                     [6, 0, 6]),
    ],
)  # fmt: skip
def test_each_kind_lets_in_what_it_should(
    kind: Kind, amount: int, arrivals_s: list[float], counts: list[int]
) -> None:
    limit = Limit(amount, 60_000, f"{amount}/60s")

    assert taken(window(kind, limit), arrivals_s) == counts


@pytest.mark.parametrize(
    ("kind", "left", "whole_ms"),
    [
        #  two came at 10 and 20 s, and 30 s are past
        (Kind.EXACT, 4, 50_000),
        (Kind.BUCKET, 6, 0),  # a token comes back every 10 s
        (Kind.FIXED, 4, 30_000),
    ],
)
def test_a_window_knows_what_is_left_and_when_it_is_whole_again(
    kind: Kind, left: int, whole_ms: float
) -> None:
    one = window(kind)
    assert (int(one.room(BEGIN_MS)), one.whole_ms(BEGIN_MS)) == (6, 0)
    for at_ms in (10_000, 20_000):
        one.enter(BEGIN_MS + at_ms, 1)

    assert int(one.room(BEGIN_MS + 30_000)) == left
    assert one.whole_ms(BEGIN_MS + 30_000) == pytest.approx(whole_ms, abs=1)


def test_a_bucket_that_is_nearly_empty_says_how_long_the_rest_takes() -> None:
    one = window(Kind.BUCKET)
    taken(one, [0])

    assert int(one.room(BEGIN_MS + 25_000)) == 2
    assert one.whole_ms(BEGIN_MS + 25_000) == pytest.approx(35_000, abs=1)


@pytest.mark.parametrize("kind", Kind)
def test_units_other_than_calls_are_always_kept_exactly(kind: Kind) -> None:
    kept = windows(kind, Limit(6, 60_000, "6tokens/60s", Unit.TOKENS))

    assert isinstance(kept[0], Sliding)
    assert all(one is kept[0] for one in kept)
    assert taken(kept[-1], [55, 60, 115]) == [6, 0, 6]


@pytest.mark.parametrize(("amount", "half"), [(6, 3), (7, 4), (1, 1)])
def test_two_fronts_have_half_of_it_each_and_the_second_a_wrong_clock(
    amount: int, half: int
) -> None:
    right, wrong = windows(Kind.TWO_FRONTS, Limit(amount, 60_000, f"{amount}/60s"))

    assert isinstance(right, Sliding)
    assert isinstance(wrong, Skewed)
    assert [taken(one, [0, 59.999, 60]) for one in (right, wrong)] == [[half, 0, half]] * 2


def test_a_wrong_clock_is_ahead() -> None:
    skewed = Skewed(Fixed(2, 1_000), FRONT_SKEW_MS)

    # By its clock, a second begins at 0.3 s of each.
    assert taken(skewed, [0, 0.299, 0.3, 1, 1.3]) == [2, 0, 2, 0, 2]
    assert skewed.whole_ms(BEGIN_MS + 1_400) == 900


@pytest.mark.parametrize("seed", range(5))
def test_units_are_exact_in_every_stretch_also_when_the_clock_is_set_back(seed: int) -> None:
    rng = Random(seed)
    one = Sliding(50, 1_000)
    admitted: list[tuple[float, int]] = []
    at_ms = BEGIN_MS
    for _ in range(1_000):
        at_ms += rng.expovariate(1 / 60) - (300 if rng.random() < 0.02 else 0)
        units = rng.randint(0, 12)
        inside = sum(its for when, its in admitted if at_ms - 1_000 < when <= at_ms)
        assert one.room(at_ms) == 50 - inside
        if inside + units <= 50:
            one.enter(at_ms, units)
            admitted.append((at_ms, units))
    assert any(later < earlier for (earlier, _), (later, _) in pairwise(admitted))


def test_what_is_stale_is_thrown_away_and_nothing_changes() -> None:
    one = Sliding(10_000, 1_000)
    for nth in range(3 * STALE_MAX):
        one.enter(nth, 3)

    assert len(one._totals) <= STALE_MAX + 1_001
    assert one.room(3 * STALE_MAX - 1) == 10_000 - 3 * 1_000

"""The simulator's books: exact sliding windows and the character quota."""

from random import Random

import pytest

from millpond.simulator.books import Books, QuotaSpent, Standing
from millpond.simulator.journal import Call
from millpond.simulator.limits import NOTHING, AtOnce, Limit, Unit, Units, limits
from millpond.simulator.windows import STALE_MAX, Kind

THREE = "generate=3/10s"


def arrive(
    books: Books,
    at_ms: float,
    *,
    org: str = "acme",
    endpoint: str = "generate",
    units: Units = NOTHING,
) -> str:
    """What the provider does with one call."""
    page = books.page(org, endpoint)
    match page.refusal(at_ms, units):
        case None:
            page.admit(at_ms, units)
            return "admitted"
        case Limit(written=written) | AtOnce(written=written):
            page.turn_away(at_ms)
            return written
        case QuotaSpent():
            page.turn_away(at_ms)
            return "quota"


def spent(books: Books, *, org: str = "acme", endpoint: str = "generate") -> QuotaSpent | None:
    against = books.page(org, endpoint).refusal(0, NOTHING)
    assert against is None or isinstance(against, QuotaSpent)
    return against


@pytest.mark.parametrize(
    ("arrivals_ms", "last"),
    [
        #  all but the last are admitted   what becomes of the last
        ([0], "admitted"),
        ([0, 0, 0], "admitted"),
        ([0, 0, 0, 0], "3/10s"),
        ([0, 5_000, 9_000, 9_999.999], "3/10s"),
        ([0, 5_000, 9_000, 10_000], "admitted"),  # the edge is outside
        ([0, 0, 0, 10_000, 10_000, 10_000], "admitted"),
        ([1, 10_000, 10_000, 10_000.999], "3/10s"),
    ],
)  # fmt: skip
def test_a_call_is_refused_when_the_window_before_it_is_full(
    arrivals_ms: list[float], last: str
) -> None:
    books = Books(limits(THREE), quota=None)
    *earlier, at_ms = arrivals_ms
    assert {arrive(books, one) for one in earlier} <= {"admitted"}

    assert arrive(books, at_ms) == last


def test_calls_let_go_in_bursts_at_the_windows_edge_are_refused_if_the_way_is_uneven() -> None:
    """Three are let go at 0 and three at 10 s; each takes another way. Stamps at release lie."""
    books = Books(limits(THREE), quota=None)
    first, second = [100, 300, 600], [10_000, 10_200, 10_650]

    became = [arrive(books, at_ms) for at_ms in first + second]

    assert became == ["admitted"] * 3 + ["3/10s", "admitted", "admitted"]


def test_refused_calls_do_not_count() -> None:
    books = Books(limits(THREE), quota=None)
    for at_ms in (0, 0, 0):
        arrive(books, at_ms)
    for at_ms in (1_000, 5_000, 9_000):
        assert arrive(books, at_ms) == "3/10s"

    assert arrive(books, 10_000) == "admitted"


def test_all_windows_hold_at_once() -> None:
    books = Books(limits("embed=2/1s,3/10s"), quota=None)
    became = [arrive(books, at_ms, endpoint="embed") for at_ms in (0, 0, 500, 1_000, 2_000, 10_000)]

    assert became == ["admitted", "admitted", "2/1s", "admitted", "3/10s", "admitted"]


def test_organisations_and_endpoints_have_windows_of_their_own() -> None:
    books = Books(limits("generate=1/10s;embed=1/10s"), quota=None)
    arrive(books, 0)

    assert arrive(books, 0) == "1/10s"
    assert arrive(books, 0, org="other") == "admitted"
    assert arrive(books, 0, endpoint="embed") == "admitted"


def test_an_endpoint_without_limits_takes_everything() -> None:
    books = Books(limits(THREE), quota=None)

    assert {arrive(books, 0, endpoint="embed") for _ in range(100)} == {"admitted"}


@pytest.mark.parametrize("seed", range(5))
def test_no_stretch_ever_holds_more_than_its_amount_and_none_is_refused_for_less(seed: int) -> None:
    rng = Random(seed)
    books = Books(limits("generate=5/1s,20/10s"), quota=None)
    admitted: list[float] = []
    at_ms = 0.0
    for _ in range(2_000):
        at_ms += rng.expovariate(1 / 150)
        full = (
            len([one for one in admitted if at_ms - 1_000 < one <= at_ms]) >= 5
            or len([one for one in admitted if at_ms - 10_000 < one <= at_ms]) >= 20
        )
        assert (arrive(books, at_ms) != "admitted") == full
        if not full:
            admitted.append(at_ms)


def test_throwing_away_what_is_stale_changes_nothing() -> None:
    books = Books(limits(THREE), quota=None)
    for at_ms in range(0, 10_000 * STALE_MAX, 5_000):
        assert arrive(books, at_ms) == "admitted"
    now_ms = 10_000 * STALE_MAX

    assert [arrive(books, now_ms), arrive(books, now_ms)] == ["admitted", "admitted"]
    assert arrive(books, now_ms) == "3/10s"


def test_the_quota_refuses_once_what_is_settled_has_reached_it() -> None:
    books = Books({}, quota=100)

    books.settle("acme", "generate", 99)
    assert spent(books) is None
    books.settle("acme", "generate", 31)
    assert spent(books) == QuotaSpent(settled=130, quota=100)


def test_the_quota_is_each_organisations_and_on_generate_alone() -> None:
    books = Books({}, quota=100)
    books.settle("acme", "embed", 1_000)
    assert spent(books) is None

    books.settle("acme", "generate", 100)
    assert spent(books, endpoint="embed") is None
    assert spent(books, org="other") is None


def test_a_full_window_is_named_before_a_spent_quota() -> None:
    books = Books(limits("generate=1/10s"), quota=10)
    arrive(books, 0)
    books.settle("acme", "generate", 10)

    assert arrive(books, 1) == "1/10s"
    assert arrive(books, 10_000) == "quota"


@pytest.mark.parametrize("unit", ["inputs", "characters", "tokens"])
@pytest.mark.parametrize(
    ("arrivals", "at_ms", "units", "admitted"),
    [
        #  already in (at, units)  arrives  with
        ([],                       0,       10, True),
        ([],                       0,       11, False),    # never fits
        ([(0, 4)],                 1,       6,  True),
        ([(0, 4)],                 1,       7,  False),
        ([(0, 4), (500, 6)],       999,     1,  False),
        ([(0, 4), (500, 6)],       999,     0,  True),
        ([(0, 4), (500, 6)],       1_000,   4,  True),     # the edge is outside
        ([(0, 4), (500, 6)],       1_000,   5,  False),
    ],
)  # fmt: skip
def test_other_units_are_counted_with_those_of_the_call_itself(
    unit: str, arrivals: list[tuple[float, int]], at_ms: float, units: int, admitted: bool
) -> None:
    books = Books(limits(f"embed=10{unit}/1s"), quota=None)
    for earlier_ms, earlier in arrivals:
        arrive(books, earlier_ms, endpoint="embed", units=Units(**{unit: earlier}))

    became = arrive(books, at_ms, endpoint="embed", units=Units(**{unit: units}))

    assert became == ("admitted" if admitted else f"10{unit}/1s")


def test_calls_at_once_are_refused_until_one_has_left() -> None:
    books = Books(limits("generate=2@once"), quota=None)
    became = [arrive(books, at_ms) for at_ms in (0, 1, 2)]
    books.leave("acme", "generate")
    became += [arrive(books, at_ms) for at_ms in (3, 4)]

    assert became == ["admitted", "admitted", "2@once", "admitted", "2@once"]
    assert arrive(books, 4, org="other") == "admitted"


def test_the_standing_is_that_of_the_shortest_window_of_the_unit() -> None:
    books = Books(limits("generate=100/1d,3/10s,50tokens/5s"), quota=None)
    for at_ms in (0, 4_000):
        arrive(books, at_ms, units=Units(tokens=20))
    page = books.page("acme", "generate")

    assert page.standing(Unit.CALLS, 4_500) == Standing(3, 1, 9_500)
    assert page.standing(Unit.TOKENS, 4_500) == Standing(50, 10, 4_500)
    assert page.standing(Unit.TOKENS, 5_000) == Standing(50, 30, 4_000)
    assert page.standing(Unit.INPUTS, 4_500) is None


def row(at_ms: float | None, *, refused_by: str | None = None, characters: int = 0) -> Call:
    return Call(
        received_ms=0,
        org="acme",
        endpoint="generate",
        attempt=None,
        body_sha256="",
        at_ms=at_ms,
        refused_by=refused_by,
        characters=characters,
        tokens=7,
    )


def test_books_go_on_from_the_rows_of_a_journal() -> None:
    books = Books(limits("generate=3/10s,30tokens/10s,9@once"), quota=100)

    # In the order in which the calls ended.
    books.restore([row(2_000, characters=60), row(500, refused_by="3/10s"), row(None), row(1_000)])

    page = books.page("acme", "generate")
    assert page.standing(Unit.CALLS, 3_000) == Standing(3, 1, 9_000)
    assert page.standing(Unit.TOKENS, 3_000) == Standing(30, 16, 9_000)
    assert page.flight.calls == 0
    books.settle("acme", "generate", 40)
    assert spent(books) == QuotaSpent(settled=100, quota=100)


def test_refused_calls_come_in_again_where_they_count() -> None:
    books = Books(limits("generate=3/10s"), quota=None, kind=Kind.COUNT_REFUSED)

    books.restore([row(0), row(1, refused_by="fault"), row(2, refused_by="quota")])

    assert arrive(books, 3) == "3/10s"


def test_a_coin_says_which_front_end_takes_a_call_and_falls_the_same_again() -> None:
    def front_ends() -> Books:
        return Books(limits("generate=20/10s"), quota=None, kind=Kind.TWO_FRONTS, seed=3)

    ran, again, restored = front_ends(), front_ends(), front_ends()
    became = [arrive(ran, at_ms) for at_ms in range(30)]

    # Ten each; one front end is full before the other.
    first = became.index("20/10s")
    assert 10 <= first < 20
    assert "admitted" in became[first:]
    assert became.count("admitted") <= 20
    assert [arrive(again, at_ms) for at_ms in range(30)] == became
    restored.restore(
        row(at_ms, refused_by=None if one == "admitted" else one)
        for at_ms, one in enumerate(became[:15])
    )
    assert [arrive(restored, at_ms) for at_ms in range(15, 30)] == became[15:]

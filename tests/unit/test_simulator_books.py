"""The simulator's books: exact sliding windows and the character quota."""

from random import Random

import pytest

from millpond.simulator.books import STALE_MAX, Books, QuotaSpent
from millpond.simulator.limits import Limit, limits

THREE = "generate=3/10s"


def arrive(books: Books, at_ms: float, *, org: str = "acme", endpoint: str = "generate") -> str:
    """What the provider does with one call."""
    match books.refusal(org, endpoint, at_ms):
        case None:
            books.admit(org, endpoint, at_ms)
            return "admitted"
        case Limit(written=written):
            return written
        case QuotaSpent():
            return "quota"


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
    assert books.refusal("acme", "generate", 0) is None
    books.settle("acme", "generate", 31)
    assert books.refusal("acme", "generate", 0) == QuotaSpent(settled=130, quota=100)


def test_the_quota_is_each_organisations_and_on_generate_alone() -> None:
    books = Books({}, quota=100)
    books.settle("acme", "embed", 1_000)
    assert books.refusal("acme", "generate", 0) is None

    books.settle("acme", "generate", 100)
    assert books.refusal("acme", "embed", 0) is None
    assert books.refusal("other", "generate", 0) is None


def test_a_full_window_is_named_before_a_spent_quota() -> None:
    books = Books(limits("generate=1/10s"), quota=10)
    arrive(books, 0)
    books.settle("acme", "generate", 10)

    assert arrive(books, 1) == "1/10s"
    assert arrive(books, 10_000) == "quota"

"""The table that tells statuses apart, and the time that a provider asks us to wait."""

import re
from pathlib import Path

import pytest

from millpond.providers.outcome import (
    KeyRefused,
    Outcome,
    QuotaSpent,
    Refused,
    Rejected,
    Unwell,
    judge,
    read_retry_after,
)


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        ([401, 403, 498], KeyRefused),
        ([402], QuotaSpent),
        ([429], Refused),
        ([409, 425, 503, 529], "free"),
        ([408, 499, 500, 501, 502, 504, 520, 522, 524, 599], "charged"),
        ([400, 404, 405, 410, 413, 415, 418, 422, 451], Rejected),
        ([301, 302, 307, 308], Rejected),
    ],
)
def test_each_status_is_what_the_table_says(
    statuses: list[int], outcome: type[Outcome] | str
) -> None:
    for status in statuses:
        judged = judge(status, "why", None)
        match judged:
            case Unwell(message, told, charged):
                assert outcome == ("charged" if charged else "free"), status
                assert (message, told) == ("why", status)
            case _:
                assert isinstance(outcome, type), status
                assert isinstance(judged, outcome), status


def test_the_page_for_people_says_the_same_of_every_status() -> None:
    page = (Path(__file__).parents[2] / "docs" / "outcomes.md").read_text()
    told: dict[int, tuple[str, str]] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and re.fullmatch(r"[0-9, -]+", cells[0]) and cells[0] != "---":
            for status in _statuses(cells[0]):
                assert status not in told, status
                told[status] = (cells[1], cells[4])

    assert sorted(told) == [status for status in range(100, 600) if not 200 <= status < 300]
    for status, (outcome, charge) in told.items():
        judged = judge(status, "why", None)
        assert type(judged).__name__ == outcome, status
        if isinstance(judged, Unwell):
            assert judged.charged == (charge == "unknown"), status


def _statuses(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def test_what_people_are_told_of_is_kept() -> None:
    assert judge(401, "wrong", None) == KeyRefused("wrong", 401)
    assert judge(402, "spent", None) == QuotaSpent("spent")
    assert judge(422, "never", None) == Rejected("never", 422)


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("3", 3_000),
        ("1", 1_000),
        ("0.5", 500),
        (" 2 ", 2_000),
        ("86400", 86_400_000),
        ("1e1", 10_000),
    ],
)
def test_a_time_to_wait_is_read_in_seconds(value: str, ms: int) -> None:
    assert read_retry_after(value) == ms


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", " ", "soon", "3 seconds", "0", "0.0", "-1", "-0.5", "nan", "inf", "-inf"),
        *("86401", "1e300", "0x10", "１２ｓ", "Wed, 21 Oct 2026 07:28:00 GMT"),
    ],
)
def test_a_time_that_is_none_or_beyond_belief_is_as_good_as_not_said(value: str | None) -> None:
    assert read_retry_after(value) is None
    assert judge(429, "", value) == Refused(None)


def test_a_refusal_carries_the_time_to_wait_and_other_statuses_do_not() -> None:
    assert judge(429, "", "7") == Refused(7_000)
    assert judge(503, "busy", "7") == Unwell("busy", 503, charged=False)

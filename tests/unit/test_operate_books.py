"""The ledger is checked row by row: each sum must follow from the one before."""

import pytest

from millpond.operate.books import Verification
from millpond.store.store import Row

Facts = tuple[str, int, int, int, str]


def verified(*rows: Facts) -> Verification:
    walk = Verification()
    for number, (outcome, characters, now_used, now_estimated, call) in enumerate(rows):
        fields = {"outcome": outcome, "characters": characters, "call": call}
        fields |= {"used": now_used, "estimated": now_estimated}
        walk.row(Row(f"{number}-0", {name: str(value) for name, value in fields.items()}))
    return walk


RIGHT: list[Facts] = [
    ("known", 70, 70, 0, "1"),
    ("unknown", 200, 70, 200, "2"),
    ("unknown", 300, 70, 500, "3"),
    ("known", 120, 190, 300, "2"),  # its answer came late
    ("entered", 1_000, 1_190, 300, ""),
    ("settled", 50, 1_240, 0, "3"),
    ("unknown", 10, 1_240, 10, "4"),
    ("unknown", 10, 1_240, 10, "4"),  # told once more, kept once
    ("corrected", -240, 1_000, 0, ""),
    ("known", 5, 1_005, 0, "5"),
]


def test_books_that_are_right_are_found_right() -> None:
    told = verified(*RIGHT).told(1_005, 0)

    assert told["right"]
    assert told["complete"]
    assert (told["rows"], told["unchecked"], told["mistakes"]) == (10, 0, [])


@pytest.mark.parametrize("row", range(1, len(RIGHT)))
@pytest.mark.parametrize("column", [2, 3], ids=["used", "estimated"])
def test_a_sum_that_is_off_by_one_is_found(row: int, column: int) -> None:
    wrong = list(RIGHT)
    outcome, characters, used, estimated, call = wrong[row]
    wrong[row] = (outcome, characters, used + (column == 2), estimated + (column == 3), call)

    told = verified(*wrong).told(1_005, 0)

    assert not told["right"]
    assert f"row {row}-0" in told["mistakes"][0] or not told["agrees_with_org"]


def test_a_row_that_is_missing_is_found() -> None:
    for row in range(1, len(RIGHT) - 1):
        told = verified(*RIGHT[:row], *RIGHT[row + 1 :]).told(1_005, 0)

        # What is told once more changes nothing, so that one of both may go.
        assert told["right"] == (RIGHT[row] in {RIGHT[row - 1], RIGHT[row + 1]}), row


def test_an_org_that_does_not_agree_with_the_last_row_is_found() -> None:
    told = verified(*RIGHT).told(1_006, 0)

    assert (told["agrees_with_org"], told["right"]) == (False, False)
    assert told["mistakes"] == []


def test_what_has_left_cannot_be_checked_and_that_is_said() -> None:
    rest = verified(*RIGHT[3:]).told(1_005, 0)

    assert rest["right"]
    assert not rest["complete"]
    assert rest["unchecked"] == 1  # call 3 was kept by a row that is gone
    known = verified(("known", 1, 100, 300, "9"), ("known", 120, 220, 100, "2")).told(220, 100)
    assert (known["right"], known["unchecked"]) == (True, 1)


def test_an_org_without_rows_is_right() -> None:
    assert verified().told(0, 0)["right"]

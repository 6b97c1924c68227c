"""Limits as they are written."""

import pytest

from millpond.domain.job import Endpoint
from millpond.domain.limit import (
    FULL,
    LIMITED,
    Limit,
    Unit,
    parse_limit,
    parse_limits,
    write_limits,
)


@pytest.mark.parametrize(
    ("text", "amount", "window_ms"),
    [
        ("60/60s", 60, 60_000),
        ("50000/1d", 50_000, 86_400_000),
        ("500/1m", 500, 60_000),
        ("7/2h", 7, 7_200_000),
        ("60calls/60s", 60, 60_000),
        ("60 calls / 60 s", 60, 60_000),
        ("1call/0.5s", 1, 500),
        ("1/0.1s", 1, 100),
        ("1000000/31d", 1_000_000, 31 * 86_400_000),
        ("  3/1s ", 3, 1_000),
    ],
)
def test_a_limit_is_an_amount_in_a_window(text: str, amount: int, window_ms: int) -> None:
    assert parse_limit(text) == Limit(amount, window_ms, text.strip())


@pytest.mark.parametrize(
    ("text", "unit", "amount", "window_ms"),
    [
        ("20000tokens/60s", Unit.TOKENS, 20_000, 60_000),
        ("20000 tokens / 1m", Unit.TOKENS, 20_000, 60_000),
        ("96inputs/1s", Unit.INPUTS, 96, 1_000),
        ("1character/1d", Unit.CHARACTERS, 1, 86_400_000),
        ("20@once", Unit.CALLS, 20, 0),
        ("20 @ once", Unit.CALLS, 20, 0),
        ("900tokens@once", Unit.TOKENS, 900, 0),
    ],
)
def test_a_limit_counts_calls_or_another_unit_in_a_window_or_at_once(
    text: str, unit: Unit, amount: int, window_ms: int
) -> None:
    assert parse_limit(text) == Limit(amount, window_ms, text, unit)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no limit: write AMOUNT/WINDOW"),
        ("60", "is no limit"),
        ("60/", "is no limit"),
        ("/60s", "is no limit"),
        ("60/60", "is no limit"),
        ("60/60w", "is no limit"),
        ("60/s", "is no limit"),
        ("-1/60s", "is no limit"),
        ("1.5/60s", "is no limit"),
        ("60/-1s", "is no limit"),
        ("60/1e3s", "is no limit"),
        ("60/60s,", "is no limit"),
        ("60words/60s", "counts words: a limit counts calls, inputs, characters, tokens"),
        ("20@60s", "is no limit"),
        ("20@once/60s", "is no limit"),
        ("@once", "is no limit"),
        ("0@once", "the amount must be 1 to 1,000,000,000"),
        ("0/60s", "the amount must be 1 to 1,000,000,000"),
        ("1000000001/60s", "the amount must be 1 to 1,000,000,000"),
        ("1/0s", "the window must be 0.1s to 31d long"),
        ("1/0.09s", "the window must be 0.1s to 31d long"),
        ("1/32d", "the window must be 0.1s to 31d long"),
        (f"1/{'9' * 400}d", "is no limit"),
        (f"{'9' * 5_000}/1d", "is no limit"),
    ],
)
def test_what_is_no_limit_is_refused_with_what_is_accepted(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_limit(text)


def test_the_limits_of_endpoints_are_read_and_written_back() -> None:
    text = "generate=60/60s,9000tokens/60s,20@once;embed=500/60s"

    limits = parse_limits(text)

    assert {endpoint: [one.written for one in of] for endpoint, of in limits.items()} == {
        Endpoint.GENERATE: ["60/60s", "9000tokens/60s", "20@once"],
        Endpoint.EMBED: ["500/60s"],
    }
    assert write_limits(limits) == text
    assert parse_limits(" generate = 1/1s , 2/2s ; ") == parse_limits("generate=1/1s,2/2s")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no limit is named"),
        (";;", "no limit is named"),
        ("60/60s", "write ENDPOINT=LIMIT,LIMIT with an endpoint of generate, embed"),
        ("summarize=1/1s", "with an endpoint of generate, embed, classify"),
        ("generate=", "is no limit"),
        ("generate=1/1s,", "is no limit"),
        ("generate=1/1s;generate=2/2s", "generate is named twice"),
        ("generate=1/60s,2/1m", "two limits have the same window"),
        ("generate=9@once,1@once", "two limits have the same window and unit"),
        ("generate=1tokens/60s,2token/1m", "two limits have the same window and unit"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_limits(text)


@pytest.mark.parametrize("mode", [LIMITED, FULL])
def test_the_limits_of_the_access_modes_are_written_as_people_write_them(
    mode: dict[Endpoint, tuple[Limit, ...]],
) -> None:
    assert parse_limits(write_limits(mode)) == mode

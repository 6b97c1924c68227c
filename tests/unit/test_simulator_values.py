"""How the simulator's options are spelt."""

import pytest

from millpond.simulator.chances import Chance, Constant, Lognormal, Uniform, duration, length
from millpond.simulator.faults import (
    Breaks,
    Fault,
    Garbles,
    Hangs,
    Manner,
    Refuses,
    Resets,
    ResetsBefore,
    Spoils,
    faults,
)
from millpond.simulator.limits import AtOnce, Limit, Unit, limits
from millpond.simulator.values import BadValue, quota
from millpond.simulator.weather import Weather


def test_limits_are_read_for_each_endpoint_with_each_of_its_windows() -> None:
    assert limits("generate=60/60s,50000/1d;embed=500/1m") == {
        "generate": (Limit(60, 60_000, "60/60s"), Limit(50_000, 86_400_000, "50000/1d")),
        "embed": (Limit(500, 60_000, "500/1m"),),
    }


def test_limits_may_be_of_any_unit_and_of_calls_at_once() -> None:
    assert limits("embed=60/60s,9calls/1s,2000inputs/60s,7characters/1d,20000tokens/60s,20@once")[
        "embed"
    ] == (
        Limit(60, 60_000, "60/60s", Unit.CALLS),
        Limit(9, 1_000, "9calls/1s", Unit.CALLS),
        Limit(2_000, 60_000, "2000inputs/60s", Unit.INPUTS),
        Limit(7, 86_400_000, "7characters/1d", Unit.CHARACTERS),
        Limit(20_000, 60_000, "20000tokens/60s", Unit.TOKENS),
        AtOnce(20, "20@once"),
    )


def test_none_is_no_limit() -> None:
    assert limits("none") == {}


@pytest.mark.parametrize(
    ("length", "length_ms"),
    [("250ms", 250), ("1.5s", 1_500), ("2m", 120_000), ("1h", 3_600_000), ("30d", 2_592_000_000)],
)
def test_a_window_may_have_any_unit(length: str, length_ms: float) -> None:
    assert limits(f"embed=1/{length}")["embed"] == (Limit(1, length_ms, f"1/{length}"),)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no '='"),
        ("60/60s", "no '='"),
        ("rerank=60/60s", "no endpoint 'rerank'"),
        ("embed=1/1s;embed=2/2s", "embed is given twice"),
        ("embed=", "'' is not AMOUNT/LENGTH"),
        ("embed=60", "'60' is not AMOUNT/LENGTH"),
        ("embed=60/60", "'60/60' is not AMOUNT/LENGTH"),
        ("embed=60/60w", "'60/60w' is not AMOUNT/LENGTH"),
        ("embed=-1/60s", "'-1/60s' is not AMOUNT/LENGTH"),
        ("embed=1.5/60s", "'1.5/60s' is not AMOUNT/LENGTH"),
        ("embed=0/60s", "amount or a length of 0"),
        ("embed=60/0s", "amount or a length of 0"),
        ("embed=60 tokens/60s", "is not AMOUNT/LENGTH"),
        ("embed=60words/60s", "is not AMOUNT/LENGTH"),
        ("embed=20@twice", "nor AMOUNT@once"),
        ("embed=0@once", "amount or a length of 0"),
        ("embed=20tokens@once", "only calls can be limited at once"),
    ],
)
def test_limits_that_cannot_be_read_are_refused_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(BadValue, match=fault):
        limits(text)


@pytest.mark.parametrize(("text", "characters"), [("none", None), ("0", 0), ("500000", 500_000)])
def test_a_quota_is_characters_or_none(text: str, characters: int | None) -> None:
    assert quota(text) == characters


@pytest.mark.parametrize("text", ["", "-1", "5k", "1.5", "None"])
def test_a_quota_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="quota"):
        quota(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", Constant(0)),
        ("0.3", Constant(0.3)),
        ("uniform:0,0.6", Uniform(0, 0.6)),
        ("lognormal:0.2,0.8", Lognormal(0.2, 0.8)),
    ],
)
def test_a_duration_is_a_number_or_a_distribution(text: str, expected: Chance) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not a number"),
        ("abc", "not a number"),
        ("-1", "0 or more"),
        ("nan", "0 or more"),
        ("inf", "0 or more"),
        ("normal:1,2", "not understood"),
        ("uniform:1", "not understood"),
        ("uniform:1,2,3", "not a number"),
        ("uniform:2,1", "ends before it starts"),
        ("lognormal:0,1", "median of 0"),
    ],
)
def test_a_duration_that_cannot_be_read_is_refused_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(BadValue, match=fault):
        duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", Constant(7)),
        ("uniform:1,9", Uniform(1, 9)),
        ("lognormal:200,0.8", Lognormal(200, 0.8)),
    ],
)
def test_a_length_is_a_number_of_tokens_or_a_distribution(text: str, expected: Chance) -> None:
    assert length(text) == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not a number"),
        ("0", "no text at all"),
        ("1.5", "not a whole number"),
        ("uniform:0,9", "begins below 1 token"),
        ("normal:1,2", "write TOKENS"),
    ],
)
def test_a_length_that_cannot_be_read_is_refused_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(BadValue, match=fault):
        length(text)


def test_faults_are_read_with_their_options() -> None:
    assert faults(
        ["429=0.02,retry_after=3", "429=0.1", "500=.01", "reset_after=0", "hang=0.5"]
    ) == (
        Fault(0.02, Refuses(429, "3")),
        Fault(0.1, Refuses(429, None)),
        Fault(0.01, Breaks(500)),
        Fault(0, Resets()),
        Fault(0.5, Hangs()),
    )


def test_every_other_fault_has_a_name() -> None:
    names = ["429_garbage", "reset_before", "503", "error_200", "garbage", "wrong_types"]
    ways = ["short_body", "drip", "stream_cut"]

    assert [one.behaviour for one in faults([f"{name}=0.01" for name in (*names, *ways)])] == [
        Refuses(429, "in a little while"),
        ResetsBefore(),
        Breaks(503),
        Breaks(200),
        Garbles(json=False),
        Garbles(json=True),
        Spoils(Manner.SHORT),
        Spoils(Manner.DRIPPED),
        Spoils(Manner.CUT),
    ]


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        (["429"], "no '='"),
        (["418=0.1"], "no fault '418'"),
        (["hang=often"], "not a number"),
        (["hang=1.5"], "more than 1"),
        (["hang=0.1,retry_after=3"], "no option 'retry_after'"),
        (["429=0.1,retry_after=0.5"], "not a whole number"),
        (["hang=0.6", "500=0.6"], "add up to 1.2"),
    ],
)
def test_faults_that_cannot_be_read_are_refused_with_the_reason(
    texts: list[str], fault: str
) -> None:
    with pytest.raises(BadValue, match=fault):
        faults(texts)


def weather(*texts: str, seed: int = 1) -> Weather:
    return Weather(
        seed=seed,
        service=Lognormal(0.2, 0.8),
        delay_in=Uniform(0, 0.6),
        delay_out=Constant(0.25),
        stream=Uniform(1, 2),
        faults=faults(texts),
    )


def test_the_same_seed_makes_the_same_weather_whatever_goes_wrong() -> None:
    calm, stormy = weather(), weather("500=0.5")
    drawn = [(calm.delay_in_s(), calm.service_s(), calm.delay_out_s()) for _ in range(50)]
    stormy.stream_s()

    again = []
    for _ in range(50):
        stormy.fault()
        again.append((stormy.delay_in_s(), stormy.service_s(), stormy.delay_out_s()))

    assert again == drawn
    assert all(0 <= delay_in <= 0.6 and out == 0.25 for delay_in, _, out in drawn)


def test_another_seed_makes_other_weather() -> None:
    assert weather(seed=1).service_s() != weather(seed=2).service_s()


def test_each_fault_comes_about_as_often_as_was_asked_for() -> None:
    drawn = [one for sky in [weather("500=0.2", "hang=0.1")] for one in _faults(sky, 10_000)]

    assert 0.18 < drawn.count(Breaks(500)) / 10_000 < 0.22
    assert 0.08 < drawn.count(Hangs()) / 10_000 < 0.12
    assert drawn.count(Breaks(500)) + drawn.count(Hangs()) + drawn.count(None) == 10_000


def _faults(sky: Weather, draws: int) -> list[object]:
    return [sky.fault() for _ in range(draws)]

"""What becomes of a call: the order of the provider's questions, and what counts."""

import json

import pytest

from millpond.simulator.author import Author
from millpond.simulator.books import Books
from millpond.simulator.faults import Hangs, Resets, faults
from millpond.simulator.journal import Call
from millpond.simulator.limits import limits
from millpond.simulator.provider import Outcome, Provider, Reply
from millpond.simulator.weather import Constant, Weather

TEN = json.dumps({"texts": ["0123456789"]}).encode()
INVALID = b"{}"


def provider(*fault: str, limit: str = "none", quota: int | None = None) -> Provider:
    still = Constant(0)
    weather = Weather(seed=1, service=still, delay_in=still, delay_out=still, faults=faults(fault))
    return Provider(Books(limits(limit), quota), weather, Author(seed=1))


async def send(
    to: Provider, body: bytes = TEN, *, org: str | None = "acme", endpoint: str = "embed"
) -> tuple[Call, Outcome]:
    call = Call(0, org, endpoint, None, "ab" * 32)
    return call, await to.receive(call, body)


def status(outcome: Outcome) -> int:
    assert isinstance(outcome, Reply)
    return outcome.status


@pytest.mark.parametrize("org", [None, "invalid"])
async def test_a_call_without_a_good_key_never_arrives_at_the_limits(org: str | None) -> None:
    closed = provider("500=1", limit="embed=1/1d")
    for _ in range(3):
        call, outcome = await send(closed, org=org)
        assert status(outcome) == 401
        assert call.at_ms is None
        assert not call.admitted


async def test_a_refused_call_names_its_limit_and_is_told_no_time_to_wait() -> None:
    full = provider(limit="embed=1/1d")
    await send(full)

    call, outcome = await send(full)

    assert isinstance(outcome, Reply)
    assert (outcome.status, outcome.retry_after_s) == (429, None)
    assert b"1/1d" in outcome.body
    assert (call.refused_by, call.characters, call.admitted) == ("1/1d", 0, False)


async def test_an_invalid_call_counts_and_is_charged_nothing() -> None:
    one = provider(limit="embed=1/1d")

    call, outcome = await send(one, INVALID)
    assert status(outcome) == 400
    assert (call.admitted, call.characters) == (True, 0)

    call, outcome = await send(one)
    assert status(outcome) == 429


async def test_a_spent_quota_refuses_without_counting() -> None:
    poor = provider(limit="generate=1/1d", quota=0)
    for _ in range(2):
        call, outcome = await send(poor, b'{"prompt": "a"}', endpoint="generate")
        assert status(outcome) == 402
        assert call.refused_by == "quota"


async def test_the_fault_429_refuses_without_counting() -> None:
    moody = provider("429=1,retry_after=3", limit="embed=1/1d")
    for _ in range(2):
        call, outcome = await send(moody)
        assert isinstance(outcome, Reply)
        assert (outcome.status, outcome.retry_after_s) == (429, 3)
        assert call.refused_by == "fault"


@pytest.mark.parametrize("code", [500, 503])
async def test_a_call_that_breaks_counts_and_is_charged_nothing(code: int) -> None:
    broken = provider(f"{code}=1", limit="embed=1/1d")

    call, outcome = await send(broken)
    assert status(outcome) == code
    assert (call.admitted, call.characters) == (True, 0)

    call, outcome = await send(broken)
    assert status(outcome) == 429


async def test_a_call_that_is_reset_after_the_work_is_charged() -> None:
    call, outcome = await send(provider("reset_after=1"))

    assert outcome == Resets()
    assert (call.admitted, call.characters) == (True, 10)


async def test_a_call_that_hangs_counts_and_is_charged_nothing() -> None:
    call, outcome = await send(provider("hang=1"))

    assert outcome == Hangs()
    assert (call.admitted, call.characters) == (True, 0)

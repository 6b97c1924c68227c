"""What becomes of a call: the order of the provider's questions, and what counts."""

import json

import pytest

from millpond.simulator import cohere, openai
from millpond.simulator.author import Author
from millpond.simulator.books import Books
from millpond.simulator.chances import Constant
from millpond.simulator.faults import Behaviour, Hangs, Manner, Resets, fault
from millpond.simulator.journal import Call
from millpond.simulator.limits import NOTHING, limits
from millpond.simulator.provider import Outcome, Provider, Reply, Stream
from millpond.simulator.weather import Weather
from millpond.simulator.wire import GARBAGE, Wire

TEN = json.dumps({"texts": ["0123456789"]}).encode()
INVALID = b"{}"


CHAT = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "0123456789"}], "max_tokens": 3}
).encode()
STREAM = b'{"prompt": "0123456789", "max_tokens": 3, "stream": true}'


def provider(*, limit: str = "none", quota: int | None = None, service_s: float = 0) -> Provider:
    still = Constant(0)
    weather = Weather(
        seed=1,
        service=Constant(service_s),
        delay_in=still,
        delay_out=still,
        stream=Constant(2),
        faults=(),
    )
    return Provider(Books(limits(limit), quota), weather, Author(seed=1))


async def send(
    to: Provider,
    body: bytes = TEN,
    *,
    org: str | None = "acme",
    endpoint: str = "embed",
    wire: Wire = cohere,
    wrong: str | None = None,
) -> tuple[Call, Outcome]:
    call = Call(0, org, endpoint, None, "ab" * 32)
    return call, await to.receive(call, wire, body, None if wrong is None else behaviour(wrong))


def behaviour(text: str) -> Behaviour:
    return fault(f"{text}=1" if "=" not in text else text).behaviour


def status(outcome: Outcome) -> int:
    assert isinstance(outcome, Reply)
    return outcome.status


@pytest.mark.parametrize("org", [None, "invalid"])
async def test_a_call_without_a_good_key_never_arrives_at_the_limits(org: str | None) -> None:
    closed = provider(limit="embed=1/1d")
    for _ in range(3):
        call, outcome = await send(closed, org=org, wrong="500")
        assert status(outcome) == 401
        assert call.at_ms is None
        assert not call.admitted


async def test_a_refused_call_names_its_limit_and_is_told_no_time_to_wait() -> None:
    full = provider(limit="embed=1/1d")
    await send(full)

    call, outcome = await send(full)

    assert isinstance(outcome, Reply)
    assert (outcome.status, dict(outcome.headers)) == (429, {})
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
    moody = provider(limit="embed=1/1d")
    for text, retry_after in [
        ("429", None),
        ("429=1,retry_after=3", "3"),
        ("429_garbage", "in a little while"),
    ]:
        call, outcome = await send(moody, wrong=text)
        assert isinstance(outcome, Reply)
        assert (outcome.status, outcome.headers.get("Retry-After")) == (429, retry_after)
        assert call.refused_by == "fault"

    call, outcome = await send(moody)
    assert status(outcome) == 200


@pytest.mark.parametrize(
    ("wrong", "code"), [("500", 500), ("503", 503), ("error_200", 200), ("hang", None)]
)
async def test_a_call_that_breaks_counts_as_a_call_and_is_charged_nothing(
    wrong: str, code: int | None
) -> None:
    broken = provider(limit="embed=2/1d,4tokens/1d")

    call, outcome = await send(broken, wrong=wrong)
    assert (outcome == Hangs()) if code is None else (status(outcome) == code)
    assert (call.admitted, call.units) == (True, NOTHING)

    # Three tokens, and they fit.
    call, outcome = await send(broken)
    assert (status(outcome), call.tokens) == (200, 3)
    call, outcome = await send(broken)
    assert call.refused_by == "2/1d"


@pytest.mark.parametrize(
    "wrong", ["reset_after", "garbage", "wrong_types", "short_body", "drip", "stream_cut"]
)
async def test_a_call_that_is_served_and_then_goes_wrong_is_charged(wrong: str) -> None:
    call, _ = await send(provider(), wrong=wrong)

    assert (call.admitted, call.inputs, call.characters, call.tokens) == (True, 1, 10, 3)


async def test_how_each_of_them_goes_wrong() -> None:
    right = (await send(provider()))[1]
    assert isinstance(right, Reply)
    headers = right.headers
    became = {
        wrong: (await send(provider(), wrong=wrong))[1]
        for wrong in ("reset_after", "garbage", "wrong_types", "short_body", "drip", "stream_cut")
    }

    assert became == {
        "reset_after": Resets(),
        "garbage": Reply(200, GARBAGE, headers, type="text/html"),
        "wrong_types": Reply(200, cohere.WRONG_TYPES, headers),
        "short_body": Reply(200, right.body, headers, manner=Manner.SHORT),
        "drip": Reply(200, right.body, headers, manner=Manner.DRIPPED),
        "stream_cut": Reply(200, right.body, headers, manner=Manner.CUT),
    }


async def test_a_stream_is_charged_at_its_end_and_counted_at_its_arrival() -> None:
    streaming = provider(limit="generate=9tokens/1d", quota=20)

    call, outcome = await send(streaming, STREAM, endpoint="generate")

    assert isinstance(outcome, Stream)
    assert (len(outcome.pieces), outcome.seconds) == (4, 2)
    assert (call.admitted, call.units) == (True, NOTHING)
    other, _ = await send(streaming, STREAM, endpoint="generate")
    assert other.refused_by == "9tokens/1d"
    streaming.settle(call, outcome.units)
    assert (call.inputs, call.tokens) == (1, 3 + 3)
    # So the next one finds the quota of 20 spent.
    assert call.characters == outcome.units.characters > 10


async def test_a_limit_of_tokens_counts_the_answer_before_it_is_given() -> None:
    for limit, code in [("embed=3tokens/1d", 200), ("embed=2tokens/1d", 429)]:
        call, outcome = await send(provider(limit=limit))
        assert status(outcome) == code
    for limit, code in [("generate=10tokens/1d", 200), ("generate=9tokens/1d", 429)]:
        # ten characters, a message, and three tokens of answer
        call, outcome = await send(provider(limit=limit), CHAT, endpoint="generate", wire=openai)
        assert status(outcome) == code
        assert call.tokens == (10 if code == 200 else 0)


async def test_a_call_is_in_flight_until_its_reply_has_ended() -> None:
    narrow = provider(limit="embed=1@once")
    first, _ = await send(narrow)
    second, outcome = await send(narrow)
    assert (second.refused_by, status(outcome)) == ("1@once", 429)

    narrow.leave(second)
    _, outcome = await send(narrow)
    assert status(outcome) == 429
    narrow.leave(first)
    _, outcome = await send(narrow)
    assert status(outcome) == 200


async def test_coheres_head_says_how_long_the_work_took_if_there_was_any() -> None:
    one = provider(limit="embed=2/1d", service_s=0.03)

    heads = []
    for body in (TEN, INVALID, TEN):
        _, outcome = await send(one, body)
        assert isinstance(outcome, Reply)
        heads.append(outcome.headers.get("x-envoy-upstream-service-time"))

    worked, invalid, refused = heads
    assert 30 <= int(worked or 0) < 300
    assert (invalid, refused) == ("0", None)


async def test_openais_head_says_how_the_windows_stand() -> None:
    one = provider(limit="generate=5/6m,100/1d,100tokens/1h")
    await send(one, CHAT, endpoint="generate", wire=openai)

    _, outcome = await send(one, CHAT, endpoint="generate", wire=openai)

    assert isinstance(outcome, Reply)
    assert outcome.headers == {
        "openai-processing-ms": "0",
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "80",
        "x-ratelimit-reset-tokens": "1h0m0s",
    }


async def test_a_spent_quota_is_429_on_openais_wire_with_a_code_of_its_own() -> None:
    poor = provider(quota=0)

    call, outcome = await send(poor, CHAT, endpoint="generate", wire=openai)

    assert isinstance(outcome, Reply)
    assert (outcome.status, call.refused_by) == (429, "quota")
    assert json.loads(outcome.body)["error"]["code"] == "insufficient_quota"

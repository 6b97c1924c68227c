"""One call, from what was claimed to what came of it."""

from collections.abc import Mapping

import orjson
import pytest

from millpond.domain.call import Claimed, ClaimedJob
from millpond.domain.job import Endpoint
from millpond.domain.request import Ask, Common
from millpond.errors import StoreUnavailable
from millpond.providers.caller import Caller, Sent
from millpond.providers.cohere import Cohere
from millpond.providers.http import Http
from millpond.providers.outcome import Answered, NotSent, Rejected
from unit.test_providers_http import Server, serving

COMMON = Common(Endpoint.EMBED, "m", 9)
CALL = Claimed(
    id="1f",
    lane="a.embed",
    org="a",
    flow="f",
    need=3,
    attempts=5,
    jobs=tuple(ClaimedJob(f"f.{text}", 0, Ask(text).write()) for text in ("a", "bc")),
    inputs=2,
)
TWO = {"embeddings": [[1], [2]]}
WORKED = "x-envoy-upstream-service-time"


def reply(body: object, headers: Mapping[str, str] | None = None, *, status: int = 200) -> bytes:
    content = orjson.dumps(body)
    named = "".join(f"{name}: {told}\r\n" for name, told in (headers or {}).items())
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{named}\r\n"
    return head.encode() + content


async def sent(
    server: Server, common: Common | None = COMMON, *, began_ms: float = 0, headers_ms: float = 400
) -> Sent:
    """What comes of a call whose request goes, and whose headers come, at such moments."""

    async def common_of(flow: str) -> bytes | None:
        assert flow == "f"
        return None if common is None else common.write()

    moments = iter([began_ms, headers_ms])
    async with Http(server.url, "k", timeout_ms=20_000, clock=moments.__next__) as http:
        return await Caller(Cohere(), http, common_of).send(CALL)


async def test_the_jobs_of_a_call_go_in_one_request_and_each_gets_its_answer() -> None:
    async with serving(reply(TWO)) as server:
        one = await sent(server)

    (request,) = server.requests
    assert orjson.loads(request.partition(b"\r\n\r\n")[2])["texts"] == ["a", "bc"]
    assert isinstance(one.outcome, Answered)
    assert [one["embedding"] for one in one.outcome.results if isinstance(one, dict)] == [[1], [2]]
    assert one.outcome.used == (1, 2)
    assert (one.headers_ms, one.told, one.said, one.credit_ms) == (400, None, None, 0)


async def test_what_the_provider_says_of_its_limits_is_kept_for_people() -> None:
    left = {"x-trial-endpoint-call-remaining": "19", "x-trial-endpoint-call-limit": "20"}
    async with serving(reply(TWO, left)) as server:
        assert (await sent(server)).said == "calls: 19 of 20 left"
    async with serving(reply({"message": "no"}, left, status=400)) as server:
        one = await sent(server)

    assert one.said == "calls: 19 of 20 left"
    assert one.outcome == Rejected("no", 400)


@pytest.mark.parametrize(
    ("told", "took_ms", "credit_ms"),
    [
        ("300", 400, 295),  # 5 ms less than is said
        ("400", 400, 395),
        ("401", 400, 0),  # longer than the call took: not believed
        ("99999999", 400, 0),
        ("5", 400, 0),
        ("6", 400, 1),
        ("4", 400, 0),
        ("0", 400, 0),
        ("-300", 400, 0),
        ("soon", 400, 0),
    ],
)
async def test_the_provider_vouches_for_the_time_it_worked_but_never_for_more_than_passed(
    told: str, took_ms: float, credit_ms: int
) -> None:
    async with serving(reply(TWO, {WORKED: told})) as server:
        one = await sent(server, began_ms=1_000, headers_ms=1_000 + took_ms)

    assert (one.headers_ms, one.credit_ms) == (1_000 + took_ms, credit_ms)


@pytest.mark.parametrize("status", [301, 400, 429, 500, 503])
async def test_only_for_a_call_that_was_served_the_provider_vouches(status: int) -> None:
    async with serving(reply({}, {WORKED: "300"}, status=status)) as server:
        assert (await sent(server)).credit_ms == 0


async def test_a_call_whose_flow_has_gone_is_not_sent() -> None:
    async with serving(reply(TWO)) as server:
        one = await sent(server, None)

    assert one == Sent(NotSent("its flow has gone", unreachable=False))
    assert server.requests == []


async def test_a_call_is_made_with_the_key_of_its_org_or_else_with_the_one_of_all() -> None:
    keys: list[str | None] = ["its-own", None]

    async def key_of(org: str) -> str | None:
        assert org == "a"
        return keys.pop(0)

    async with (
        serving(reply(TWO)) as server,
        Http(server.url, "ours", timeout_ms=20_000, clock=lambda: 0.0) as http,
    ):
        caller = Caller(Cohere(), http, always, key_of=key_of)
        for _ in range(2):
            assert isinstance((await caller.send(CALL)).outcome, Answered)

    first, second = server.requests
    assert b"Authorization: Bearer its-own\r\n" in first
    assert b"Authorization: Bearer ours\r\n" in second


async def test_a_call_whose_key_cannot_be_had_is_not_sent() -> None:
    async def key_of(org: str) -> str | None:
        raise StoreUnavailable("gone for a moment")

    async with (
        serving(reply(TWO)) as server,
        Http(server.url, "ours", timeout_ms=20_000, clock=lambda: 0.0) as http,
    ):
        sent = await Caller(Cohere(), http, always, key_of=key_of).send(CALL)

    assert isinstance(sent.outcome, NotSent)
    assert not sent.outcome.unreachable
    assert server.requests == []


async def test_a_call_that_may_not_begin_is_not_sent() -> None:
    async with (
        serving(reply(TWO)) as server,
        Http(server.url, "ours", timeout_ms=20_000, clock=lambda: 0.0) as http,
    ):
        sent = await Caller(Cohere(), http, always).send(CALL, lambda: False)

    assert sent == Sent(NotSent("the lease has ended", unreachable=False))
    assert server.requests == []


async def always(flow: str) -> bytes:
    return COMMON.write()

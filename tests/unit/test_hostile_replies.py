"""Whatever a provider replies, each call has an outcome, in bounded time and memory.

Every reply comes over a real connection, and goes as far as what the store would be told.
"""

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from millpond.domain.call import Claimed, ClaimedJob
from millpond.domain.job import Endpoint
from millpond.domain.request import Ask, Common, Example
from millpond.providers import http
from millpond.providers.adapter import Adapter
from millpond.providers.caller import Caller, Sent
from millpond.providers.cohere import Cohere
from millpond.providers.http import Http
from millpond.providers.openai import OpenAI
from millpond.providers.outcome import Answered, JobFailed, NoAnswer, Rejected
from millpond.worker.verdict import settlement
from unit.test_providers_http import Answer, Writer, serving

pytestmark = pytest.mark.usefixtures("both_ways")

LABELS = {"x": {"confidence": 0.75}, "y": {"confidence": 0.25}}
#: What a provider's documentation says that a reply is, to calls of two texts or one.
GOOD: dict[tuple[type[Adapter], Endpoint], dict[str, Any]] = {
    (Cohere, Endpoint.GENERATE): {
        "generations": [{"text": "hi", "finish_reason": "COMPLETE"}],
        "meta": {"billed_units": {"input_tokens": 1, "output_tokens": 2}},
    },
    (Cohere, Endpoint.EMBED): {"embeddings": [[0.5, 1], [1, 0.5]]},
    (Cohere, Endpoint.CLASSIFY): {
        "classifications": [{"prediction": "x", "confidence": 0.75, "labels": LABELS}] * 2
    },
    (OpenAI, Endpoint.GENERATE): {
        "model": "m",
        "choices": [
            {
                "message": {"content": "hi", "refusal": None, "tool_calls": [{"id": "1"}]},
                "finish_reason": "stop",
            }
        ],
        "usage": {"total_tokens": 3},
    },
    (OpenAI, Endpoint.EMBED): {
        "data": [{"index": 0, "embedding": [0.5, 1]}, {"index": 1, "embedding": [1, 0.5]}]
    },
    (OpenAI, Endpoint.CLASSIFY): {"choices": [{"message": {"content": "x"}}]},
}
CASES = list(GOOD)
every_case = pytest.mark.parametrize(
    ("adapter", "endpoint"), CASES, ids=[f"{kind.__name__}-{at}" for kind, at in CASES]
)
STREAMS = {
    Cohere: (
        b'{"event_type":"text-generation","text":"h","is_finished":false}\n',
        b'{"event_type":"stream-end","response":{"generations":[{"text":"hi"}]}}\n',
        b'{"event_type":"stream-error","is_finished":true,"err":"out of room"}\n',
    ),
    OpenAI: (
        b'data: {"choices":[{"index":0,"delta":{"content":"h"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"i"},"finish_reason":"stop"}]}\n\n'
        b"data: [DONE]\n\n",
        b'event: error\ndata: {"error":{"message":"out of room"}}\n\ndata: [DONE]\n\n',
    ),
}
every_adapter = pytest.mark.parametrize("adapter", [Cohere, OpenAI])


def call_of(adapter: type[Adapter], endpoint: Endpoint) -> Claimed:
    alone = endpoint is Endpoint.GENERATE or (adapter, endpoint) == (OpenAI, Endpoint.CLASSIFY)
    texts = ("a",) if alone else ("a", "bc")
    jobs = tuple(ClaimedJob(f"f.{text}", 0, Ask(text).write()) for text in texts)
    return Claimed(
        id="1f", lane="a.x", org="a", flow="f", need=3, attempts=5, jobs=jobs, inputs=len(jobs)
    )


async def common_of(endpoint: Endpoint) -> bytes:
    examples = tuple(Example(text, label) for text in ("1", "2") for label in ("x", "y"))
    return Common(endpoint, "m", 9, examples=examples).write()


@asynccontextmanager
async def sending(
    adapter: type[Adapter], endpoint: Endpoint, url: str, *, timeout_ms: int = 10_000
) -> AsyncIterator[Callable[[], Awaitable[Sent]]]:
    """Make the call, as often as is wanted."""
    call = call_of(adapter, endpoint)

    async def send() -> Sent:
        sent = await caller.send(call)
        settlement(call, sent.outcome, headers_ms=0, ended_ms=0, chance=lambda: 0)
        return sent

    async with Http(url, "k", timeout_ms=timeout_ms, clock=lambda: 0.0) as client:
        caller = Caller(adapter(), client, lambda _: common_of(endpoint))
        yield send


async def outcome_of(
    adapter: type[Adapter], endpoint: Endpoint, answer: bytes | Answer, *, timeout_ms: int = 10_000
) -> Any:
    async with (
        serving(answer) as server,
        sending(adapter, endpoint, server.url, timeout_ms=timeout_ms) as send,
    ):
        return (await send()).outcome


def whole(body: bytes, *, status: int = 200, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def chunked(*chunks: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)


def without_end(first: bytes, again: bytes, *, pause_s: float = 0) -> Answer:
    async def answer(writer: Writer) -> None:
        writer.write(first)
        while not writer.is_closing():
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


def and_closed(reply: bytes) -> Answer:
    async def answer(writer: Writer) -> None:
        writer.write(reply)
        writer.close()

    return answer


@every_case
async def test_the_good_reply_that_all_others_differ_from_is_an_answer(
    adapter: type[Adapter], endpoint: Endpoint
) -> None:
    good = whole(orjson.dumps(GOOD[adapter, endpoint]))

    assert isinstance(await outcome_of(adapter, endpoint, good), Answered)


# HTTP that is none, or too much of it.

BROKEN: dict[str, bytes | Answer] = {
    "nothing": and_closed(b""),
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "a status that is no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "a status of five digits": b"HTTP/1.1 20000 OK\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 10_000 + b"\r\n",
    "a long header": b"HTTP/1.1 200 OK\r\nX-Y: " + b"z" * 1_000_000 + b"\r\n\r\n",
    "a long name": b"HTTP/1.1 200 OK\r\n" + b"z" * 1_000_000 + b": 1\r\n\r\n",
    "a long reason": b"HTTP/1.1 200 " + b"z" * 1_000_000 + b"\r\n\r\n",
    "headers without end": without_end(b"HTTP/1.1 200 OK\r\n", b"X-Y: z\r\n" * 1_000),
    "a line without end": without_end(b"HTTP/1.1 200 OK\r\nX: ", b"z" * 65_536),
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length below nothing": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
    "a length beyond counting": b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % (b"9" * 40),
    "less than its length": and_closed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"),
    "more than its length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}{}{}{}",
    "a chunk of no number": chunked(b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk beyond counting": chunked(b"f" * 40 + b"\r\n{}\r\n0\r\n\r\n"),
    "a chunk below nothing": chunked(b"-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk longer than it says": chunked(b"1\r\n{}\r\n0\r\n\r\n"),
    "chunks that are cut": and_closed(chunked(b"2\r\n{}\r\n")),
    "a chunk with a long name": chunked(b"2;" + b"x" * 1_000_000 + b"\r\n{}\r\n0\r\n\r\n"),
    "trailers without end": without_end(chunked(b"2\r\n{}\r\n0\r\n"), b"X-Y: z\r\n" * 1_000),
    "gzip": whole(gzip.compress(b"{}"), headers="Content-Encoding: gzip\r\n"),
    "a gzip bomb": whole(gzip.compress(bytes(9_000_000)), headers="Content-Encoding: gzip\r\n"),
    "deflate": whole(zlib.compress(b"{}"), headers="Content-Encoding: deflate\r\n"),
    "br that is none": whole(b"{}", headers="Content-Encoding: br\r\n"),
    "gzip that is not told": whole(gzip.compress(b"{}")),
    "gzip in transfer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    b"2\r\n{}\r\n0\r\n\r\n",
    "created": whole(b"{}", status=201),
    "no content": b"HTTP/1.1 204 X\r\n\r\n",
    "part of it": whole(b"{}", status=206),
}  # fmt: skip


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN.keys())
@every_case
async def test_what_is_no_reply_is_no_answer(
    adapter: type[Adapter], endpoint: Endpoint, reply: bytes | Answer
) -> None:
    assert isinstance(await outcome_of(adapter, endpoint, reply), NoAnswer)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        whole(b"{}")[:-1],
        without_end(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.001),
        without_end(b"HTTP/1.1 200 OK\r\nX: ", b"z", pause_s=0.02),
        without_end(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"z", pause_s=0.02),
        without_end(chunked(), b"1\r\nz\r\n", pause_s=0.02),
    ],
    ids=[
        *("silence", "half of the headers", "half of the body", "go on", "headers by the byte"),
        *("a body by the byte", "chunks by the byte"),
    ],
)
@pytest.mark.parametrize(("adapter", "endpoint"), [(Cohere, Endpoint.EMBED)])
async def test_a_reply_that_takes_its_time_is_waited_for_only_so_long(
    adapter: type[Adapter], endpoint: Endpoint, answer: bytes | Answer
) -> None:
    outcome = await outcome_of(adapter, endpoint, answer, timeout_ms=250)

    assert outcome == NoAnswer("no answer within 0.25 s")


@pytest.mark.parametrize(
    "answer",
    [
        without_end(chunked(), b"10000\r\n" + b"z" * 65_536 + b"\r\n"),
        without_end(chunked(), b"8\r\nzzzzzzzz\r\n" * 1_000),
        without_end(b"HTTP/1.1 200 OK\r\n\r\n", b"z" * 65_536),
        without_end(b"HTTP/1.1 500 X\r\n\r\n", b"z" * 65_536),
        without_end(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n", b"z" * 65_536),
        without_end(b"HTTP/1.1 200 OK\r\n\r\n", STREAMS[OpenAI][0] * 500),
    ],
    ids=["chunks", "small chunks", "until closed", "an error", "a large length", "a stream"],
)
async def test_no_more_of_a_reply_is_kept_than_is_allowed(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_MOST_BYTES", 200_000)
    tracemalloc.start()
    try:
        outcome = await outcome_of(OpenAI, Endpoint.GENERATE, answer)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert outcome == NoAnswer("the reply is larger than 200,000 bytes")
    assert most < 3_000_000


@every_case
@pytest.mark.parametrize("status", [101, 301, 302, 303, 304, 307, 308, 418])
async def test_other_statuses_reject_the_request(
    adapter: type[Adapter], endpoint: Endpoint, status: int
) -> None:
    reply = whole(b"", status=status, headers="Location: /elsewhere\r\n")
    outcome = await outcome_of(adapter, endpoint, b"HTTP/1.1 103 Early Hints\r\n\r\n" + reply)

    assert outcome == Rejected("", status)


# A body that is none.

NO_JSON = {
    "nothing": b"",
    "text": b"<html>busy</html>",
    "half of it": b'{"embeddings": [[1], [2',
    "NaN": b'{"embeddings": [[NaN], [2]], "choices": NaN, "generations": NaN}',
    "Infinity": b"Infinity",
    "no float": b'{"embeddings": [[1e999], [2]], "x": -1e999}',
    "an int of 5,000 digits": b'{"x": %s}' % (b"9" * 5_000),
    "no UTF-8": b'{"x": "\xff\xfe"}',
    "half a character": b'{"x": "\\ud800"}',
    "half a character, raw": b'{"x": "\xed\xa0\x80"}',
    "a mark before it": b"\xef\xbb\xbf{}",
    "deep": b"[" * 100_000,
    "null": b"null",
    "a number": b"1",
    "a string": b'"event_type"',
    "a list": b"[]",
    "an object": b"{}",
    "a message": b'{"message": "no room"}',
    "an error": b'{"error": {"message": "no room", "code": 500}}',
    "an error of text": b'{"error": "no room"}',
    "an error of another kind": b'{"error": [1], "message": [1]}',
}


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON.keys())
@every_case
async def test_a_body_that_is_not_what_was_asked_for_is_no_answer(
    adapter: type[Adapter], endpoint: Endpoint, body: bytes
) -> None:
    assert isinstance(await outcome_of(adapter, endpoint, whole(body)), NoAnswer)


@every_case
async def test_an_error_that_comes_as_a_200_is_told(
    adapter: type[Adapter], endpoint: Endpoint
) -> None:
    """Even beside an answer: who wrote both does not mean the answer."""
    error = {"message": "no room"} if adapter is Cohere else {"error": {"message": "no room"}}
    body = {**GOOD[adapter, endpoint], **error}

    outcome = await outcome_of(adapter, endpoint, whole(orjson.dumps(body)))

    assert outcome == NoAnswer("an error came instead of an answer: no room")


@pytest.mark.parametrize("status", [400, 500])
@every_case
async def test_an_error_nested_too_deep_to_be_shown_is_an_outcome(
    adapter: type[Adapter], endpoint: Endpoint, status: int
) -> None:
    deep = b"[" * 1_000 + b"]" * 1_000
    body = b'{"message": %s, "error": {"message": %s}}' % (deep, deep)

    await outcome_of(adapter, endpoint, whole(body, status=status))


@every_case
async def test_of_a_name_that_comes_twice_the_last_one_counts(
    adapter: type[Adapter], endpoint: Endpoint
) -> None:
    good = orjson.dumps(GOOD[adapter, endpoint])
    (first, *_) = GOOD[adapter, endpoint]
    twice = b'{"%s": 5,' % first.encode() + good[1:]

    assert isinstance(await outcome_of(adapter, endpoint, whole(twice)), Answered)


WRONG: list[Any] = [
    *(None, True, -1, 0, 5, 2**63, 2**64 - 1, 1e308, "", "x", "1", "NaN", "\0", "😀" * 3),
    *([], [[]], [None], ["x"], [[1], [2]], {}, {"x": None}, {"0": 1}, {"message": 5}),
    orjson.loads(b"[" * 300 + b"]" * 300),
    orjson.loads(b'{"a":' * 300 + b"1" + b"}" * 300),
]


def spoiled(body: Any, wrong: Any) -> Iterator[Any]:
    """The body with each place in it taken by something wrong, or missing."""
    inside: list[Any] = list(body) if isinstance(body, dict) else []
    inside = list(range(len(body))) if isinstance(body, list) else inside
    for place in inside:
        for other in [wrong, *spoiled(body[place], wrong)]:
            copy = body.copy()
            copy[place] = other
            yield copy
        copy = body.copy()
        del copy[place]
        yield copy


@every_case
async def test_a_wrong_type_at_any_place_is_an_outcome(
    adapter: type[Adapter], endpoint: Endpoint
) -> None:
    reply = b""

    async def answer(writer: Writer) -> None:
        writer.write(reply)

    good = GOOD[adapter, endpoint]
    bodies = {body for wrong in WRONG for body in map(dumps, spoiled(good, wrong))}
    async with serving(answer) as server, sending(adapter, endpoint, server.url) as send:
        for body in sorted(bodies):
            reply = whole(body)
            outcome = (await send()).outcome
            assert isinstance(outcome, Answered | NoAnswer), body
            if isinstance(outcome, Answered):
                assert_sound(endpoint, outcome, body)

    assert len(server.requests) == len(bodies)


def dumps(body: Any) -> bytes:
    """(orjson does not write what is nested so deep.)"""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body).encode()


def assert_sound(endpoint: Endpoint, outcome: Answered, body: bytes) -> None:
    """Nobody who reads an answer finds something else than is documented."""
    for result in outcome.results:
        if isinstance(result, JobFailed):
            assert result.code == "no_label", body
            continue
        orjson.dumps({"row": {"nested": result}})
        match endpoint:
            case Endpoint.GENERATE:
                assert isinstance(result["text"], str), body
                assert isinstance(result.get("finish_reason", ""), str), body
            case Endpoint.EMBED:
                assert result["embedding"], body
                assert {type(one) for one in result["embedding"]} <= {int, float}, body
            case Endpoint.CLASSIFY:
                assert isinstance(result["label"], str), body
                assert type(result["confidence"]) in (float, int, type(None)), body
    assert all(used >= 0 for used in outcome.used), body
    assert outcome.tokens is None or outcome.tokens >= 0, body


# Streams.


@every_adapter
async def test_a_stream_comes_in_pieces_of_any_size(adapter: type[Adapter]) -> None:
    first, last, _ = STREAMS[adapter]

    async def answer(writer: Writer) -> None:
        writer.write(chunked())
        for byte in first + last:
            writer.write(b"1\r\n%c\r\n" % byte)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    outcome = await outcome_of(adapter, Endpoint.GENERATE, answer)

    assert [one["text"] for one in outcome.results] == ["hi"]


@every_adapter
async def test_the_headers_of_a_stream_are_told_when_they_come(adapter: type[Adapter]) -> None:
    """Not when it ends: it holds its place in the limits no longer than it must."""
    first, last, _ = STREAMS[adapter]
    moment = 1.0
    read = asyncio.Event()

    async def answer(writer: Writer) -> None:
        nonlocal moment
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(first + last))
        async with asyncio.timeout(10):
            await read.wait()
        writer.write(first)
        moment = 3.0
        writer.write(last)

    def now() -> float:
        if requests:
            read.set()
        return moment

    async with serving(answer) as server:
        requests = server.requests
        async with Http(server.url, "k", timeout_ms=10_000, clock=now) as client:
            caller = Caller(adapter(), client, lambda _: common_of(Endpoint.GENERATE))
            sent = await caller.send(call_of(adapter, Endpoint.GENERATE))

    assert isinstance(sent.outcome, Answered)
    assert sent.headers_ms == 1.0


@every_adapter
@pytest.mark.parametrize("how", ["closed", "ended"])
async def test_a_stream_that_is_cut_is_no_answer_wherever_it_is_cut(
    adapter: type[Adapter], how: str
) -> None:
    reply = b""

    async def answer(writer: Writer) -> None:
        writer.write(reply)
        if how == "closed":
            writer.close()

    first, last, _ = STREAMS[adapter]
    stream = (first + last).rstrip()
    async with serving(answer) as server, sending(adapter, Endpoint.GENERATE, server.url) as send:
        for size in range(len(stream)):
            part = stream[:size]
            reply = b"HTTP/1.1 200 OK\r\n\r\n" + part if how == "closed" else whole(part)
            assert isinstance((await send()).outcome, NoAnswer), part


@every_adapter
@pytest.mark.parametrize("texts", [0, 1])
async def test_an_error_in_a_stream_is_told(adapter: type[Adapter], texts: int) -> None:
    first, _, error = STREAMS[adapter]
    outcome = await outcome_of(adapter, Endpoint.GENERATE, whole(first * texts + error))

    assert outcome == NoAnswer("an error came instead of an answer: out of room")


@every_adapter
@pytest.mark.parametrize(
    "event",
    [
        *(b"null", b"5", b'"x"', b"[]", b"[[]]", b"{}", b"{", b'{"event_type": 5}', b"NaN"),
        b'{"event_type": "stream-end"}',
        b'{"event_type": "stream-end", "response": 5}',
        b'{"event_type": "stream-error"}',
        b'{"event_type": "stream-error", "err": [5]}',
        b'{"event_type": "stream-end", "finish_reason": "ERROR", "response": '
        b'{"generations": [{"text": "h"}]}}',
        b'{"choices": 5}',
        b'{"choices": [5]}',
        b'{"choices": [{"index": [], "delta": {}}]}',
        b'{"choices": [{"index": 0, "delta": 5}]}',
        b'{"choices": [{"index": 0, "delta": {"content": 5}, "finish_reason": "stop"}]}',
        b'{"choices": [{"index": 0, "delta": {"content": "\\ud800"}, "finish_reason": "stop"}]}',
        b'{"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}',
        b'{"error": 5}',
        b'{"error": {}}',
    ],
)
async def test_an_event_that_is_none_makes_a_stream_no_answer(
    adapter: type[Adapter], event: bytes
) -> None:
    first = STREAMS[adapter][0]
    prefix, end = (b"", b"") if adapter is Cohere else (b"data: ", b"\n\ndata: [DONE]\n\n")
    outcome = await outcome_of(adapter, Endpoint.GENERATE, whole(first + prefix + event + end))

    assert isinstance(outcome, NoAnswer)

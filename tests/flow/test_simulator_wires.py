"""What the simulator speaks over HTTP beside plain calls: OpenAI's wire, streams, classify."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from flow.test_simulator import Run, embed, finished, generate, post, run

__all__ = ["run"]

CHAT = "/v1/chat/completions"


def hello(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **fields}


async def chat(url: str, **fields: Any) -> tuple[int, Any, Any]:
    return await post(url, hello(**fields), path=CHAT)


async def received(url: str, path: str, body: Any) -> tuple[Any, list[tuple[float, str]]]:
    """The head of a reply, and each line of its body with its time in seconds after the head."""
    headers = {"Authorization": "Bearer acme"}
    async with (
        aiohttp.ClientSession(url) as session,
        session.post(path, json=body, headers=headers) as response,
    ):
        assert response.status == 200
        begun_s = time.monotonic()
        lines = [(time.monotonic() - begun_s, line.decode()) async for line in response.content]
    return response.headers, lines


async def test_a_chat_is_answered_and_noted_as_a_call_on_generate(run: Run) -> None:
    simulator = run("--limits", "generate=60/60s,1000/1d,500tokens/60s")

    status, body, headers = await chat(simulator.url, max_tokens=4)

    assert (status, headers["Content-Type"]) == (200, "application/json")
    text = body["choices"][0]["message"]["content"]
    # "Hello" is two tokens, and the message takes four.
    assert body["usage"]["total_tokens"] == 2 + 4 + 4
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-limit-tokens"] == "500"
    assert headers["x-ratelimit-remaining-tokens"] == "490"
    assert headers["x-ratelimit-reset-tokens"].startswith(("1m0s", "59."))
    (row,) = simulator.wait_rows(1)
    assert (row["endpoint"], row["status"], row["answered"]) == ("generate", 200, True)
    assert (row["inputs"], row["characters"], row["tokens"]) == (1, 5 + len(text), 10)


async def test_chats_and_generations_share_their_windows_and_each_has_its_errors(run: Run) -> None:
    simulator = run("--limits", "generate=2/1d")
    assert await generate(simulator.url) == 200
    assert (await chat(simulator.url))[0] == 200

    status, body, headers = await chat(simulator.url)
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert headers["x-ratelimit-remaining-requests"] == "0"
    status, body, headers = await post(simulator.url, {"prompt": "a"}, path="/v1/generate")
    assert (status, list(body)) == (429, ["message"])
    assert not any(name.lower().startswith("x-") for name in headers)


async def test_a_spent_quota_is_429_for_a_chat(run: Run) -> None:
    simulator = run("--quota", "5")

    assert (await chat(simulator.url))[0] == 200
    status, body, _ = await chat(simulator.url)

    assert (status, body["error"]["code"]) == (429, "insufficient_quota")
    assert await generate(simulator.url) == 402


async def test_embeddings_count_on_embed(run: Run) -> None:
    simulator = run("--limits", "embed=5inputs/1d")
    body = {"model": "m", "input": ["a", "b", "c"], "encoding_format": "base64"}

    status, answer, _ = await post(simulator.url, body, path="/v1/embeddings")

    assert status == 200
    assert [len(row["embedding"]) for row in answer["data"]] == [172] * 3
    status, answer, _ = await post(simulator.url, body, path="/v1/embeddings")
    assert status == 429
    assert "5inputs/1d" in answer["error"]["message"]
    first, second = simulator.wait_rows(2)
    assert (first["endpoint"], first["inputs"], first["tokens"]) == ("embed", 3, 3)
    assert (second["refused_by"], second["inputs"]) == ("5inputs/1d", 0)


@pytest.mark.parametrize(
    ("key", "body", "status", "code"),
    [
        (None, hello(), 401, "invalid_api_key"),
        ("invalid", hello(), 401, "invalid_api_key"),
        ("acme", {"model": "m"}, 400, None),
        ("acme", b"x" * (8 * 1024 * 1024 + 1), 413, None),
    ],
)
async def test_errors_have_openais_shape_on_its_paths(
    run: Run, key: str | None, body: Any, status: int, code: str | None
) -> None:
    simulator = run()

    got, answer, _ = await post(simulator.url, body, key=key, path=CHAT)

    assert (got, list(answer)) == (status, ["error"])
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["code"] == code


async def test_coheres_head_says_how_long_the_work_took(run: Run) -> None:
    simulator = run("--service", "0.05", "--delay-in", "0.3", "--delay-out", "0.3")

    _, _, headers = await post(simulator.url, {"texts": ["a"]})

    assert 50 <= int(headers["x-envoy-upstream-service-time"]) < 300


async def test_a_stream_of_chat_drips_after_its_head_and_ends_with_its_usage(run: Run) -> None:
    simulator = run("--stream-time", "0.5", "--tokens", "4")
    body = hello(stream=True, stream_options={"include_usage": True})

    headers, lines = await received(simulator.url, CHAT, body)

    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert "Content-Length" not in headers
    events = [line.removeprefix("data: ").strip() for _, line in lines if line.strip()]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks[:-1]]
    assert lines[-1][0] - lines[0][0] > 0.3
    assert time.time() * 1_000 - simulator.wait_rows(1)[0]["headers_ms"] >= 500
    (row,) = simulator.rows()
    written = "".join(text for text in texts if text)
    assert (row["characters"], row["tokens"]) == (5 + len(written), 2 + 4 + 4)
    assert row["answered"]


async def test_a_stream_of_generate_is_lines_of_json(run: Run) -> None:
    simulator = run()
    body = {"prompt": "Tell me", "max_tokens": 5, "stream": True}

    headers, lines = await received(simulator.url, "/v1/generate", body)

    assert headers["Content-Type"] == "application/stream+json"
    *texts, end = [json.loads(line) for _, line in lines]
    (generation,) = end["response"]["generations"]
    assert "".join(text["text"] for text in texts) == generation["text"]
    assert len(texts) == 5
    _, whole, _ = await post(simulator.url, {**body, "stream": False}, path="/v1/generate")
    assert whole["generations"][0]["text"] == generation["text"]


async def test_a_stream_is_charged_and_in_flight_until_its_end(run: Run) -> None:
    simulator = run("--limits", "generate=1@once", "--quota", "6", "--stream-time", "0.5")
    headers = {"Authorization": "Bearer acme"}

    async with (
        aiohttp.ClientSession(simulator.url) as session,
        session.post(CHAT, json=hello(stream=True), headers=headers) as response,
    ):
        await response.content.readline()
        status, body, _ = await chat(simulator.url)
        assert (status, simulator.wait_rows(1)[0]["refused_by"]) == (429, "1@once")
        assert (await response.read()).endswith(b"data: [DONE]\n\n")

    _, body, _ = await chat(simulator.url)
    assert body["error"]["code"] == "insufficient_quota"


async def test_a_client_that_leaves_its_stream_is_charged_for_all_of_it(run: Run) -> None:
    simulator = run("--stream-time", "0.5", "--tokens", "9")
    headers = {"Authorization": "Bearer acme"}
    async with (
        aiohttp.ClientSession(simulator.url) as session,
        session.post(CHAT, json=hello(stream=True), headers=headers) as response,
    ):
        await response.content.readline()
        response.close()
    assert simulator.rows() == []

    (row,) = simulator.wait_rows(1)

    assert (row["status"], row["tokens"], row["answered"]) == (200, 15, False)
    assert simulator.stop() == 0
    assert simulator.stderr == ""


async def test_a_stream_that_the_end_of_the_process_cuts_is_noted(run: Run) -> None:
    simulator = run("--stream-time", "3600")
    headers = {"Authorization": "Bearer acme"}
    async with (
        aiohttp.ClientSession(simulator.url) as session,
        session.post(CHAT, json=hello(stream=True), headers=headers) as response,
    ):
        await response.content.readline()
        assert await asyncio.to_thread(simulator.stop) == 0
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()

    assert simulator.stderr == ""
    (row,) = simulator.rows()
    assert (row["status"], row["tokens"], row["answered"]) == (200, 0, False)


async def test_inputs_are_classified_under_limits_of_their_own(run: Run) -> None:
    simulator = run("--limits", "classify=1/1d;generate=1/1d")
    examples = [{"text": text, "label": text[0]} for text in ("cat", "cats", "dog", "dogs")]
    body = {"inputs": ["a dog", "cats"], "examples": examples}

    status, answer, _ = await post(simulator.url, body, path="/v1/classify")

    assert status == 200
    assert [row["prediction"] for row in answer["classifications"]] == ["d", "c"]
    status, _, _ = await post(simulator.url, body, path="/v1/classify")
    assert status == 429
    assert await generate(simulator.url) == 200
    row = simulator.wait_rows(3)[0]
    assert (row["endpoint"], row["inputs"], row["characters"]) == ("classify", 2, 9 + 14)


async def test_calls_at_once_are_refused_while_others_are_in_flight(run: Run) -> None:
    simulator = run("--limits", "embed=3@once", "--service", "0.5")

    statuses = await asyncio.gather(*(embed(simulator.url) for _ in range(5)))

    assert sorted(statuses) == [200, 200, 200, 429, 429]
    assert await embed(simulator.url) == 200


async def test_a_run_under_a_limit_of_tokens_is_reported_by_it(run: Run) -> None:
    simulator = run("--limits", "embed=9/1h,12tokens/200ms")
    while len(simulator.rows()) < 9:
        await embed(simulator.url)  # three tokens
        await asyncio.sleep(0.05)

    code, out, err = finished(
        *("report", str(simulator.journal), "--json", "--limit", "12tokens/200ms")
    )

    assert code == 0, err
    report = json.loads(out)
    assert report["tokens"] == 3 * report["admitted"]
    assert 0 < report["sustained"] <= 1
    assert 0 < report["bound"] < 1

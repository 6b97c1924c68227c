"""What goes wrong at the simulator, as a client sees it; and its other books."""

import json
import socket
from typing import Any

import aiohttp
import pytest

from flow.test_simulator import Run, embed, post, run

__all__ = ["run"]

CHAT = "/v1/chat/completions"
PROMPT = {"prompt": "0123456789", "max_tokens": 4}
STREAM = {**PROMPT, "stream": True}


async def raw(url: str, body: Any) -> tuple[Any, bytes, bool]:
    """Head, what came of the body, and whether it was whole by HTTP's rules."""
    headers = {"Authorization": "Bearer acme"}
    came = b""
    async with (
        aiohttp.ClientSession(url) as session,
        session.post("/v1/generate", json=body, headers=headers) as response,
    ):
        try:
            async for some in response.content.iter_any():
                came += some
        except aiohttp.ClientPayloadError:
            return response.headers, came, False
    return response.headers, came, True


async def test_a_connection_is_reset_before_the_body_is_read(run: Run) -> None:
    simulator = run("--fault", "reset_before=1", "--limits", "embed=1/1d")
    with socket.create_connection(("127.0.0.1", simulator.port)) as connection:
        # The body never comes, and is not waited for.
        connection.sendall(b"POST /v1/embed HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    for _ in range(2):
        with pytest.raises(aiohttp.ClientOSError):
            await embed(simulator.url)

    for row in simulator.wait_rows(3):
        assert (row["at_ms"], row["refused_by"], row["status"]) == (None, "fault", None)
        assert (row["characters"], row["body_sha256"]) == (0, "")
    assert simulator.stop() == 0
    assert simulator.stderr == ""


async def test_a_time_to_wait_may_be_unreadable(run: Run) -> None:
    simulator = run("--fault", "429_garbage=1")

    status, _, headers = await post(simulator.url, {"texts": ["a"]})

    assert (status, headers["Retry-After"]) == (429, "in a little while")
    assert simulator.wait_rows(1)[0]["refused_by"] == "fault"


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        ("/v1/generate", PROMPT, ["message"]),
        (CHAT, {"model": "m", "messages": [{"role": "user", "content": "a"}]}, ["error"]),
    ],
)
async def test_an_error_may_come_as_a_success_and_is_charged_nothing(
    run: Run, path: str, body: Any, names: list[str]
) -> None:
    simulator = run("--fault", "error_200=1")

    status, answer, _ = await post(simulator.url, body, path=path)

    assert (status, list(answer)) == (200, names)
    (row,) = simulator.wait_rows(1)
    assert (row["status"], row["characters"], row["answered"]) == (200, 0, True)


@pytest.mark.parametrize("body", [PROMPT, STREAM])
async def test_a_success_may_be_no_json(run: Run, body: Any) -> None:
    simulator = run("--fault", "garbage=1")

    headers, came, whole = await raw(simulator.url, body)

    assert headers["Content-Type"] == "text/html"
    assert (came[:6], whole) == (b"<html>", True)
    assert simulator.wait_rows(1)[0]["characters"] > 10


async def test_a_success_may_be_json_of_wrong_types(run: Run) -> None:
    simulator = run("--fault", "wrong_types=1")

    _, came, _ = await raw(simulator.url, PROMPT)

    answer = json.loads(came)
    assert (answer["id"], answer["generations"], answer["meta"]) == (7, "none", [])
    assert simulator.wait_rows(1)[0]["characters"] > 10


async def test_less_may_come_than_was_announced(run: Run) -> None:
    simulator = run("--fault", "short_body=1")

    headers, came, whole = await raw(simulator.url, PROMPT)

    assert not whole
    assert int(headers["Content-Length"]) == len(came) + 100
    assert json.loads(came)["prompt"] == PROMPT["prompt"]
    (row,) = simulator.wait_rows(1)
    assert (row["status"], row["answered"]) == (200, False)
    assert row["characters"] > 10


async def test_a_stream_may_lack_its_end_on_the_wire(run: Run) -> None:
    simulator = run("--fault", "short_body=1")

    _, came, whole = await raw(simulator.url, STREAM)

    assert not whole
    assert json.loads(came.splitlines()[-1])["event_type"] == "stream-end"


async def test_half_of_a_reply_may_come(run: Run) -> None:
    simulator = run("--fault", "stream_cut=1")

    headers, came, whole = await raw(simulator.url, PROMPT)

    assert not whole
    assert len(came) == int(headers["Content-Length"]) // 2
    (row,) = simulator.wait_rows(1)
    assert (row["status"], row["answered"]) == (200, False)
    assert row["characters"] > 10


async def test_a_stream_may_end_in_good_order_in_the_middle(run: Run) -> None:
    simulator = run("--fault", "stream_cut=1")

    _, came, whole = await raw(simulator.url, STREAM)

    assert whole
    assert [json.loads(line)["is_finished"] for line in came.splitlines()] == [False, False]
    (row,) = simulator.wait_rows(1)
    assert (row["status"], row["answered"], row["tokens"]) == (200, False, 7)
    assert simulator.stop() == 0
    assert simulator.stderr == ""


@pytest.mark.parametrize("body", [PROMPT, STREAM])
async def test_a_reply_may_drip_until_its_client_has_had_enough(run: Run, body: Any) -> None:
    simulator = run("--fault", "drip=1")
    headers = {"Authorization": "Bearer acme"}
    async with (
        aiohttp.ClientSession(simulator.url) as session,
        session.post("/v1/generate", json=body, headers=headers) as response,
    ):
        came = [await response.content.readany() for _ in range(3)]
        response.close()

    assert [len(some) for some in came] == [1, 1, 1]
    (row,) = simulator.wait_rows(1)
    assert (row["status"], row["answered"], row["tokens"]) == (200, False, 7)
    assert simulator.stop() == 0
    assert simulator.stderr == ""


@pytest.mark.parametrize(
    ("books", "statuses"),
    [
        ("exact", [200, 200, 429]),
        ("bucket", [200, 200, 429]),
        ("fixed", [200, 200, 429]),
        ("slices", [200, 429, 429]),
        ("count-refused", [200, 200, 429]),
    ],
)
async def test_books_may_be_of_another_kind_and_go_on_after_a_new_start(
    run: Run, books: str, statuses: list[int]
) -> None:
    # (A day, and so a slice of it, may begin between two calls: once in many years of tests.)
    options = ("--limits", "embed=2/1d", "--books", books)
    simulator = run(*options)
    assert [await embed(simulator.url) for _ in range(3)] == statuses
    simulator.stop()

    assert await embed(run(*options).url) == 429


async def test_two_front_ends_take_half_each_and_go_on_after_a_new_start(run: Run) -> None:
    options = ("--limits", "embed=7/1d", "--books", "two-fronts", "--seed", "5")
    simulator = run(*options)
    statuses = [await embed(simulator.url) for _ in range(20)]
    simulator.stop()

    # Four each; the one that is full first refuses while the other still takes calls.
    assert statuses.count(200) == 8
    assert statuses[:8] != [200] * 8
    assert [await embed(run(*options).url) for _ in range(2)] == [429, 429]


async def test_windows_of_other_units_go_on_after_a_new_start(run: Run) -> None:
    options = ("--limits", "embed=5tokens/1d")
    simulator = run(*options)
    assert [await embed(simulator.url) for _ in range(2)] == [200, 429]
    simulator.stop()

    simulator = run(*options)

    assert await embed(simulator.url) == 429
    assert await embed(simulator.url, "two more") == 200

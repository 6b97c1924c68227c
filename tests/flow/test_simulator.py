"""The simulator as what it is: a process that is spoken to over HTTP and keeps a journal."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

DEADLINE_S = 20

#: A client to be killed: it sends a call, says so, and then waits for an answer.
CLIENT = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
body = b'{"texts": ["0123456789"]}'
connection.sendall(b"POST /v1/embed HTTP/1.1\\r\\nHost: here\\r\\nAuthorization: Bearer acme\\r\\n"
    b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
print("sent", flush=True)
connection.recv(1)
"""


class Simulator:
    """A running simulator; `stderr` is complete once it has been stopped."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.journal = folder / "journal"
        ready = folder / "ready"
        ready.unlink(missing_ok=True)
        files = ["--ready-file", str(ready), "--journal", str(self.journal)]
        self.process = start(*files, *options)
        wait_until(lambda: ready.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()[1]
        self.url = ready.read_text()
        self.port = int(self.url.rpartition(":")[2])
        self.stderr = ""

    def rows(self) -> list[dict[str, Any]]:
        """The calls in the journal, in the order they ended in."""
        lines = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [line for line in lines if "limits" not in line]

    def wait_rows(self, number: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(self.rows()) >= number)
        return self.rows()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.stderr = self.process.communicate(timeout=DEADLINE_S)[1]
        return self.process.returncode


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "millpond.simulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(*arguments: str) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, err


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


Run = Callable[..., Simulator]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts simulators on one journal; none outlives the test."""
    started: list[Simulator] = []

    def one(*options: str) -> Simulator:
        started.append(Simulator(tmp_path, "--service", "0", *options))
        return started[-1]

    yield one
    for simulator in started:
        if simulator.process.poll() is None:
            simulator.process.kill()
            simulator.process.communicate()


async def post(
    url: str, body: Any, *, key: str | None = "acme", path: str = "/v1/embed", **headers: str
) -> tuple[int, Any, Any]:
    """Status, decoded body and headers of one call."""
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, data=content, headers=headers) as response,
    ):
        return response.status, await response.json(), response.headers


async def embed(url: str, text: str = "0123456789", **more: Any) -> int:
    return (await post(url, {"texts": [text]}, **more))[0]


async def generate(url: str, prompt: str = "0123456789") -> int:
    return (await post(url, {"prompt": prompt}, path="/v1/generate"))[0]


async def test_a_call_is_answered_and_noted(run: Run) -> None:
    simulator = run()
    before_ms = time.time() * 1_000

    status, body, headers = await post(
        simulator.url, {"prompt": "Tell me"}, path="/v1/generate", **{"X-Millpond-Attempt": "a-1"}
    )

    assert (status, headers["Content-Type"]) == (200, "application/json")
    text = body["generations"][0]["text"]
    assert body["prompt"] == "Tell me"
    assert body["meta"]["api_version"]["version"] == "1"
    (row,) = simulator.wait_rows(1)
    assert before_ms - 1 <= row["received_ms"] <= row["at_ms"] <= row["headers_ms"]
    assert row["headers_ms"] <= time.time() * 1_000
    del row["received_ms"], row["at_ms"], row["headers_ms"]
    assert row == {
        "org": "acme",
        "endpoint": "generate",
        "attempt": "a-1",
        # printf '{"prompt": "Tell me"}' | sha256sum
        "body_sha256": "3e983161ab64a7132a95f4d4c5ae591f61a7a4108894b5f5e46f791f8ad8e136",
        "status": 200,
        "refused_by": None,
        "characters": len("Tell me") + len(text),
        "tokens": 2 + len(text.split()),
        "inputs": 1,
        "answered": True,
    }


async def test_each_start_is_noted_with_what_it_was_told(run: Run) -> None:
    simulator = run("--limits", "generate=60/60s,50000/1d;embed=9/1s", "--quota", "20000")
    simulator.stop()
    run("--limits", "none", "--seed", "7").stop()

    assert [json.loads(line) for line in simulator.journal.read_text().splitlines()] == [
        {
            "limits": {"generate": ["60/60s", "50000/1d"], "embed": ["9/1s"]},
            "quota": 20_000,
            "seed": 1,
        },
        {"limits": {}, "quota": None, "seed": 7},
    ]


async def test_as_many_are_taken_as_the_limit_says_and_no_more(run: Run) -> None:
    simulator = run("--limits", "embed=50/1d")

    statuses = await asyncio.gather(*(embed(simulator.url, f"text {n}") for n in range(60)))

    assert sorted(statuses) == [200] * 50 + [429] * 10
    status, body, headers = await post(simulator.url, {"texts": ["a"]})
    assert status == 429
    assert list(body) == ["message"]
    assert "50/1d" in body["message"]
    assert "Retry-After" not in headers
    assert [row["refused_by"] for row in simulator.wait_rows(61)].count("50/1d") == 11


async def test_the_window_slides_by_the_arrivals_in_the_journal(run: Run) -> None:
    simulator = run("--limits", "embed=2/300ms")

    while (await embed(simulator.url)) != 429 or len(simulator.rows()) < 30:
        pass

    admitted: list[float] = []
    for row in sorted(simulator.rows(), key=lambda row: row["at_ms"]):
        inside = [at_ms for at_ms in admitted if row["at_ms"] - 300 < at_ms]
        assert (row["refused_by"] is None) == (len(inside) < 2)
        if row["refused_by"] is None:
            admitted.append(row["at_ms"])


async def test_a_spent_quota_is_402_for_its_organisation(run: Run) -> None:
    simulator = run("--quota", "5")

    assert await generate(simulator.url) == 200
    status, body, _ = await post(simulator.url, {"prompt": "a"}, path="/v1/generate")

    assert status == 402
    assert "quota of 5 characters" in body["message"]
    assert simulator.wait_rows(2)[1]["refused_by"] == "quota"
    assert await embed(simulator.url) == 200


@pytest.mark.parametrize(
    ("key", "message"), [(None, "no api key supplied"), ("invalid", "invalid api token")]
)
async def test_a_call_without_a_good_key_is_401(run: Run, key: str | None, message: str) -> None:
    simulator = run()

    status, body, _ = await post(simulator.url, {"texts": ["a"]}, key=key)

    assert (status, body) == (401, {"message": message})
    assert simulator.wait_rows(1)[0]["status"] == 401


async def test_an_unknown_path_is_404_in_the_providers_shape(run: Run) -> None:
    simulator = run()

    status, body, _ = await post(simulator.url, {}, path="/v1/rerank")

    assert (status, body) == (404, {"message": "404 page not found"})


async def test_a_body_over_8_mib_is_413_and_one_just_under_is_read(run: Run) -> None:
    simulator = run()

    status, body, _ = await post(simulator.url, b"x" * (8 * 1024 * 1024 + 1))
    assert (status, list(body)) == (413, ["message"])
    status, body, _ = await post(simulator.url, b"x" * (8 * 1024 * 1024))
    assert (status, list(body)) == (400, ["message"])


async def test_a_fault_429_carries_the_time_to_wait(run: Run) -> None:
    simulator = run("--fault", "429=1,retry_after=3")

    status, _, headers = await post(simulator.url, {"texts": ["a"]})

    assert (status, headers["Retry-After"]) == (429, "3")


@pytest.mark.parametrize("code", [500, 503])
async def test_a_fault_of_the_server_is_that_status(run: Run, code: int) -> None:
    simulator = run("--fault", f"{code}=1")

    status, body, _ = await post(simulator.url, {"texts": ["a"]})

    assert (status, list(body)) == (code, ["message"])


async def test_a_reset_call_is_charged_and_gets_no_reply(run: Run) -> None:
    simulator = run("--fault", "reset_after=1")

    with pytest.raises(aiohttp.ClientOSError, match="reset"):
        await embed(simulator.url)

    (row,) = simulator.wait_rows(1)
    assert (row["status"], row["headers_ms"]) == (None, None)
    assert (row["characters"], row["answered"]) == (10, False)
    assert simulator.stop() == 0
    assert simulator.stderr == ""


def calling(simulator: Simulator) -> subprocess.Popen[str]:
    """A client that has sent its call and waits."""
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(simulator.port)], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "sent\n"
    return client


def test_a_hanging_call_ends_when_its_client_leaves(run: Run) -> None:
    simulator = run("--fault", "hang=1")
    client = calling(simulator)

    client.kill()
    client.communicate()

    (row,) = simulator.wait_rows(1)
    assert (row["status"], row["characters"], row["answered"]) == (None, 0, False)


def test_a_client_killed_during_the_service_is_seen_as_gone_and_its_call_charged(run: Run) -> None:
    simulator = run("--service", "2")
    client = calling(simulator)

    client.kill()
    client.communicate()

    (row,) = simulator.wait_rows(1)
    assert (row["status"], row["headers_ms"], row["answered"]) == (None, None, False)
    assert row["characters"] == 10
    assert simulator.stop() == 0
    assert simulator.stderr == ""


def test_a_client_that_leaves_in_the_middle_of_its_reply_was_not_answered(run: Run) -> None:
    simulator = run()
    body = json.dumps({"texts": ["x" * 80_000] * 96}).encode()
    head = f"POST /v1/embed HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(("127.0.0.1", simulator.port))
        connection.sendall(head.encode() + b"Authorization: Bearer acme\r\n\r\n" + body)
        assert connection.recv(1) == b"H"
        assert simulator.rows() == []

    (row,) = simulator.wait_rows(1)
    assert (row["status"], row["answered"]) == (200, False)
    assert row["headers_ms"] is not None
    assert row["characters"] == 7_680_000


async def test_clients_that_leave_half_way_through_their_body_are_no_calls(run: Run) -> None:
    simulator = run()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", simulator.port)) as connection:
            connection.sendall(b"POST /v1/embed HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{")

    assert await embed(simulator.url) == 200

    assert len(simulator.wait_rows(1)) == 1
    assert simulator.stop() == 0
    assert simulator.stderr == ""


async def test_a_new_start_goes_on_with_the_windows_and_the_quota(run: Run) -> None:
    simulator = run("--limits", "generate=2/1d", "--quota", "5")
    assert await generate(simulator.url) == 200
    simulator.wait_rows(1)
    simulator.process.kill()
    simulator.process.communicate()
    with simulator.journal.open("ab") as journal:
        journal.write(b'{"received_ms": 17')  # killed in the middle of a row

    for limits, quota, status in [
        ("generate=1/1d", "none", 429),
        ("generate=2/1d", "5", 402),
        ("generate=2/1d", "none", 200),
        ("generate=2/1d", "none", 429),
    ]:
        simulator = run("--limits", limits, "--quota", quota)
        assert await generate(simulator.url) == status
        simulator.stop()

    assert [row["status"] for row in simulator.rows()] == [200, 429, 402, 200, 429]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_well_and_the_calls_it_cuts_are_noted(
    run: Run, number: signal.Signals
) -> None:
    simulator = run("--limits", "embed=5/1d", "--service", "3600")

    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(became(simulator)) for _ in range(6)]
        # One is refused; by then the other five are in, and none of them will ever end.
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        code = await asyncio.to_thread(simulator.stop, number)

    assert (code, simulator.stderr) == (0, "")
    assert sorted(call.result() for call in calls) == ["429"] + ["cut"] * 5
    in_service = [row for row in simulator.rows() if row["refused_by"] is None]
    assert [(row["status"], row["answered"]) for row in in_service] == [(None, False)] * 5


async def became(simulator: Simulator) -> str:
    try:
        return str(await embed(simulator.url))
    except aiohttp.ClientError:
        return "cut"


async def test_a_taken_port_is_an_error(run: Run) -> None:
    simulator = run()

    code, _, err = finished("--port", str(simulator.port))

    assert code == 1
    assert f"port {simulator.port}" in err
    assert "in use" in err


@pytest.mark.parametrize(
    ("option", "value", "fault"),
    [
        ("--limits", "generate=6/x", "'6/x' is not AMOUNT/LENGTH"),
        ("--quota", "5k", "not a whole number"),
        ("--service", "fast", "not a number"),
        ("--delay-in", "uniform:2,1", "ends before it starts"),
        ("--delay-out", "normal:1,2", "not understood"),
        ("--stream-time", "slow", "not a number"),
        ("--tokens", "0", "no text at all"),
        ("--books", "cooked", "is not one of"),
        ("--fault", "418=1", "there is no fault '418'"),
        ("--journal", "/no/such/folder/journal", "a folder that exists"),
        ("--ready-file", "/no/such/folder/ready", "a folder that exists"),
    ],
)
def test_an_option_that_cannot_be_read_is_named_with_the_reason(
    option: str, value: str, fault: str
) -> None:
    code, _, err = finished(option, value)

    assert code == 2
    assert option in err
    assert fault in err


async def test_the_report_is_made_from_the_journal(run: Run) -> None:
    simulator = run("--limits", "embed=3/1d")
    for n in range(4):
        await embed(simulator.url, f"text {n % 2}")
    await generate(simulator.url)
    simulator.wait_rows(5)

    code, out, _ = finished("report", str(simulator.journal), "--json", "--endpoint", "embed")
    report = json.loads(out)
    assert code == 0
    assert 0.99 < report.pop("bound") < 1
    assert report.pop("drain") > 0
    assert report.pop("drain_ideal") < 1
    assert report == {
        "admitted": 3,
        "refused": {"3/1d": 1},
        "sustained": None,
        "sustained_ideal": None,
        "duplicates": 1,
        "inputs": 3,
        "characters": 18,
        "tokens": 6,
    }

    code, out, _ = finished("report", str(simulator.journal), "--total", "9", "--endpoint", "embed")
    assert code == 0
    assert "refused          3/1d: 1\n" in out
    assert "drain            -\n" in out

    by = ("--endpoint", "generate", "--limit", "9tokens/1h")
    code, _, err = finished("report", str(simulator.journal), *by)
    assert code == 2
    assert "9tokens/1h is not among the limits of the journal: none" in err

    code, _, err = finished("report", str(simulator.journal), "--json")
    assert code == 2
    assert "--org acme --endpoint embed; --org acme --endpoint generate" in err


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("hello\n")

    for arguments in (["report", str(other)], ["--journal", str(other)]):
        code, _, err = finished(*arguments)
        assert code == 2
        assert "line 1" in err
    assert other.read_text() == "hello\n"


def test_the_command_line_starts_without_the_http_server() -> None:
    loaded = "import sys, millpond.simulator.commands; print('aiohttp' in sys.modules)"

    out = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True, env=os.environ
    )

    assert out.stdout == "False\n"

"""What the HTTP API costs: `millpond up` in an empty folder, and clients beside it.

    python -m bench.api              all rows (about two minutes)
    python -m bench.api --only lists

One JSON line a row goes to stdout.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson

PROMPT = "A mill pond takes the rush of water and feeds the wheel at its rate. " * 15
LIST, LISTS, AT_ONCE = 500, 80, 4
SINGLES_PER_S, SINGLES_S = 100, 10
POLLS = 5_000
SLOW = 1_000


@dataclass(frozen=True)
class Served:
    """A process tree that serves."""

    url: str
    key: str
    folder: Path
    first_s: float

    @asynccontextmanager
    async def session(self, connections: int = 100) -> AsyncIterator[aiohttp.ClientSession]:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connector = aiohttp.TCPConnector(limit=connections)
        async with aiohttp.ClientSession(self.url, headers=headers, connector=connector) as session:
            yield session

    def producer_rss_mb(self) -> float:
        return _rss_mb(self._pid("producer"))

    def producer_cpu_s(self) -> float:
        fields = Path(f"/proc/{self._pid('producer')}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _pid(self, what: str) -> int:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if what.encode() in command and str(self.folder).encode() in b" ".join(command):
                return int(entry.name)
        raise LookupError(what)


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    """`millpond up`, asked for its first answer."""
    settings = {
        "MILLPOND_CONNECTIONS_PER_ADDRESS": "20000",
        "MILLPOND_WAITING_BYTES_PER_ORG": str(2**30),
        "MILLPOND_WAITING_BYTES": str(2**30),
        "MILLPOND_DRAIN_MOST_S": str(10**7),
    }
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as place:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "millpond", "up", "--json", "--data-dir", place),
            *("--port", "0", "--operator-port", "0"),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **settings},
        )
        try:
            assert process.stdout is not None
            told = json.loads(await process.stdout.readline())
            there = Served(told["url"], told["api_key"], Path(place), 0.0)
            async with there.session() as session:
                id = (await _submit(session, {"endpoint": "generate", "prompt": "Hi."}))["id"]
                async with session.get(f"/v1/jobs/{id}?wait=30") as reply:
                    assert (await reply.json())["state"] == "succeeded"
            first_s = time.monotonic() - began
            yield Served(told["url"], told["api_key"], Path(place), first_s)
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def first(there: Served) -> dict[str, Any]:
    """From nothing to an answer: `up` in an empty folder, a request, its answer."""
    return {"seconds": round(there.first_s, 2)}


async def lists(there: Served) -> dict[str, Any]:
    """Lists of 500 prompts of 1 kB, four requests at once."""
    body = orjson.dumps([{"endpoint": "generate", "prompt": PROMPT[:1_000]}] * LIST)
    left = iter(range(LISTS))

    async def submit_all(session: aiohttp.ClientSession) -> None:
        for _ in left:
            async with session.post("/v1/jobs", data=body) as reply:
                assert reply.status == 202, await reply.text()
                await reply.read()

    async with there.session() as session:
        cpu, began = there.producer_cpu_s(), time.monotonic()
        await asyncio.gather(*(submit_all(session) for _ in range(AT_ONCE)))
        took = time.monotonic() - began
    jobs = LIST * LISTS
    return {
        "jobs_per_s": round(jobs / took),
        "producer_us_per_job": round((there.producer_cpu_s() - cpu) / jobs * 1e6, 1),
    }


async def singles(there: Served) -> dict[str, Any]:
    """One job a request, a hundred requests a second, evenly."""
    body = orjson.dumps({"endpoint": "embed", "text": PROMPT[:1_000]})
    took: list[float] = []

    async def one(session: aiohttp.ClientSession) -> None:
        began = time.perf_counter()
        async with session.post("/v1/jobs", data=body) as reply:
            assert reply.status == 202, await reply.text()
            await reply.read()
        took.append((time.perf_counter() - began) * 1_000)

    async with there.session() as session, asyncio.TaskGroup() as tasks:
        began = time.monotonic()
        for number in range(SINGLES_PER_S * SINGLES_S):
            await asyncio.sleep(max(0.0, began + number / SINGLES_PER_S - time.monotonic()))
            tasks.create_task(one(session))
    cuts = statistics.quantiles(took, n=100)
    return {"p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2)}


async def polls(there: Served) -> dict[str, Any]:
    """5,000 requests wait for 5,000 jobs, which end at the same moment: their user has had as many
    calls as it may, and they have one deadline."""
    before_mb = there.producer_rss_mb()
    ends = datetime.now(UTC) + timedelta(seconds=25)
    job = {
        "endpoint": "classify",
        "text": "x",
        "examples": [{"text": f"{n}", "label": f"{n % 2}"} for n in range(4)],
    }
    late = {**job, "deadline": ends.isoformat()}
    peak_mb = before_mb
    async with there.session(POLLS + 10) as session:
        cap = orjson.dumps({"limits": {"classify": "1/1d"}})
        async with session.put("/v1/limits/per-user", data=cap) as reply:
            assert reply.status == 200, await reply.text()
        await _submit(session, job)
        ids: list[str] = []
        for _ in range(0, POLLS, LIST):
            ids += [one["id"] for one in (await _submit(session, [late] * LIST))["data"]]
        states: list[str] = []

        async def poll(id: str) -> None:
            async with session.get(f"/v1/jobs/{id}?wait=60") as reply:
                states.append((await reply.json())["state"])

        tasks = [asyncio.create_task(poll(id)) for id in ids]
        waiting = asyncio.gather(*tasks)
        while not waiting.done():
            peak_mb = max(peak_mb, there.producer_rss_mb())
            await asyncio.wait([waiting], timeout=0.2)
        await waiting
    late_s = (datetime.now(UTC) - ends).total_seconds()
    return {
        "answered": sum(state == "expired" for state in states),
        "rss_before_mb": round(before_mb),
        "rss_peak_mb": round(peak_mb),
        "all_answered_after_s": round(late_s, 1),
    }


async def slow(there: Served) -> dict[str, Any]:
    """1,000 connections that never finish a request, and a good client beside them."""
    host, port = there.url.removeprefix("http://").split(":")
    alone = await _good_client(there)
    cut: list[float] = []

    async def hang() -> None:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        await writer.drain()
        with_end = await reader.read()
        cut.append(time.monotonic() - began)
        assert not with_end or with_end.startswith(b"HTTP/1.1 4"), with_end[:80]
        writer.close()

    hanging = [asyncio.create_task(hang()) for _ in range(SLOW)]
    await asyncio.sleep(1)
    beside = await _good_client(there)
    await asyncio.gather(*hanging)
    return {
        "cut": len(cut),
        "last_cut_s": round(max(cut), 1),
        "p99_ms_alone": round(alone, 2),
        "p99_ms_beside": round(beside, 2),
    }


async def _good_client(there: Served) -> float:
    took = []
    async with there.session() as session:
        for _ in range(500):
            began = time.perf_counter()
            async with session.get("/v1/jobs?limit=1") as reply:
                assert reply.status == 200
                await reply.read()
            took.append((time.perf_counter() - began) * 1_000)
    return statistics.quantiles(took, n=100)[98]


ROWS: dict[str, Callable[[Served], Awaitable[dict[str, Any]]]] = {
    "first": first,
    "singles": singles,
    "lists": lists,
    "polls": polls,
    "slow": slow,
}


async def _submit(session: aiohttp.ClientSession, body: Any) -> Any:
    async with session.post("/v1/jobs", data=orjson.dumps(body)) as reply:
        assert reply.status == 202, await reply.text()
        return await reply.json()


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def measure(names: list[str]) -> None:
    async with served() as there:
        for name in names:
            print(f"{name} …", file=sys.stderr, flush=True)
            print(json.dumps({"row": name, **await ROWS[name](there)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--only", action="append", choices=list(ROWS), help="repeatable")
    asked = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard > 0 else soft, hard))
    asyncio.run(measure(asked.only or list(ROWS)))


if __name__ == "__main__":
    main()

"""One account's night, by one client after the other, each at a simulator of its own.

10,000 prompts under a limit of 500 calls in 6 s; meanwhile somebody chats each second, a stranger
takes a fifth of the account for two windows, and at two thirds the busiest process of the client is
killed and started again. What came of it is read in the simulator's journal.

    python -m bench.night.night                                 all: about ten minutes
    python -m bench.night.night --prompts 2000 --only millpond  a quick look
    python -m bench.night.draw                                  what came, as docs/night.svg
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession
from bench.night.clients import KEY, AtWork, at_work
from bench.night.field import CLIENTS, SCALE, SEED, Night
from bench.night.series import STRANGER, read_calls, what_came
from bench.peers.run import simulator

OUT = Path(__file__).with_name("night.json")

FIRST_CALL_S = 60
AGAIN_S = 0.2
#: So many answers in such a time, and a client is busy.
BUSY_ANSWERS, BUSY_S = 4, 0.1
#: The journal's last rows are of calls that end by themselves.
LAST_CALLS_S = 2


def main() -> None:
    asked = options()
    night = Night(prompts=asked.prompts)
    told: dict[str, Any] = {"night": {**asdict(night), "scale": SCALE}, "clients": {}}
    for name in asked.only or CLIENTS:
        load = round(os.getloadavg()[0], 2)
        with tempfile.TemporaryDirectory(prefix="millpond-night-") as folder:
            came = asyncio.run(spend(Path(folder), name, night))
        told["clients"][name] = {"title": CLIENTS[name].title, **came, "load_before": load}
        asked.out.write_text(json.dumps(told, separators=(",", ":")) + "\n")
        figures = {key: value for key, value in came.items() if key != "curves"}
        print(f"{name}: {json.dumps(figures)}", file=sys.stderr, flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=Night().prompts)
    parser.add_argument("--only", action="append", choices=[*CLIENTS], help="repeatable")
    parser.add_argument("--out", type=Path, default=OUT, help="[default: night.json beside this]")
    return parser.parse_args()


async def spend(folder: Path, name: str, night: Night) -> dict[str, Any]:
    """The night of one client."""
    journal = folder / "journal.jsonl"
    async with simulator(folder, night.scenario, SEED) as base_url:
        async with at_work(folder, CLIENTS[name], night, base_url) as client:
            first_ms = await first_call_ms(journal)
            chatting = asyncio.create_task(client.chat(first_ms / 1_000))
            visiting = asyncio.create_task(stranger(base_url, night, first_ms / 1_000))
            killing = asyncio.create_task(kill(client, night, first_ms / 1_000, journal))
            finished = await in_time(client, first_ms / 1_000 + night.longest_s)
            await asyncio.sleep(LAST_CALLS_S)
            for task in (chatting, visiting, killing):
                task.cancel()
            ended = await asyncio.gather(chatting, visiting, killing, return_exceptions=True)
        came = what_came(read_calls(journal), night, first_ms, client.is_chat)
    for fault in ended:
        if isinstance(fault, Exception):
            raise fault
    return {
        "finished": finished,
        "promised_s": client.promised_s,
        "killed_s": None if killing.cancelled() else killing.result(),
        **asdict(came),
    }


async def first_call_ms(journal: Path) -> float:
    """When the client's first call arrived, once it has ended."""
    async with asyncio.timeout(FIRST_CALL_S):
        while not (rows := read_calls(journal)):  # noqa: ASYNC110 (another process writes it)
            await asyncio.sleep(0.02)
    return min(float(row["at_ms"]) for row in rows)


async def in_time(client: AtWork, until_s: float) -> bool:
    try:
        async with asyncio.timeout(until_s - time.time()):
            await client.wait()
    except TimeoutError:
        return False
    return True


async def kill(client: AtWork, night: Night, first_s: float, journal: Path) -> float:
    """kill -9 of the process that does most, as soon as there are calls; when it was."""
    await asyncio.sleep(first_s + night.kill_s - time.time())
    await busy(journal)
    before = {pid: worked_ns(pid) for pid in client.workers()}
    await asyncio.sleep(BUSY_S)
    os.kill(max(before, key=lambda pid: worked_ns(pid) - before[pid]), signal.SIGKILL)
    return round(time.time() - first_s, 2)


def worked_ns(pid: int) -> int:
    """How long a process has been on a core."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


async def busy(journal: Path) -> None:
    """Until its answers come one after the other: then others are under way."""
    with journal.open("rb") as rows:
        rows.seek(0, os.SEEK_END)
        while sum(map(is_answer, rows.readlines())) < BUSY_ANSWERS:  # noqa: ASYNC110
            await asyncio.sleep(BUSY_S)


def is_answer(line: bytes) -> bool:
    return b'"status":200' in line and STRANGER.encode() not in line


async def stranger(base_url: str, night: Night, first_s: float) -> None:
    """Somebody with the same key, who comes evenly and insists on each call while here."""
    begin_s, end_s = night.stranger_s
    calls = int(night.amount * night.strangers_share * night.strangers_windows)
    head = {"Authorization": f"Bearer {KEY}", "X-Millpond-Attempt": STRANGER}

    async with ClientSession(headers=head) as session:

        async def insist(number: int, at_s: float) -> None:
            await asyncio.sleep(at_s - time.time())
            asked = {"prompt": f"a stranger's question {number}", "max_tokens": 20}
            while time.time() < first_s + end_s:
                with suppress(ClientError):
                    async with session.post(f"{base_url}/v1/generate", json=asked) as reply:
                        await reply.read()
                        if reply.status == 200:
                            return
                await asyncio.sleep(AGAIN_S)

        async with asyncio.TaskGroup() as tasks:
            for number in range(calls):
                at_s = first_s + begin_s + (end_s - begin_s) * number / calls
                tasks.create_task(insist(number, at_s))


if __name__ == "__main__":
    main()

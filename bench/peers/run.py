"""Other people's limiters and millpond, beside each other, against one simulator.

For each run a simulator and a Valkey are started, and the processes of one peer's program answer
a list of prompts together. What is printed are the simulator's own books: refusals, the share of
the window in use (sustained), the time until the last call was admitted (drain) and how many
calls were never answered (lost).

    python -m bench.peers.run                             all there is, at both scales
    python -m bench.peers.run --scaled --seeds 1 --table  a quick look
    python -m bench.peers.run --only limits --scenario calm
    python -m bench.peers.run --rows FILE --table         a table of rows printed before
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.peers import rows as rows_
from bench.peers.environments import python_of
from bench.peers.field import MILLPOND, PEERS, SCENARIOS, Peer, Scenario
from bench.peers.rows import Row
from redis.asyncio import Redis

from millpond.embedded import processes
from millpond.embedded.server import EmbeddedServer

COMMAND = [sys.executable, "-m", "millpond"]
PROGRAMS = Path(__file__).parent / "programs"
WORDS = ["river", "wheel", "stone", "gate", "water", "mill", "flour", "grain", "bread", "spring"]

START_S = 180
GRACE_S = 10


class Failed(Exception):
    """A program of the bench ended as it should not; the message is what it said last."""


def main() -> None:
    asked = options()
    plan = [] if asked.rows else planned(asked)
    rows = rows_.read(asked.rows) if asked.rows else asyncio.run(measure_all(plan, asked.at_once))
    if asked.table:
        print(rows_.table(rows), flush=True)
    if len(rows) < len(plan):
        raise SystemExit(f"{len(plan) - len(rows)} of {len(plan)} runs failed")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--only", action="append", choices=[MILLPOND, *PEERS], help="repeatable")
    parser.add_argument("--scenario", action="append", choices=[*SCENARIOS], help="repeatable")
    parser.add_argument("--scaled", action="store_true", help="not the real scale")
    parser.add_argument(
        "--seeds",
        type=int,
        default=os.environ.get("SEEDS") or None,
        help="runs of each, with the seeds 1, 2, ... (also SEEDS) [default: the scenario's]",
    )
    parser.add_argument("--at-once", type=int, default=1, help="runs side by side [default: 1]")
    parser.add_argument("--table", action="store_true", help="a Markdown table at the end")
    parser.add_argument("--rows", type=Path, help="measure nothing, read rows printed before")
    return parser.parse_args()


def planned(asked: argparse.Namespace) -> list[tuple[str, str, int]]:
    """Peer, scenario and seed of each run that makes sense."""
    return [
        (peer, name, seed)
        for name in asked.scenario or SCENARIOS
        for peer in asked.only or [MILLPOND, *PEERS]
        for seed in range(1, (asked.seeds or SCENARIOS[name].seeds) + 1)
        if not (asked.scaled and SCENARIOS[name].real)
        if SCENARIOS[name].real or peer == MILLPOND or not PEERS[peer].minutes_only
    ]


async def measure_all(plan: Sequence[tuple[str, str, int]], at_once: int) -> list[Row]:
    for requirements in {PEERS[peer].requirements for peer, _, _ in plan if peer != MILLPOND}:
        python_of(requirements)
    places = asyncio.Semaphore(at_once)

    async def one(number: int, peer: str, name: str, seed: int) -> Row | None:
        async with places:
            which = f"{number}/{len(plan)} {name} {peer} seed {seed}"
            print(which, file=sys.stderr, flush=True)
            try:
                row = await measure(peer, name, seed)
            except (Failed, TimeoutError) as fault:
                print(f"{which} failed: {fault or 'it did not start'}", file=sys.stderr, flush=True)
                return None
        print(json.dumps(asdict(row)), flush=True)
        return row

    async with asyncio.TaskGroup() as tasks:
        started = [
            tasks.create_task(one(number, *what)) for number, what in enumerate(plan, start=1)
        ]
    return [row for task in started if (row := task.result())]


async def measure(peer: str, name: str, seed: int) -> Row:
    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as place:
        folder = Path(place)
        async with simulator(folder, scenario, seed) as base_url:
            if peer == MILLPOND:
                finished = await ourselves(folder, scenario, base_url)
            else:
                finished = await others(folder, PEERS[peer], scenario, base_url)
        report = await said(folder / "journal.jsonl", scenario.calls)
        lost = scenario.calls - rows_.answered(folder / "journal.jsonl")
    return Row(
        peer=peer,
        scenario=name,
        seed=seed,
        finished=finished,
        refused=sum(report["refused"].values()),
        lost=lost,
        sustained=report["sustained"],
        sustained_ideal=report["sustained_ideal"],
        drain=report["drain"],
        drain_ideal=report["drain_ideal"],
    )


@asynccontextmanager
async def simulator(folder: Path, scenario: Scenario, seed: int) -> AsyncIterator[str]:
    """A provider of its own for one run; gives its address."""
    ready = folder / "ready"
    process = await launch(
        folder / "simulator.log",
        [
            *(*COMMAND, "simulator", "--port", "0", "--ready-file", str(ready)),
            *("--journal", str(folder / "journal.jsonl"), "--limits", scenario.limits),
            *("--quota", "none", "--seed", str(seed), *scenario.weather.split()),
        ],
    )
    try:
        async with asyncio.timeout(START_S):
            while not ready.exists():  # noqa: ASYNC110 (it is another process that makes it)
                await asyncio.sleep(0.02)
        yield ready.read_text().strip()
    finally:
        await processes.stop(process, grace_s=GRACE_S)


async def others(folder: Path, peer: Peer, scenario: Scenario, base_url: str) -> bool:
    """Whether the peer's processes came to an end in time, with the prompts in a list of Valkey."""
    server = EmbeddedServer(folder / "valkey")
    await server.start()
    try:
        given = {
            "redis_url": server.url,
            "base_url": base_url,
            "amount": scenario.amount,
            "window_s": scenario.window_s,
            "how": peer.how,
        }
        command = [
            *(str(python_of(peer.requirements)), str(PROGRAMS / f"{peer.program}.py")),
            json.dumps(given),
        ]
        async with Redis.from_url(server.url) as redis:
            await redis.rpush("todo", *prompts(scenario))
            return await together(folder, [command] * peer.processes, redis, scenario.longest_s)
    finally:
        await server.stop()


async def together(
    folder: Path, commands: Sequence[list[str]], redis: Redis, longest_s: float
) -> bool:
    """Let all begin when the last is ready, and wait for them; False if the time was up."""
    log = folder / "peer.log"
    working = [await launch(log, command) for command in commands]
    try:
        async with asyncio.timeout(START_S):
            while int(await redis.get("ready") or 0) < len(commands):
                check([process.returncode for process in working], log)
                await asyncio.sleep(0.02)
        await redis.set("go", 1)
        try:
            async with asyncio.timeout(longest_s):
                ends = await asyncio.gather(*(process.wait() for process in working))
        except TimeoutError:
            return False
    finally:
        for process in working:
            await processes.stop(process, grace_s=GRACE_S)
    check(ends, log)
    return True


async def ourselves(folder: Path, scenario: Scenario, base_url: str) -> bool:
    """The same through `millpond run`, which brings its own server and workers."""
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts(scenario)))
    log = folder / "millpond.log"
    process = await launch(
        log,
        [
            *(*COMMAND, "run", str(file), "--base-url", base_url, "--limits", scenario.limits),
            *("--quota", "none", "--workers", "4", "--data-dir", str(folder / "data")),
            *("--out", str(folder / "out.jsonl"), "--errors", str(folder / "errors.jsonl")),
            "--quiet",
        ],
    )
    try:
        async with asyncio.timeout(scenario.longest_s):
            ended = await process.wait()
    except TimeoutError:
        return False
    finally:
        await processes.stop(process, grace_s=GRACE_S)
    check([ended], log)
    return True


async def said(journal: Path, total: int) -> dict[str, Any]:
    """The simulator's report about the run."""
    command = [*COMMAND, "simulator", "report", str(journal), "--total", str(total), "--json"]
    process = await processes.start(command, output=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    if process.returncode:
        raise Failed(told.decode())
    report: dict[str, Any] = json.loads(told)
    return report


async def launch(log: Path, command: Sequence[str]) -> asyncio.subprocess.Process:
    with log.open("ab") as output:
        return await processes.start(command, output=output)


def check(codes: Sequence[int | None], log: Path) -> None:
    """Processes may run or have ended well, nothing else."""
    if any(codes):
        raise Failed(f"exit codes {codes}\n{log.read_text(errors='replace')[-4_000:]}")


def prompts(scenario: Scenario) -> list[str]:
    chance = random.Random(1)
    return [
        f"{number}: {' '.join(chance.choices(WORDS, k=chance.randint(5, 40)))}"
        for number in range(scenario.calls)
    ]


if __name__ == "__main__":
    main()

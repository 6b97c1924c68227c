"""Calls of one worker: how many a second, and the CPU of its process for each."""

import asyncio
import re
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.admission.figures import Figures, rounded
from bench.admission.house import server
from bench.workers import accepting, others, ourselves
from bench.workers.field import BARE, OURS, RELEASED, Row
from bench.workers.programs.given import Given
from bench.workers.stub import Heard
from bench.workers.stubbed import Failed, Stub, check, launch, stub

from millpond.embedded import processes
from millpond.embedded.server import EmbeddedServer

_STOP_S = 10
_COMPLAINT = re.compile(r"Traceback|Failed|Too many")
#: So long after the last answer everything has been told.
_AFTER_S = 1.0


async def measured(folder: Path, row: Row, who: str, seed: int) -> Figures:
    async with stub(
        folder, calls=row.calls, delay_ms=row.delay_ms, sigma=row.sigma, seed=seed
    ) as provider:
        if who in OURS:
            return await _ourselves(folder, row, provider, released=who == RELEASED)
        return await _other(folder, row, who, provider)


async def _ourselves(folder: Path, row: Row, provider: Stub, *, released: bool) -> Figures:
    names = ("worker",) if released else ("scheduler", "worker")
    async with server(folder) as (store, url):
        await accepting.open_flow(store)
        await accepting.accept(store, row.calls)
        if released:
            await ourselves.release_all(store, row.calls)
        server_pid = await ourselves.server_pid(store)
        async with ourselves.started(
            folder, url, provider.base_url, slots=row.at_once, names=names
        ) as children:
            pids = {name: child.pid for name, child in children.items()}
            watching = {**pids, "server": server_pid}
            figures = await _heard(row, provider, watching, list(children.values()))
        answered = await ourselves.answered(store)
    if answered != row.calls:
        raise Failed(f"{answered} of {row.calls} jobs were answered")
    return figures


async def _other(folder: Path, row: Row, who: str, provider: Stub) -> Figures:
    queue = EmbeddedServer(folder / "server")
    await queue.start()
    try:
        given = Given(queue.url, provider.base_url, row.calls, row.at_once)
        if who != BARE:
            await others.enqueue(folder, who, given)
        assert queue.process is not None
        log = folder / "work.log"
        worker = await launch(log, others.command(who, "work", given))
        try:
            pids = {"worker": worker.pid, "server": queue.process.pid}
            figures = await _heard(row, provider, pids, [worker])
        finally:
            check([worker], log)
            await processes.stop(worker, grace_s=_STOP_S)
    finally:
        await queue.stop()
    _check_said(log, row.calls // 100)
    return figures


def _check_said(log: Path, most: int) -> None:
    """A program that fails all the time, and tries again, must not pass for a slow one."""
    said = log.read_text(errors="replace")
    complaints = [found.start() for found in _COMPLAINT.finditer(said)]
    if len(complaints) > most:
        raise Failed(f"{len(complaints)} complaints: {said[complaints[-1] :][-2_000:]}")


async def _heard(
    row: Row, provider: Stub, pids: Mapping[str, int], children: Sequence[Process]
) -> Figures:
    """Wait for the last call; a child that ends before it ends the run."""
    provider.watch(pids)
    hearing = asyncio.create_task(provider.heard())
    ending = [asyncio.create_task(child.wait()) for child in children]
    try:
        await asyncio.wait([hearing, *ending], return_when=asyncio.FIRST_COMPLETED)
        if not hearing.done():
            raise Failed(f"a process ended: {[child.returncode for child in children]}")
        heard = hearing.result()
        calls = len(await provider.arrivals_ns())
        await asyncio.sleep(_AFTER_S)
    finally:
        for task in (hearing, *ending):
            task.cancel()
    return {**_figures(row, heard), "twice": calls - row.calls}


def _figures(row: Row, heard: Heard) -> Figures:
    """Calls that were on their way when the last one came are not counted: they had not ended."""
    calls_s = heard.answered / heard.seconds
    each_us = {name: used / heard.answered * 1e6 for name, used in heard.cpu_s.items()}
    return {
        "calls_s": rounded(calls_s),
        "cpu_us": rounded(each_us["worker"]),
        "server_us": rounded(each_us["server"]),
        "scheduler_us": rounded(each_us.get("scheduler")),
        "share": rounded(calls_s * heard.kept_ms / 1_000 / row.at_once),
        "kept_ms": rounded(heard.kept_ms),
        "seconds": rounded(heard.seconds),
    }

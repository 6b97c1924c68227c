"""Commands around a deployment: its first key, whether a process of it is alive, and what must be
said after its books came back from a copy."""

import asyncio
import os
import re
import socket
import struct
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millpond.cli_asked import HERE, AsJson, DataDir, asked
from millpond.cli_do import do
from millpond.clock import monotonic_ms
from millpond.errors import Refused, StoreUnavailable, Unavailable
from millpond.settings import Settings

if TYPE_CHECKING:
    from millpond.operate.commands import Asked
    from millpond.store.store import Store
    from millpond.store.view import LaneView

app = typer.Typer()

#: Who has not been answered for so long does not live. A scheduler asks ten times a second.
SILENT_MOST_S = 5
#: Longer windows than these would stand still for a day (docs/decisions/0012).
_WAIT_MOST_MS = 3_600_000
#: The provider may count a call a moment after the worker that sent it was stopped.
_LATE_MS = 2_000
_AGAIN_S = 1.0
_RESTORED = "restored from a copy, until the windows have passed: millpond restored"


@app.command("operator-key")
def operator_key(
    name: Annotated[str, typer.Option(help="Whose key it is, for the audit.")] = "operator",
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Make the first operator's key and print it, this once; there is no second first.

    Needs the server (MILLPOND_REDIS_URL) and the master key, so whoever can run it holds all keys
    of the deployment anyway.
    """
    raise typer.Exit(do(lambda it: _operator_key(asked(it, data_dir, as_json), name)))


@app.command()
def alive(
    pid: Annotated[int, typer.Option(min=1, help="Which process; 1 in a container.")] = 1,
) -> None:
    """Exit 0 if a scheduler, worker or producer has been answered by the server in the last 5 s.

    The server at MILLPOND_REDIS_URL is asked what it last heard over that very process's
    connections (Linux, TCP), so one that hangs is found although others are at work.
    """
    raise typer.Exit(do(lambda settings: _alive(settings, pid)))


@app.command()
def restored(data_dir: DataDir = HERE, as_json: AsJson = False) -> None:
    """Say that the server's data is from a copy: lanes wait until the provider has forgotten.

    Run it once the server is up on the copy and before anything else is started. Each lane is
    paused at once, and goes on when its longest window of up to an hour has passed; what ends this
    command early leaves them paused, and it can be run again.
    """
    raise typer.Exit(do(lambda it: _restored(asked(it, data_dir, as_json))))


# ------------------------------------------------------------ the first key


async def _operator_key(it: "Asked", name: str) -> int:
    from millpond.operate.changes import operator
    from millpond.operate.reach import reach
    from millpond.store.api_keys import ApiKeys
    from millpond.store.sealing import read_master_keys

    masters = read_master_keys(it.settings)
    async with reach(it.data_dir, it.settings) as store:
        key = await ApiKeys(store.gateway, masters).first_operator(name, by=operator())
    it.tell({"key": key.text, "id": key.id, "name": name}, iter([key.text]))
    return 0


# ------------------------------------------------------------ after a restore


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A lane that we have paused, and the moment by our own clock at which it goes on."""

    lane: str
    org: str
    until_ms: float


async def _restored(it: "Asked") -> int:
    from millpond.operate.reach import reach

    began_ms = monotonic_ms()
    async with reach(it.data_dir, it.settings) as store:
        await store.leave_all()  # workers of the copy's time are dead
        waiting = [one async for one in _paused(store, began_ms)]
        waiting.sort(key=lambda one: one.until_ms)
        last_s = max((one.until_ms - began_ms for one in waiting), default=0) / 1_000
        waits = f"{len(waiting)} lanes wait, the last for {last_s:.0f} s"
        told = {"paused": len(waiting), "wait_s": round(last_s)}
        it.tell(told, iter([f"{waits}; start the other processes now"]))
        sys.stdout.flush()
        for one in waiting:
            await asyncio.sleep(max(0.0, one.until_ms - monotonic_ms()) / 1_000)
            await _set_paused(store, one.org, one.lane, "")
    it.tell({"resumed": len(waiting)}, iter([f"{len(waiting)} lanes go on"]))
    return 0


async def _paused(store: "Store", began_ms: float) -> AsyncIterator[_Waiting]:
    """Every lane, paused; but for those that wait for a person's word as it is."""
    from millpond.operate.changes import PAUSED
    from millpond.operate.reach import lanes_of

    for lane in await lanes_of(store):
        view = (await store.explain(lane=lane.id)).lane
        if view.paused in (None, PAUSED + _RESTORED):
            await _set_paused(store, lane.org, lane.id, PAUSED + _RESTORED)
            yield _Waiting(lane.id, lane.org, began_ms + _wait_ms(view))


def _wait_ms(view: "LaneView") -> int:
    windows = [one.window_ms for one in view.windows]
    return max((one for one in windows if one <= _WAIT_MOST_MS), default=0) + _LATE_MS


async def _set_paused(store: "Store", org: str, lane: str, paused: str) -> None:
    """However long the server is away: whoever stops before the end leaves lanes paused."""
    from millpond.operate.changes import operator
    from millpond.store.store import Changes

    while True:
        try:
            await store.change(org, Changes(lane=lane, paused=paused), by=operator())
            return
        except Unavailable:
            await asyncio.sleep(_AGAIN_S)


# ------------------------------------------------------------ alive


async def _alive(settings: Settings, pid: int) -> int:
    from redis.exceptions import RedisError

    from millpond.store.gateway import connect

    if settings.redis_url is None:
        raise Refused("alive needs MILLPOND_REDIS_URL")
    ours = _addresses(pid)
    async with connect(settings.redis_url) as redis:
        try:
            clients = await redis.client_list()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the server does not answer: {error}") from None
    idle = [int(one["idle"]) for one in clients if one["addr"] in ours and one["cmd"] == "evalsha"]
    if idle and min(idle) <= SILENT_MOST_S:
        return 0
    said = f"last {min(idle)} s ago" if idle else "never"
    typer.echo(f"millpond: process {pid} has asked the server {said}", err=True)
    return 1


def _addresses(pid: int) -> set[str]:
    """The near ends of a process's TCP connections, as a server that hears it writes them."""
    place = Path(f"/proc/{pid}")
    try:
        links = [os.readlink(one) for one in (place / "fd").iterdir()]
        rows = [
            line.split()
            for table in ("tcp", "tcp6")
            for line in (place / "net" / table).read_text().splitlines()[1:]
        ]
    except OSError as error:
        raise Refused(f"process {pid} cannot be looked at: {error.strerror}") from None
    sockets = {found[1] for link in links if (found := re.match(r"socket:\[(\d+)\]$", link))}
    return {_address(row[1]) for row in rows if row[9] in sockets}


def _address(written: str) -> str:
    """From `0100007F:1F90`, in words of the machine, to `127.0.0.1:8080`."""
    host, port = written.split(":")
    words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    if len(words) == 1 or raw.startswith(b"\0" * 10 + b"\xff\xff"):
        return f"{socket.inet_ntop(socket.AF_INET, raw[-4:])}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, raw)}]:{int(port, 16)}"

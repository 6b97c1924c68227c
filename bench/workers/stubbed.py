"""The provider's process, from outside: `stub.py` is the inside."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.workers.stub import Asked, Heard

from millpond.embedded import processes

_START_S = 30
_STOP_S = 5
_LINE_MOST = 8 * 1024 * 1024


class Failed(Exception):
    """A program of the bench ended as it should not; the message is what it said last."""


@dataclass
class Stub:
    """One provider for one run."""

    base_url: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def watch(self, pids: Mapping[str, int]) -> None:
        """Must be said before the first call comes."""
        self._say(pids)

    async def heard(self) -> Heard:
        """What came between the first call and the last, once that has come."""
        return Heard(**await self._hear())

    async def arrivals_ns(self) -> list[int]:
        """When each call came, on the machine's monotonic clock; once all have been answered."""
        self._say({})
        told: list[int] = (await self._hear())["arrivals_ns"]
        return told

    def _say(self, what: object) -> None:
        self.writer.write(json.dumps(what).encode() + b"\n")

    async def _hear(self) -> dict[str, Any]:
        line = await self.reader.readline()
        if not line:
            raise Failed("the provider has gone")
        told: dict[str, Any] = json.loads(line)
        return told


@asynccontextmanager
async def stub(
    folder: Path, *, calls: int, delay_ms: float, sigma: float, seed: int
) -> AsyncIterator[Stub]:
    control = folder / "control"
    asked = Asked(str(control), calls, delay_ms, sigma, seed)
    command = [sys.executable, "-m", "bench.workers.stub", json.dumps(asdict(asked))]
    process = await launch(folder / "stub.log", command)
    try:
        async with asyncio.timeout(_START_S):
            while not control.exists():
                check([process], folder / "stub.log")
                await asyncio.sleep(0.02)
        reader, writer = await asyncio.open_unix_connection(control, limit=_LINE_MOST)
        port = json.loads(await reader.readline())["port"]
        yield Stub(f"http://127.0.0.1:{port}", reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    finally:
        await processes.stop(process, grace_s=_STOP_S)


async def launch(log: Path, command: list[str]) -> asyncio.subprocess.Process:
    with log.open("ab") as output:
        return await processes.start(command, output=output)


def check(children: list[asyncio.subprocess.Process], log: Path) -> None:
    """Children may run or have ended well, nothing else."""
    codes = [child.returncode for child in children]
    if any(codes):
        raise Failed(f"exit codes {codes}\n{log.read_text(errors='replace')[-4_000:]}")

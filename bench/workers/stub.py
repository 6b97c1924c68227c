"""A provider that costs next to nothing: it keeps each call for a while and answers the same.

It counts, and notes when a call's first byte came. Told over a Unix socket which processes to
watch, it reads their CPU clocks at the first call and at the last, and says what came between.

    python -m bench.workers.stub '{"control": PATH, "calls": N, "delay_ms": 50, ...}'
"""

import asyncio
import json
import math
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from typing import cast

import uvloop

_BODY = b'{"id":"g","generations":[{"id":"a","text":"To the mill, and on to the sea."}]}'
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Asked:
    """So many calls are measured; each takes `delay_ms`, times a lognormal of `sigma`."""

    control: str
    calls: int
    delay_ms: float
    sigma: float
    seed: int

    def delays_s(self) -> Iterator[float]:
        if not self.sigma:
            return repeat(self.delay_ms / 1_000)
        chance = random.Random(self.seed)
        drawn = [chance.lognormvariate(math.log(self.delay_ms), self.sigma) for _ in range(4_096)]
        return iter(drawn[number % len(drawn)] / 1_000 for number in range(10**9))


@dataclass
class Heard:
    """From the first call's arrival to the last one's: calls that were answered, how long they
    were kept on average, and the CPU (s) that the watched processes used."""

    seconds: float
    answered: int
    kept_ms: float
    cpu_s: dict[str, float]


@dataclass
class Provider:
    asked: Asked
    watched: dict[str, int] = field(default_factory=dict)
    arrivals_ns: list[int] = field(default_factory=list)
    answered: int = 0
    kept_ns: int = 0

    def __post_init__(self) -> None:
        self.delays_s = self.asked.delays_s()
        self.last: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
        self._cpu_s: dict[str, float] = {}

    def arrived(self, connection: "Connection", at_ns: int) -> None:
        self.arrivals_ns.append(at_ns)
        count = len(self.arrivals_ns)
        if count == 1:
            self._cpu_s = self._read_clocks()
        if count == self.asked.calls:
            self.last.set_result(self._heard())
        loop = asyncio.get_running_loop()
        loop.call_later(next(self.delays_s), connection.answer, at_ns)

    def _heard(self) -> Heard:
        used = {name: at - self._cpu_s[name] for name, at in self._read_clocks().items()}
        return Heard(
            seconds=(self.arrivals_ns[-1] - self.arrivals_ns[0]) / 1e9,
            answered=self.answered,
            kept_ms=self.kept_ns / max(1, self.answered) / 1e6,
            cpu_s=used,
        )

    def _read_clocks(self) -> dict[str, float]:
        return {name: cpu_s(pid) for name, pid in self.watched.items()}


def cpu_s(pid: int) -> float:
    """What all threads of a process have used; Linux has a clock for each process."""
    return time.clock_gettime(~pid << 3 | 2)


class Connection(asyncio.Protocol):
    """Keep-alive; one request after another."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._held = b""
        self._first_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        if not self._held:
            self._first_ns = time.monotonic_ns()
        self._held += data
        end = self._held.find(_HEAD_END)
        if end < 0:
            return
        length = _LENGTH.search(self._held, 0, end)
        whole = end + len(_HEAD_END) + (int(length[1]) if length else 0)
        if len(self._held) >= whole:
            self._held = self._held[whole:]
            self._provider.arrived(self, self._first_ns)

    def answer(self, since_ns: int) -> None:
        self._transport.write(_REPLY)
        self._provider.answered += 1
        self._provider.kept_ns += time.monotonic_ns() - since_ns


async def main(asked: Asked) -> None:
    provider = Provider(asked)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(provider), "127.0.0.1", 0, backlog=4_096)
    port = server.sockets[0].getsockname()[1]
    told = asyncio.Event()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A line asks, a line answers: whom to watch, what came of it, and, when all has been
        answered, each arrival."""

        def say(what: object) -> None:
            writer.write(json.dumps(what).encode() + b"\n")

        say({"port": port})
        provider.watched = json.loads(await reader.readline())
        say(asdict(await provider.last))
        await reader.readline()
        while provider.answered < len(provider.arrivals_ns):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        say({"arrivals_ns": provider.arrivals_ns})
        writer.close()
        told.set()

    making = Path(asked.control + ".new")
    async with await asyncio.start_unix_server(control, making):
        making.rename(asked.control)
        await told.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Asked(**json.loads(sys.argv[1]))))

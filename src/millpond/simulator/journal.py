"""The journal: a line of JSON for each start and for each call that has ended.

    {"limits": {"generate": ["60/60s"]}, "quota": 20000, "seed": 1}
    {"received_ms": ..., "at_ms": ..., ..., "answered": true}

A line is handed to the operating system in one write as the call ends, so a killed simulator
loses no ended call and leaves at most one torn line, which the next start cuts off.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from millpond.simulator.limits import Limits, Units
from millpond.simulator.values import BadValue


@dataclass(slots=True)
class Call:
    """One call, filled in as it goes on; times are unix milliseconds.

    `at_ms` is the arrival where limits are counted (none: refused at the door for its key),
    `headers_ms` the moment the reply went out, `status` that of the reply, if one was sent.
    """

    received_ms: float
    org: str | None
    endpoint: str
    attempt: str | None
    body_sha256: str
    at_ms: float | None = None
    headers_ms: float | None = None
    status: int | None = None
    refused_by: str | None = None
    characters: int = 0
    tokens: int = 0
    inputs: int = 0
    answered: bool = False

    @property
    def admitted(self) -> bool:
        return self.refused_by is None and self.at_ms is not None and self.status != 401

    @property
    def units(self) -> Units:
        """What it has been charged with."""
        return Units(inputs=self.inputs, characters=self.characters, tokens=self.tokens)


@dataclass(frozen=True, slots=True)
class Start:
    """What the provider was told at a start; `limits` as they were written."""

    limits: dict[str, list[str]]
    quota: int | None
    seed: int


@dataclass(slots=True)
class History:
    """What a journal holds; `length` is where its last whole line ends."""

    starts: list[Start] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    length: int = 0


def read(path: Path) -> History:
    """All whole lines; a torn last one is left out."""
    text = path.read_bytes()
    history = History(length=text.rfind(b"\n") + 1)
    for number, line in enumerate(text[: history.length].splitlines(), start=1):
        try:
            row = orjson.loads(line)
            if "limits" in row:
                history.starts.append(Start(**row))
            else:
                history.calls.append(Call(**row))
        except (TypeError, ValueError) as fault:
            raise BadValue(f"line {number} of {path} is not a journal's: {fault}") from None
    return history


class Journal:
    """Where rows are written; without a descriptor they are dropped."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def write(self, row: Call | Start) -> None:
        if self._descriptor is not None:
            os.write(self._descriptor, orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


@contextmanager
def opened(path: Path | None) -> Iterator[tuple[Journal, History]]:
    """The journal to go on with, and what was in it; a torn last line is cut off."""
    if path is None:
        yield Journal(None), History()
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        history = read(path)
        os.ftruncate(descriptor, history.length)
        yield Journal(descriptor), history
    finally:
        os.close(descriptor)


def start(limits: Limits, quota: int | None, seed: int) -> Start:
    written = {endpoint: [limit.written for limit in its] for endpoint, its in limits.items()}
    return Start(written, quota, seed)

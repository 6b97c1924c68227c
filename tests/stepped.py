"""A server whose wall clock can be stepped while real processes use it (Linux, with a C compiler).

Only the server sees another time: `clockshim.c` is preloaded into it, and nothing else.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millpond.embedded.server import EmbeddedServer

SOURCE = Path(__file__).with_name("clockshim.c")
_COMPILE_S = 60


def why_not() -> str | None:
    """What it takes and is not here. Where everything must be tested, trying shows it."""
    if sys.platform != "linux":
        return "stepping a server's clock is done with LD_PRELOAD, on Linux"
    if shutil.which("cc") is None and not os.environ.get("CI"):
        return "stepping a server's clock takes a C compiler: cc"
    return None


class SteppedServer:
    """An embedded server under a clock of its own."""

    def __init__(self, url: str, offset: Path) -> None:
        self.url = url
        self._file = offset
        self.offset_ms = 0

    def step(self, ms: int) -> None:
        """Its clock is that much further from now on; less than nothing is back."""
        self.offset_ms += ms
        _write(self._file, self.offset_ms)


@contextmanager
def stepped_server(folder: Path) -> Iterator[SteppedServer]:
    """A server on a folder for as long as the block lasts; its clock is right at first."""
    folder.mkdir(parents=True, exist_ok=True)
    library, offset = folder / "clockshim.so", folder / "offset"
    _compile(library)
    _write(offset, 0)
    server = EmbeddedServer(folder / "server")
    with asyncio.Runner() as runner:
        with _environment(LD_PRELOAD=str(library), CLOCKSHIM=str(offset)):
            runner.run(server.start())
        try:
            yield SteppedServer(server.url, offset)
        finally:
            runner.run(server.stop())


def _compile(library: Path) -> None:
    command = ["cc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, timeout=_COMPILE_S)


def _write(file: Path, offset_ms: int) -> None:
    """In place, since the server has the file mapped; see clockshim.c."""
    with file.open("r+b" if file.exists() else "w+b", buffering=0) as opened:
        opened.write(f"{offset_ms:12d}".encode() * 2)


@contextmanager
def _environment(**more: str) -> Iterator[None]:
    """What is started in the block inherits more than we have."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

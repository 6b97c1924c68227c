"""Which call a worker is at work on at this moment, told to whoever outlives it.

Most of the time a worker waits for replies. Between those waits it writes a request or reads a
reply, and if it dies there, or does not come out of it, that call is to blame and no other. So it
says so beforehand, in a page of memory that a file keeps when the process is gone.
"""

import mmap
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

from millpond.clock import monotonic_ms

#: How a worker ends whose memory was used up by one call.
OUT_OF_MEMORY = 70
#: Since when (monotonic ms, 0: it is at work on none), and the call's id.
_PAGE = struct.Struct("=Q32s")


class AtWork:
    """The worker's side. Without a file it tells nobody."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._page: mmap.mmap | None = None

    def begin(self) -> None:
        """The worker is up. By that the file is there, until `end`."""
        if self._path is not None:
            with self._path.open("wb+") as file:
                file.truncate(mmap.PAGESIZE)
                self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def end(self) -> None:
        """It ends well, so nobody need ask what it was at work on."""
        if self._path is not None and self._page is not None:
            self._page = None
            forget(self._path)

    def on(self, call: str) -> Self:
        """What is done inside `with` is done for this call. It must not wait in there."""
        if self._page is not None:
            _PAGE.pack_into(self._page, 0, int(monotonic_ms()) or 1, call.encode())
        return self

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._page is None:
            return
        if kind is MemoryError:
            # Without memory a process is good for nothing; that this call is why stays written.
            os._exit(OUT_OF_MEMORY)
        self._page[: _PAGE.size] = bytes(_PAGE.size)


class Watch:
    """The side of whoever started the worker and outlives it."""

    def __init__(self, path: Path, *, lease_ms: int) -> None:
        self._path = path
        # Before its lease is over: what it holds must not be taken back with nobody to blame.
        self._stuck_ms = lease_ms / 2

    def up(self) -> bool:
        """It has begun its work. So it had when it died, if asked before who is blamed."""
        return self._path.exists()

    def stuck(self) -> bool:
        """It does not come out of what it does for one call."""
        seen = seen_at_work(self._path)
        return seen is not None and seen[1] > self._stuck_ms

    def blamed(self) -> str:
        """It has died: the call that it was at work on, or ''. Asked once: then it is forgotten."""
        seen = seen_at_work(self._path)
        forget(self._path)
        return seen[0] if seen else ""


def seen_at_work(path: Path) -> tuple[str, int] | None:
    """The call that the worker with this file is at work on, or was when it died, and for how many
    ms now; None: none."""
    try:
        with path.open("rb") as file:
            since_ms, call = _PAGE.unpack(file.read(_PAGE.size))
    except (OSError, struct.error):
        return None
    if since_ms == 0:
        return None
    return call.rstrip(b"\0").decode(), int(monotonic_ms()) - since_ms


def forget(path: Path) -> None:
    """The worker is gone and what it was at work on is known: none of that is the next one's."""
    path.unlink(missing_ok=True)

"""Child processes that do not outlive us."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Runs in the child before it becomes the program: if we are killed, so is it (Linux).

    The signal follows the thread that started the child, so children are started from the main
    thread only.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def open_log(path: Path) -> IO[bytes]:
    """A file to write on, which its owner alone can read, also if it was there before."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with suppress(OSError):  # somebody else's, who lets us write
        os.fchmod(number, 0o600)
    return os.fdopen(number, "ab")


async def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | int | None = None,
    umask: int = -1,
) -> asyncio.subprocess.Process:
    """Start a child that dies with us, in a process group of its own. `umask`: -1, as ours.

    Its own group keeps a Ctrl-C at the terminal from reaching it: we tell it ourselves to stop.
    """
    return await asyncio.create_subprocess_exec(
        *command,
        env=dict(os.environ if env is None else env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        process_group=0,
        umask=umask,
        preexec_fn=_die_with_parent,
    )


async def stop(process: asyncio.subprocess.Process, *, grace_s: float) -> None:
    """Ask a child to end, and make it end when the grace is over."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(grace_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()

"""Running a command: what is raised on purpose becomes a message and an exit code."""

import asyncio
import os
import select
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from millpond.errors import MillpondError, NoServer, Refused
from millpond.settings import Settings, read_settings

Result = TypeVar("Result")

#: As a shell tells of a program that SIGPIPE ended: 128 + 13.
UNREAD = 141


class Whole(TyperGroup):
    """All commands, and what holds for each."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as bad:
            bad.message = bad.message.removeprefix("Value error, ")  # Typer's own, of a choice
            raise
        except BrokenPipeError:
            if nobody_reads():
                end_unread()
            raise


def do(
    work: Callable[[Settings], Awaitable[Result]], *, fast: bool = False, ephemeral: bool = False
) -> Result:
    """Run the program's loop; what is raised on purpose becomes a message and an exit code."""
    from millpond import logs

    try:
        settings = read_settings()
        if ephemeral:
            settings = settings.model_copy(update={"ephemeral": True})
        logs.configure(settings.log_level)
        with asyncio.Runner(loop_factory=_fast_loop() if fast else None) as runner:
            return runner.run(_awaited(work(settings)))
    except NoServer as error:
        _end(error, 69)
    except Refused as error:
        _end(error, 1 if error.code == "folder_in_use" else 2)
    except (MillpondError, OSError) as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            end_unread()
        _end(error, 1)


def nobody_reads() -> bool:
    """Whether what this program prints goes to a pipe that somebody has closed, as head does."""
    look = select.poll()
    for stream in (sys.stdout, sys.stderr):
        try:
            look.register(stream.fileno(), 0)
        except (OSError, ValueError):  # it is no file, or closed
            continue
    return any(event & select.POLLERR for _, event in look.poll(0))


def end_unread() -> NoReturn:
    """End as a program does whose output nobody reads any more: without a word."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())  # what is still to be written goes there
    sys.exit(UNREAD)


async def _awaited(work: Awaitable[Result]) -> Result:
    return await work


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed. (It cannot start children the way `run` must.)"""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _end(error: Exception, code: int) -> NoReturn:
    typer.echo(f"millpond: {error}", err=True)
    sys.exit(code)

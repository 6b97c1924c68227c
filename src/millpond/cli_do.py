"""Running a command: what is raised on purpose becomes a message and an exit code."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import typer

from millpond.errors import MillpondError, NoServer, Refused
from millpond.settings import Settings, read_settings

Result = TypeVar("Result")


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
        _end(error, 1)


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

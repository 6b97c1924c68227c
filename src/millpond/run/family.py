"""How a run's own programs are started: the command line, the environment, the log."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from millpond import failpoints
from millpond.embedded import processes

#: So many deaths, with not one call settled in between, and the run gives up.
DEATHS_MOST = 10


def program(*arguments: str) -> list[str]:
    """The command line of one of our own programs."""
    return [sys.executable, "-m", "millpond", *arguments]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment for a child, with these settings and none of ours."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in failpoints.VARIABLES or not name.upper().startswith("MILLPOND_")
    }
    return {**inherited, **settings}


async def start_logged(
    command: list[str], log_path: Path, settings: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Start one of our own programs. What it writes, and the log, nobody else can read."""
    with processes.open_log(log_path) as output:
        return await processes.start(command, env=environment(settings), output=output, umask=0o077)

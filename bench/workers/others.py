"""The peers' programs, each in the environment that its requirements make."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from bench.peers import environments
from bench.workers.field import COMPETITORS, OURS
from bench.workers.programs.given import Given
from bench.workers.stubbed import check, launch

from millpond.embedded import processes

HERE = Path(__file__).parent
environments.REQUIREMENTS = HERE / "requirements"

_STOP_S = 10


def make_environments(who: Sequence[str]) -> None:
    for name in who:
        if name not in OURS:
            environments.python_of(COMPETITORS[name].requirements)


def command(who: str, role: Literal["enqueue", "work"], given: Given) -> list[str]:
    competitor = COMPETITORS[who]
    python = environments.python_of(competitor.requirements)
    program = HERE / "programs" / f"{competitor.program}.py"
    return [str(python), str(program), role, json.dumps(asdict(given))]


async def enqueue(folder: Path, who: str, given: Given) -> dict[str, Any]:
    """The jobs are put in line by a process; what it says of that, if it does."""
    if who in OURS:
        told = json.dumps({"redis_url": given.redis_url, "jobs": given.jobs})
        asked = [sys.executable, "-m", "bench.workers.accepting", told]
    else:
        asked = command(who, "enqueue", given)
    log = folder / "enqueue.log"
    process = await launch(log, asked)
    try:
        await process.wait()
    finally:
        await processes.stop(process, grace_s=_STOP_S)
    check([process], log)
    said = [line for line in log.read_text().splitlines() if line.startswith("{")]
    return json.loads(said[-1]) if said else {}

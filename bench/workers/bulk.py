"""Many jobs are put in line by one process: how many a second."""

from pathlib import Path

from bench.admission.figures import Figures, rounded
from bench.workers import others
from bench.workers.field import Row
from bench.workers.programs.given import Given
from bench.workers.stub import cpu_s

from millpond.embedded.server import EmbeddedServer


async def measured(folder: Path, row: Row, who: str) -> Figures:
    """The program itself says how long it took, its start not included."""
    queue = EmbeddedServer(folder / "server")
    await queue.start()
    try:
        assert queue.process is not None
        began_s = cpu_s(queue.process.pid)
        told = await others.enqueue(folder, who, Given(queue.url, "", row.calls, row.at_once))
        server_s = cpu_s(queue.process.pid) - began_s
    finally:
        await queue.stop()
    return {
        "jobs_s": rounded(row.calls / told["seconds"]),
        "client_us": rounded(told["cpu_s"] / row.calls * 1e6),
        "server_us": rounded(server_s / row.calls * 1e6),
    }

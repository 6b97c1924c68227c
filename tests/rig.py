"""What the tests of whole runs share: the program as its users meet it, in real processes.

A test has a folder, a simulator that is a process of its own, and `millpond run` in the folder.
Nothing in here waits without an end, and nothing that is started outlives its block.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from millpond.embedded.server import find_server

DEADLINE_S = 60

Rows = list[dict[str, Any]]

SUMMARY_KEYS = [
    *("lines", "succeeded", "failed", "waiting", "waiting_reason", "calls", "refusals"),
    *("used_characters", "estimated_characters", "reserved_characters", "seconds"),
    "resume_command",
]

#: How the children of a run are known by their command lines.
ROLES = {
    "": "",
    "worker": "millpond worker",
    "scheduler": "millpond scheduler",
    "server": "-server ",
    "simulator": "millpond simulator",
}


def wait_until(true: Callable[[], object], *, what: str = "it", every_s: float = 0.01) -> None:
    """Look until something is true; a test that waits in vain fails and says for what."""
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, f"{what} did not happen in {DEADLINE_S} s"
        time.sleep(every_s)


def read_rows(path: Path) -> Rows:
    """The rows of a file, all whole; none if there is no file yet."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts(path: Path, count: int) -> Path:
    """A file of so many prompts, no two the same."""
    return write_rows(path, [{"prompt": f"What is {n} and {n}?"} for n in range(count)])


class Simulator:
    """The project's own provider, as a process with a journal."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.journal = folder / "journal.jsonl"
        ready = folder / "ready"
        files = ("--ready-file", str(ready), "--journal", str(self.journal))
        with (folder / "simulator.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "millpond", "simulator", "--port", "0", *files, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(
            lambda: ready.exists() or self._process.poll() is not None, what="the simulator's start"
        )
        self.url = ready.read_text()
        self.port = int(self.url.rpartition(":")[2])

    def calls(self, org: str = "demo") -> Rows:
        """The calls of an org that have ended, in that order."""
        return [row for row in read_rows(self.journal) if row.get("org") == org]

    def report(self, *options: str) -> dict[str, Any]:
        """What `millpond simulator report` makes of the journal."""
        command = [sys.executable, "-m", "millpond", "simulator", "report", str(self.journal)]
        told = subprocess.run([*command, "--json", *options], capture_output=True, check=True)
        report: dict[str, Any] = json.loads(told.stdout)
        return report

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """It takes calls, and answers none as long as the block lasts."""
        with stopped(self._process.pid):
            yield

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def simulator(folder: Path, *options: str) -> Iterator[Simulator]:
    """A simulator for as long as the block lasts."""
    one = Simulator(folder, *options)
    try:
        yield one
    finally:
        one.end()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing as long as the block lasts, and knows nothing of it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def server(*options: str) -> Iterator[str]:
    """The address of a server of one's own, with options that ours would not have."""
    with tempfile.TemporaryDirectory(prefix="millpond-test-") as folder:
        socket = f"{folder}/s"
        places = ("--port", "0", "--unixsocket", socket, "--dir", folder)
        with Path(folder, "server.log").open("wb") as log:
            process = subprocess.Popen([find_server(), *places, *options], stdout=log, stderr=log)
        try:
            with Redis.from_url(f"unix://{socket}") as redis:
                wait_until(lambda: _answers(redis), what="the server's start")
            yield f"unix://{socket}"
        finally:
            process.kill()
            process.wait()


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


@dataclass(frozen=True)
class Ended:
    """How a command ended. Data is on stdout, everything for people on stderr."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The last line of stdout."""
        told: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return told


class Command:
    """`millpond ARGUMENTS` in a folder, running."""

    def __init__(
        self,
        folder: Path,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        first: str = "",
        stdin: bytes | None = None,
    ) -> None:
        """`first` is code that runs in the process before the program, to take things from it;
        `stdin` what it finds there, through a pipe."""
        program = f"{first}\nfrom millpond.cli import main\nmain()"
        self._err = folder / "stderr.log"
        self._out = folder / "stdout.log"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *(("-c", program) if first else ("-m", "millpond")),
                    *map(str, arguments),
                ],
                cwd=folder,
                env={**_environment(), **(env or {})},
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        if self.process.stdin is not None and stdin is not None:
            self.process.stdin.write(stdin)
            self.process.stdin.close()

    def err(self) -> str:
        """What it has told people so far."""
        return self._err.read_text()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait(self, seconds: float = DEADLINE_S) -> Ended:
        self.process.wait(seconds)
        return Ended(self.process.returncode, self._out.read_text(), self.err())

    def children(self, role: str = "") -> list[int]:
        """Its child processes, or those among them of a role."""
        return [
            pid
            for pid, parent, line in processes()
            if parent == self.process.pid and ROLES[role] in line
        ]

    def end(self) -> None:
        """Kill it if it is still there; its children die with it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextmanager
def running(
    folder: Path,
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    first: str = "",
    stdin: bytes | None = None,
) -> Iterator[Command]:
    """A command that is running; it is ended with the block if it has not ended before."""
    command = Command(folder, *arguments, env=env, first=first, stdin=stdin)
    try:
        yield command
    finally:
        command.end()


def run(
    folder: Path,
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    first: str = "",
    stdin: bytes | None = None,
) -> Ended:
    """A command from its start to its end."""
    with running(folder, *arguments, env=env, first=first, stdin=stdin) as command:
        return command.wait()


def _environment() -> dict[str, str]:
    """This process's, without settings and keys of the person who runs the tests."""
    keys = ("CO_API_KEY", "OPENAI_API_KEY")
    return {k: v for k, v in os.environ.items() if k[:9] != "MILLPOND_" and k not in keys}


def processes() -> Iterator[tuple[int, int, str]]:
    """All living processes: pid, parent, command line in words. (A zombie is dead.)"""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                words = (
                    (entry / "cmdline")
                    .read_bytes()
                    .replace(b"\0", b" ")
                    .decode(errors="replace")
                    .strip()
                )
            except OSError:
                continue
            if state != "Z":
                yield int(entry.name), int(parent), words


def connections(pid: int, port: int) -> int:
    """How many connections a process has to a port on this machine."""
    inodes = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(descriptor))
            except OSError:
                continue
    except OSError:
        return 0
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(
        row[3] == "01"
        and int(row[2].partition(":")[2], 16) == port
        and f"socket:[{row[9]}]" in inodes
        for row in rows
    )

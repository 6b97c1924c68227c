"""The data folder: what a run leaves on disk so that it can go on.

.millpond/
    lock  id
    server/                 the embedded server's append-only file and log
    simulator-….jsonl       our own simulator's journal, which is its memory
    inputs/                 unpacked copies of packed or piped input
    runs/RUN/
        run.json            what the run is, and its end
        answers.jsonl  errors.jsonl  ledger.jsonl
"""

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from millpond.domain.job import Endpoint
from millpond.domain.limit import Limit, parse_limits
from millpond.embedded.server import FOLDER as SERVER_FOLDER
from millpond.errors import Refused


class FolderInUse(Refused):
    """Another run works in the data folder."""

    code = "folder_in_use"


class UnusableFolder(Refused):
    """The data folder cannot be made or written."""

    code = "unusable_folder"


_IN_USE = (
    "another run is at work in {path}; wait for it, or give this one a folder of its own with "
    "--data-dir. (Runs with one key then need one server, so that they share its limits: set "
    "MILLPOND_REDIS_URL for both)"
)


@contextmanager
def for_us_alone() -> Iterator[None]:
    """Nobody else can read what is made in the block, by us or by the programs we start."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


class DataFolder:
    """A data folder that is ours while the block lasts. One that is new is closed to others.

    `in_use`: what is said if it is somebody else's.
    """

    def __init__(self, path: Path, *, in_use: str = _IN_USE) -> None:
        self.path = path
        self._in_use = in_use
        self._lock: BufferedRandom | None = None
        self.id = ""

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a+b")
        except OSError as error:
            raise UnusableFolder(
                f"the data folder {self.path} cannot be used: {error.strerror}; "
                "name another one with --data-dir"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise FolderInUse(self._in_use.format(path=self.path)) from None
        self._lock = lock
        self.id = self._read_id()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            self._lock.close()

    def _read_id(self) -> str:
        path = self.path / "id"
        if not path.exists():
            write_whole(path, secrets.token_hex(8).encode())
        return path.read_text().strip()

    def close_to_others(self) -> None:
        """Also if it was there before, and whatever an earlier version left in it."""
        try:
            self.path.chmod(0o700)
            for path in self.path.iterdir():
                if path.is_file() and not path.is_symlink():
                    path.chmod(0o600)
        except OSError as error:
            raise UnusableFolder(
                f"the data folder {self.path} must belong to you alone: {error.strerror}; "
                "name another one with --data-dir"
            ) from None

    @property
    def server(self) -> Path:
        return self.path / SERVER_FOLDER

    @property
    def log(self) -> Path:
        """What the processes of a run warn of."""
        return self.path / "log.jsonl"

    def simulator(self, account: str) -> Path:
        return self.path / f"simulator-{account}.jsonl"

    def at_work(self, place: int) -> Path:
        """Where a worker says which call it is at work on."""
        return self.path / f"at-work-{place}"

    def unpacked(self, sha256: str) -> Path:
        """Where the content of a packed or piped input is kept."""
        (self.path / "inputs").mkdir(exist_ok=True)
        return self.path / "inputs" / sha256

    def keep_told_limits(self, account: str, endpoint: Endpoint, told: str) -> None:
        """Remember what the provider said of an endpoint's limits."""
        path = _limits_file(self.path, account)
        known = orjson.loads(path.read_bytes()) if path.exists() else {}
        write_whole(path, orjson.dumps({**known, endpoint.value: told}))

    def run(self, run_id: str) -> Path:
        path = self.path / "runs" / run_id
        path.mkdir(parents=True, exist_ok=True)
        return path


def told_limits(folder: Path, account: str, endpoint: Endpoint) -> tuple[Limit, ...] | None:
    """What the provider said earlier of an endpoint's limits, if it did."""
    path = _limits_file(folder, account)
    told = orjson.loads(path.read_bytes()) if path.exists() else {}
    return parse_limits(f"{endpoint}={told[endpoint]}")[endpoint] if endpoint in told else None


def _limits_file(folder: Path, account: str) -> Path:
    return folder / f"limits-{account}.json"


class KeyInUse:
    """Whether another run on this machine uses the same account, as far as can be known here.

    Without a server in common each keeps books of its own, so together they may be over.
    """

    def __init__(self, account: str) -> None:
        path = Path(tempfile.gettempdir()) / f"millpond-{os.getuid()}-{account}.lock"
        self._file: BufferedRandom | None = None
        self.elsewhere = False
        with suppress(OSError):  # somebody else's file: then we cannot know
            self._file = os.fdopen(
                os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b"
            )
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.elsewhere = True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run that has finished ended: its exit code, and its summary as it was told."""

    exit_code: int
    summary: dict[str, Any]


def read_end(run: Path) -> Ended | None:
    """The end of a run, or None if it has not come to one."""
    path = run / "run.json"
    if not path.exists():
        return None
    told = orjson.loads(path.read_bytes())
    return Ended(told["exit_code"], told["summary"])


def write_end(run: Path, end: Ended) -> None:
    told = {"exit_code": end.exit_code, "summary": end.summary}
    write_whole(run / "run.json", orjson.dumps(told))


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file so that after a crash it is there whole, or as it was before."""
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)

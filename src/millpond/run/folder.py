"""The data folder: what a run leaves on disk so that it can go on.

.millpond/
    lock  id
    server/                 the embedded server's append-only file and log
    simulator-….jsonl       our own simulator's journal, which is its memory
    runs/RUN/
        run.json            what the run is, and its end
        answers.jsonl  errors.jsonl  ledger.jsonl
"""

import fcntl
import os
import secrets
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from millpond.errors import Refused


class FolderInUse(Refused):
    """Another run works in the data folder."""

    code = "folder_in_use"


class UnusableFolder(Refused):
    """The data folder cannot be made or written."""

    code = "unusable_folder"


class DataFolder:
    """A data folder that is ours while the block lasts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BufferedRandom | None = None
        self.id = ""

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
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
            raise FolderInUse(
                f"another run is at work in {self.path}; wait for it, or give this one a folder "
                "of its own with --data-dir"
            ) from None
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

    @property
    def server(self) -> Path:
        return self.path / "server"

    @property
    def log(self) -> Path:
        """What the processes of a run warn of."""
        return self.path / "log.jsonl"

    def simulator(self, account: str) -> Path:
        return self.path / f"simulator-{account}.jsonl"

    def run(self, run_id: str) -> Path:
        path = self.path / "runs" / run_id
        path.mkdir(parents=True, exist_ok=True)
        return path


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

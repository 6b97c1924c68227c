"""Files of rows that only grow, and survive being cut off anywhere.

The file in the data folder is the truth and is on disk before the server forgets a row. The file
that the user named is a copy: it must be a beginning of the truth, and is completed from it.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from millpond.errors import Refused
from millpond.failpoints import reached
from millpond.producer.table import lines_of, whole_length

_BLOCK = 1024 * 1024
_LINE = re.compile(rb'\{"line":(\d+)')


class ForeignFile(Refused):
    """A file that the run should write holds something that is not of this run."""

    code = "foreign_file"


class UnusableFile(Refused):
    """A file that the run should write cannot be written."""

    code = "unusable_file"


class RowFile:
    """A file of rows in the data folder, and perhaps a copy of it elsewhere."""

    def __init__(self, own: Path, copy: Path | None = None) -> None:
        self._own_path = own
        self._copy_path = copy
        self.rows = 0
        self._unsafe: list[bytes] = []
        self._own = self._open_own()
        self._copy = None if copy is None else self._open_copy(copy)

    def append(self, rows: Sequence[bytes]) -> None:
        """Add rows; they are safe when `sync` has returned."""
        for row in rows:
            self._own.write(row + b"\n")
        self._unsafe.extend(rows)
        self.rows += len(rows)

    def sync(self) -> None:
        """Everything that was appended is on disk, and can be read in the copy.

        In that order: a copy that were ahead when the machine stops would be foreign afterwards.
        """
        self._own.flush()
        os.fsync(self._own.fileno())
        reached("rows.synced")
        if self._copy is not None:
            self._copy.writelines(row + b"\n" for row in self._unsafe)
            self._copy.flush()
            reached("rows.copied")
        self._unsafe.clear()

    def close(self) -> None:
        self._own.close()
        if self._copy is not None:
            self._copy.close()

    def _cut_torn_end(self, file: BinaryIO) -> None:
        _cut_torn_row(file)

    def _count(self, file: BinaryIO) -> int:
        file.seek(0)
        return sum(block.count(b"\n") for block in _blocks(file))

    def lines(self) -> Iterator[int]:
        """The input lines of all rows. A row begins with its line."""
        with self._own_path.open("rb") as file:
            for row in file:
                found = _LINE.match(row)
                if found:
                    yield int(found[1])

    def _open_own(self) -> BinaryIO:
        file = self._own_path.open("a+b")
        self._cut_torn_end(file)
        self.rows = self._count(file)
        file.seek(0, os.SEEK_END)
        return file

    def _open_copy(self, path: Path) -> BinaryIO:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b")
        except OSError as error:
            raise UnusableFile(f"{path} cannot be written: {error.strerror}") from None
        with self._own_path.open("rb") as own:
            file.seek(0)
            if not _begins_with(own, file):
                file.close()
                raise ForeignFile(
                    f"{path} holds something else than this run's rows; it is left as it is. "
                    "Move it away, or name another file"
                )
            file.seek(0, os.SEEK_END)
            own.seek(file.tell())
            shutil.copyfileobj(own, file, _BLOCK)
        file.flush()
        return file


class TableFile(RowFile):
    """The same as a table: its rows are of CSV, and its first line names the columns."""

    def __init__(self, own: Path, copy: Path, head: bytes) -> None:
        if not own.exists() or own.stat().st_size == 0:
            own.write_bytes(head)
        super().__init__(own, copy)

    def lines(self) -> Iterator[int]:
        yield from lines_of(self._own_path)

    def _cut_torn_end(self, file: BinaryIO) -> None:
        file.truncate(whole_length(self._own_path))

    def _count(self, file: BinaryIO) -> int:
        return sum(1 for _ in lines_of(self._own_path))


def check_writable(path: Path) -> None:
    """Raise UnusableFile if a file cannot be written there; one that is there stays as it is."""
    try:
        path.open("ab").close()
    except OSError as error:
        raise UnusableFile(f"{path} cannot be written: {error.strerror}") from None


def write_lines(path: Path, rows: Iterable[bytes]) -> None:
    """Write a file anew, whole."""
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.writelines(row + b"\n" for row in rows)
    draft.replace(path)


def _cut_torn_row(file: BinaryIO) -> None:
    """Cut what follows the last line end: a row that was cut off while it was written."""
    end = file.seek(0, os.SEEK_END)
    at = end
    while at > 0:
        start = max(0, at - _BLOCK)
        file.seek(start)
        found = file.read(at - start).rfind(b"\n")
        if found >= 0:
            at = start + found + 1
            break
        at = start
    if at < end:
        file.truncate(at)


def _begins_with(whole: BinaryIO, part: BinaryIO) -> bool:
    return all(whole.read(len(block)) == block for block in _blocks(part))


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block

"""Where in the file each record is: its first line and its bytes.

    file ── readline, in chunks ──▶ one line (jsonl, text)               ──▶ Span
                                    lines up to the closed quote (csv)

Counting and reading both go through `spans`, so they cannot disagree about what a record is. No
more than MAX_RECORD_BYTES and a chunk are in memory, whatever the file holds: of a longer record
only the beginning is kept and the rest is read past, up to where the record really ends. For a CSV
file with a quote left open that is the end of the file, as CSV has it; to guess an earlier end
would be to send prompts that nobody wrote.
"""

import re
import stat
from collections.abc import Iterator
from enum import Enum, auto
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from millpond.producer.bad_input import BadInput

MAX_RECORD_BYTES = 4 * 1024 * 1024

#: What is kept of a longer one: enough for EXCERPT_CHARACTERS of any alphabet.
HEAD_BYTES = 4_000

_CHUNK_BYTES = 64 * 1024
_BOM = b"\xef\xbb\xbf"
_QUOTE = b'"'

_CELL = rb'(?:"[^"]*(?:""[^"]*)*"[\r\n]*|[^",]*)'

#: A CSV record that is plainly one line. Most are, and this is several times faster than to follow
#: the quotes of each. What may come next is always told by one character, so it is never slow.
_ONE_LINE = re.compile(_CELL + rb"(?:," + _CELL + rb")*\Z")


class Span(NamedTuple):
    line: int
    """The physical line where it starts, from 1."""

    offset: int
    length: int
    """Bytes without the line ending."""

    body: bytes
    """All of it, or the first HEAD_BYTES if it is too long."""

    @property
    def too_long(self) -> bool:
        return self.length > MAX_RECORD_BYTES


def spans(file: BufferedReader, *, quoted: bool) -> Iterator[Span]:
    """Every record from the start of the file; with `quoted`, a CSV file's header too."""
    yield from _spans_on(file, 1, _pass_bom(file), quoted=quoted)


def span_from(file: BufferedReader, line: int, offset: int, *, quoted: bool) -> Span | None:
    """One record by where it begins; None if the file no longer reaches that far."""
    file.seek(offset)
    return next(_spans_on(file, line, offset, quoted=quoted), None)


def span_at(file: BufferedReader, line: int, offset: int, length: int) -> Span | None:
    """One record by its position; None if the file no longer reaches that far."""
    file.seek(offset)
    body = file.read(_held_bytes(length))
    return Span(line, offset, length, body) if len(body) == _held_bytes(length) else None


def open_input(path: Path) -> BufferedReader:
    """The file for reading, or BadInput that says why it cannot be read."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise BadInput(f"{path} is a directory, not a file")
        if not stat.S_ISREG(mode):
            raise BadInput(
                f"{path} is no regular file, and the input is read more than once: "
                "save it to a file first"
            )
        return path.open("rb")
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error


def _spans_on(file: BufferedReader, line: int, offset: int, *, quoted: bool) -> Iterator[Span]:
    while chunk := file.readline(_CHUNK_BYTES):
        if chunk.endswith(b"\n") and (not quoted or _QUOTE not in chunk or _ONE_LINE.match(chunk)):
            body, size, lines, ending = chunk, len(chunk), 1, 2 if chunk[-2:] == b"\r\n" else 1
        else:
            body, size, lines, ending = _gather(file, chunk, quoted=quoted)
        length = size - ending
        yield Span(line, offset, length, body[: _held_bytes(length)])
        line += lines
        offset += size


def _held_bytes(length: int) -> int:
    return length if length <= MAX_RECORD_BYTES else HEAD_BYTES


def _pass_bom(file: BufferedReader) -> int:
    if file.peek(len(_BOM))[: len(_BOM)] != _BOM:
        return 0
    return len(file.read(len(_BOM)))


def _gather(file: BufferedReader, chunk: bytes, *, quoted: bool) -> tuple[bytes, int, int, int]:
    """The record that begins with `chunk`: its first bytes, size, lines, size of its ending."""
    body, size, lines, tail, place = bytearray(), 0, 0, b"", _Place.START
    while chunk:
        size += len(chunk)
        tail = (tail + chunk[-2:])[-2:]
        if len(body) <= MAX_RECORD_BYTES:
            body += chunk
        if quoted:
            place = _follow(chunk, place)
        if chunk.endswith(b"\n"):
            lines += 1
            if place is not _Place.QUOTED:
                break
        chunk = file.readline(_CHUNK_BYTES)
    ending = 2 if tail == b"\r\n" else 1 if tail.endswith(b"\n") else 0
    return bytes(body), size, lines, ending


class _Place(Enum):
    """Where in a CSV record we are."""

    START = auto()  # of a cell
    PLAIN = auto()  # in a cell without quotes, or behind the quotes of one
    QUOTED = auto()  # in a cell's quotes: a line ending is an ordinary character
    QUOTE_SEEN = auto()  # the quote may end the cell or be the first of two


def _follow(chunk: bytes, place: _Place) -> _Place:
    at = 0
    while at < len(chunk):
        if place is _Place.START:
            opens = chunk.startswith(_QUOTE, at)
            at += opens
            place = _Place.QUOTED if opens else _Place.PLAIN
        elif place is _Place.PLAIN:
            at = chunk.find(b",", at) + 1
            if not at:
                return place
            place = _Place.START
        elif place is _Place.QUOTED:
            at = chunk.find(_QUOTE, at) + 1
            if not at:
                return place
            place = _Place.QUOTE_SEEN
        else:
            doubled = chunk.startswith(_QUOTE, at)
            at += doubled
            place = _Place.QUOTED if doubled else _Place.PLAIN
    return place

"""Answers as CSV: a row for each, the input's columns first.

    line, the input's columns, status, what was answered, model, characters, attempts

A row begins with the line of its record, by which a row that was written is known again, and ends
with a line end outside quotes; quoted cells may hold more of them.

A cell that begins with =, +, - or @ is written as it is. Spreadsheets take it for a formula; to
change it would be to change what was asked and answered.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import orjson

from millpond.producer.bad_input import BadInput
from millpond.producer.spans import open_input

#: What an answer fills, by endpoint.
_ANSWERED: dict[str, tuple[str, ...]] = {
    "generate": ("text",),
    "embed": ("embedding",),
    "classify": ("label", "confidence"),
}
_CHUNK_BYTES = 64 * 1024
_TO_QUOTE = re.compile(r'[",\r\n]')


class Table:
    """`columns` are the input's. A name of ours that is among them gets `answer_` before it."""

    def __init__(self, columns: Sequence[str], *, endpoint: str) -> None:
        self._columns = tuple(columns)
        answered = _ANSWERED[endpoint]
        counted = ("input_characters", "output_characters")
        self._answer_columns = ("status", *answered, "model", *counted, "attempts")

    def head(self) -> bytes:
        ours = (self._free(name) for name in self._answer_columns)
        return _row((self._free("line"), *self._columns, *ours))

    def row(self, input: Mapping[str, Any], answer: Mapping[str, Any]) -> bytes:
        """One record: a row of the answers file with the input that it answers."""
        characters = answer.get("characters") or {}
        known = {
            **answer,
            "input_characters": characters.get("input"),
            "output_characters": characters.get("output"),
        }
        asked = (input.get(name) for name in self._columns)
        ours = (known.get(name) for name in self._answer_columns)
        return _row((answer["line"], *asked, *ours))

    def _free(self, name: str) -> str:
        while name in self._columns:
            name = f"answer_{name}"
        return name


def lines_of(path: Path) -> Iterator[int]:
    """The input's line of every row that is whole."""
    with open_input(path) as file:
        rows = _whole_rows(file)
        next(rows, None)
        for beginning, _ in rows:
            line = beginning.partition(b",")[0]
            if not line.isdigit():
                raise BadInput(f"{path} is no table of answers: a row begins with {line[:20]!r}")
            yield int(line)


def whole_length(path: Path) -> int:
    """The bytes of all rows that are whole. What follows was cut off while it was written."""
    with open_input(path) as file:
        end = 0
        for _, row_end in _whole_rows(file):
            end = row_end
    return end


def _whole_rows(file: BufferedReader) -> Iterator[tuple[bytes, int]]:
    """How each row begins and where it ends, header included.

    In what we write, quotes are around a cell or doubled: where their count is even, none is open.
    """
    beginning, end, quoted = b"", 0, False
    while chunk := file.readline(_CHUNK_BYTES):
        beginning = beginning or chunk
        end += len(chunk)
        quoted ^= chunk.count(b'"') % 2 == 1
        if not quoted and chunk.endswith(b"\n"):
            yield beginning, end
            beginning = b""


def _row(values: Iterable[Any]) -> bytes:
    return (",".join(_cell(value) for value in values) + "\n").encode()


def _cell(value: Any) -> str:
    match value:
        case None:
            text = ""
        case str():
            text = value
        case _:
            text = orjson.dumps(value).decode()
    return '"' + text.replace('"', '""') + '"' if _TO_QUOTE.search(text) else text

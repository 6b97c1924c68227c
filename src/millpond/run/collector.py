"""From the server onto the disk: answers, errors and the books of calls.

A row leaves the server only when it is on disk. Cut off in between, it is met again and known by
its line, so that each line is in exactly one of the two files, once.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from millpond.failpoints import reached
from millpond.producer.records import Invalid, Reader
from millpond.producer.table import Table
from millpond.run.feeder import Lines
from millpond.run.options import Options
from millpond.run.rows import RowFile, TableFile, UnusableFile, check_writable, write_lines
from millpond.store.store import Row

ANSWERS, ERRORS = "answers.jsonl", "errors.jsonl"


def answered_lines(folder: Path) -> Lines:
    """The lines that have their row on disk."""
    answered = Lines()
    for name in (ANSWERS, ERRORS):
        file = RowFile(folder / name)
        for line in file.lines():
            answered.add(line)
        file.close()
    return answered


class Collector:
    """Writes the files of one run."""

    def __init__(self, folder: Path, options: Options, reader: Reader) -> None:
        self._options = options
        self._reader = reader
        self._ledger_path = folder / "ledger.jsonl"
        as_table = options.out.suffix.lower() == ".csv"
        self._answers = RowFile(folder / ANSWERS, None if as_table else options.out)
        self._table = _Table(folder, options, reader) if as_table else None
        self._errors = RowFile(folder / ERRORS, options.errors)
        self._ledger = RowFile(self._ledger_path)
        if options.ledger is not None:
            check_writable(options.ledger)
        self.answered = answered_lines(folder)

    @property
    def succeeded(self) -> int:
        return self._answers.rows

    @property
    def failed(self) -> int:
        return self._errors.rows

    def take(self, rows: Sequence[Row]) -> list[str]:
        """Put rows of the server on disk; the ids of the jobs among them."""
        jobs = []
        calls: list[bytes] = []
        for row in rows:
            if "job" in row.fields:
                jobs.append(row.fields["job"])
                self._take_job(row.fields)
            else:
                calls.append(_ledger_row(row.fields))
        self._ledger.append(calls)
        reached("collector.rows.written")
        self._sync()
        return jobs

    def take_invalid(self, records: Sequence[Invalid]) -> None:
        """Put records that cannot run on disk."""
        for record in records:
            error = {
                "code": record.code,
                "message": record.message,
                "pointer": record.pointer,
                "provider_status": None,
            }
            self._write(
                self._errors,
                record.line,
                {
                    "custom_id": record.custom_id,
                    "endpoint": self._options.endpoint,
                    "status": "invalid",
                    "error": error,
                    "attempts": 0,
                    "input": record.input,
                },
            )
        self._sync()

    def close(self) -> None:
        """Everything is on disk; the ledger that was asked for is written."""
        self._sync()
        for file in (self._answers, self._errors, self._ledger):
            file.close()
        if self._table is not None:
            self._table.close()
        if self._options.ledger is not None:
            write_lines(self._options.ledger, _one_a_call(self._ledger_path))

    def _sync(self) -> None:
        if self._table is not None:
            self._table.sync()  # first: what is in the answers is in the table
        for file in (self._answers, self._errors, self._ledger):
            file.sync()

    def _take_job(self, fields: dict[str, str]) -> None:
        line = int(fields["job"].rpartition(".")[2])
        offset, length = map(int, fields["note"].split(","))
        record = self._reader.at(line, offset, length)
        body: dict[str, Any] = orjson.loads(fields["body"])
        row: dict[str, Any] = {
            "custom_id": record.custom_id,
            "endpoint": self._options.endpoint,
            "status": fields["state"],
        }
        attempts = int(fields["attempts"])
        if fields["state"] == "succeeded":
            simulated = body.pop("simulated", self._options.simulated)  # a service tells it
            row |= {**body, "attempts": attempts, "simulated": simulated}
            if self._table is not None:
                self._table.write(line, record.input, row)
            self._write(self._answers, line, row)
        else:
            row |= {**body, "attempts": attempts, "input": record.input}
            self._write(self._errors, line, row)

    def _write(self, file: RowFile, line: int, row: dict[str, Any]) -> None:
        if line not in self.answered:
            self.answered.add(line)
            file.append([orjson.dumps({"line": line, **row})])


class _Table:
    """Answers beside the columns of the input, as the user asked by naming a .csv file."""

    def __init__(self, folder: Path, options: Options, reader: Reader) -> None:
        columns = reader.columns()
        if columns is None:
            raise UnusableFile(
                f"{options.out}: only a CSV file becomes a CSV file; name a .jsonl file"
            )
        self._shape = Table(columns, endpoint=options.endpoint)
        self._file = TableFile(folder / "answers.csv", options.out, self._shape.head())
        self._written = Lines()
        for line in self._file.lines():
            self._written.add(line)
        self._complete(folder / ANSWERS, reader)

    def _complete(self, answers: Path, reader: Reader) -> None:
        """Rows that were answered when no table was asked for, in the order of the input."""
        places = _places(answers)
        with answers.open("rb") as file:
            for record in reader.read(lambda line: line in self._written or line not in places):
                file.seek(places[record.line])
                self.write(record.line, record.input, orjson.loads(file.readline()))

    def write(self, line: int, asked: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        if line not in self._written:
            self._written.add(line)
            told = self._shape.row(asked, {"line": line, **row})
            self._file.append([told.removesuffix(b"\n")])

    def sync(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()


def _places(answers: Path) -> dict[int, int]:
    """Where in the file each line's row begins."""
    places: dict[int, int] = {}
    at = 0
    with answers.open("rb") as file:
        for row in file:
            places[int(row[len(b'{"line":') : row.index(b",")])] = at
            at += len(row)
    return places


def _ledger_row(fields: dict[str, str]) -> bytes:
    return orjson.dumps(
        {
            "attempt": fields["call"],
            "lines": [int(job.rpartition(".")[2]) for job in fields["jobs"].split(",") if job],
            "outcome": fields["outcome"],
            "characters": int(fields["characters"]),
        }
    )


def _one_a_call(path: Path) -> Iterator[bytes]:
    """The ledger with one row a call: a late outcome stands in the place of the unknown one.

    Two passes, since a row may be met twice (after a crash) or corrected (by a late settle).
    """
    last: dict[str, int] = {}
    with path.open("rb") as file:
        for number, row in enumerate(file):
            last[orjson.loads(row)["attempt"]] = number
    with path.open("rb") as file:
        for number, row in enumerate(file):
            if last[orjson.loads(row)["attempt"]] == number:
                yield row.rstrip(b"\n")

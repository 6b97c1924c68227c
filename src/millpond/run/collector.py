"""From the server onto the disk: answers, errors and the books of calls.

A row leaves the server only when it is on disk. Cut off in between, it is met again and known by
its line, so that each line is in exactly one of the two files, once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from millpond.producer.records import Invalid, Reader
from millpond.run.feeder import Lines
from millpond.run.options import Options
from millpond.run.rows import RowFile, check_writable, write_lines
from millpond.store.store import Row


class Collector:
    """Writes the files of one run."""

    def __init__(self, folder: Path, options: Options, reader: Reader) -> None:
        self._options = options
        self._reader = reader
        self._ledger_path = folder / "ledger.jsonl"
        self._answers = RowFile(folder / "answers.jsonl", options.out)
        self._errors = RowFile(folder / "errors.jsonl", options.errors)
        self._ledger = RowFile(self._ledger_path)
        if options.ledger is not None:
            check_writable(options.ledger)
        self.answered = Lines()
        for file in (self._answers, self._errors):
            for line in file.lines():
                self.answered.add(line)

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
        if self._options.ledger is not None:
            write_lines(self._options.ledger, _one_a_call(self._ledger_path))

    def _sync(self) -> None:
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
            row |= {**body, "attempts": attempts, "simulated": self._options.simulated}
            self._write(self._answers, line, row)
        else:
            row |= {**body, "attempts": attempts, "input": record.input}
            self._write(self._errors, line, row)

    def _write(self, file: RowFile, line: int, row: dict[str, Any]) -> None:
        if line not in self.answered:
            self.answered.add(line)
            file.append([orjson.dumps({"line": line, **row})])


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

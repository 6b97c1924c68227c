"""The input of `millpond run FILE`: its records, one call each.

    file ─▶ spans ─▶ fields ─▶ Record    sent
                           └─▶ Invalid   told to the user under its line; the run goes on

A file that is of no use at all is BadInput, raised by `Reader.check` before anything is sent.
A record is found again by its line, offset and length: nothing else of it needs to be kept.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.producer import fields
from millpond.producer.bad_input import BadInput as BadInput  # others import it from here
from millpond.producer.fields import Flaw, Parsed
from millpond.producer.spans import Span, open_input, span_at, spans
from millpond.producer.template import Template, can_be_named

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: How many readable records `check` looks at before it says that a field is nowhere.
CHECKED_RECORDS = 100

_SURVEY_BUFFER_BYTES = 1024 * 1024


class Format(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Survey:
    sha256: str
    records: int
    """How many `Reader.read` yields, good and bad."""


@dataclass(frozen=True, slots=True)
class Record:
    line: int
    offset: int
    length: int
    input: Any
    prompt: str
    custom_id: str | None
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Invalid:
    line: int
    offset: int
    length: int
    input: Any
    """What could be read of the record, else the beginning of its text."""

    custom_id: str | None
    code: str
    message: str
    pointer: str | None


def never(line: int) -> bool:
    return False


def detect(path: Path, wish: str) -> Format:
    """What the file is: as wished, or for "auto" by its name, else by how it begins."""
    if wish != "auto":
        try:
            return Format(wish)
        except ValueError:
            raise BadInput(
                f"there is no input format {wish!r}: it is auto, jsonl, csv or text"
            ) from None
    named = _EXTENSIONS.get(path.suffix.lower())
    return named or _by_its_beginning(path)


def survey(path: Path, format: Format) -> Survey:
    """Count and hash the file in one pass, so that both are about the same bytes."""
    with open_input(path) as file:
        hashed = _Hashed(file)
        found = spans(io.BufferedReader(hashed, _SURVEY_BUFFER_BYTES), quoted=format is Format.CSV)
        count = sum(1 for _ in found)
    if format is Format.CSV:
        count = max(0, count - 1)
    return Survey(hashed.sha256.hexdigest(), count)


class Reader:
    def __init__(
        self, path: Path, format: Format, *, field: str, template: Template | None
    ) -> None:
        self._path = path
        self._csv = format is Format.CSV
        self._format = format
        self._field = field
        self._template = template
        self._columns: tuple[str, ...] | None = None

    def read(self, skip: Callable[[int], bool] = never) -> Iterator[Record | Invalid]:
        """Every record but the skipped ones, which are not even parsed."""
        for span in self._spans():
            if not skip(span.line):
                yield self._record(span)

    def at(self, line: int, offset: int, length: int) -> Record | Invalid:
        """What `read` yielded there, as long as the file is the same."""
        with open_input(self._path) as file:
            span = span_at(file, line, offset, length)
        if span is None:
            raise BadInput(f"{self._path} has become shorter while it was in use")
        return self._record(span)

    def check(self) -> None:
        """Raise BadInput if not one call could come of the file, and say why."""
        if next(self._spans(), None) is None:
            what = "has a header and no records" if self._columns else "is empty: it has no records"
            raise BadInput(f"{self._path} {what}")
        if self._csv:
            seen = [dict.fromkeys(self._header())]
        else:
            parsed = (self._parse(span) for span in self._spans())
            readable = (one.fields for one in parsed if one.flaw is None)
            seen = list(islice(readable, CHECKED_RECORDS))
        needed = self._template.fields if self._template else (self._field,)
        if seen and not any(record.keys() >= set(needed) for record in seen):
            raise BadInput(self._lacking(needed, seen))

    def _spans(self) -> Iterator[Span]:
        if self._csv:
            self._header()
        with open_input(self._path) as file:
            yield from islice(spans(file, quoted=self._csv), int(self._csv), None)

    def _record(self, span: Span) -> Record | Invalid:
        parsed = self._parse(span)
        custom_id = fields.custom_id_of(parsed.fields, from_csv=self._csv)
        params = fields.params_of(parsed.fields, from_csv=self._csv)
        prompt = self._prompt(parsed.fields)
        line, offset, length, _ = span

        def invalid(flaw: Flaw) -> Invalid:
            known = None if isinstance(custom_id, Flaw) else custom_id
            return Invalid(
                line, offset, length, parsed.input, known, flaw.code, flaw.message, flaw.pointer
            )

        if parsed.flaw:
            return invalid(parsed.flaw)
        if isinstance(custom_id, Flaw):
            return invalid(custom_id)
        if isinstance(params, Flaw):
            return invalid(params)
        if isinstance(prompt, Flaw):
            return invalid(prompt)
        return Record(line, offset, length, parsed.input, prompt, custom_id, params)

    def _parse(self, span: Span) -> Parsed:
        if span.too_long:
            return fields.too_long(span.body, span.length)
        match self._format:
            case Format.JSONL:
                return fields.parse_jsonl(span.body)
            case Format.TEXT:
                return fields.parse_text(span.body)
            case Format.CSV:
                return fields.parse_csv(span.body, self._header())

    def _prompt(self, found: dict[str, Any]) -> str | Flaw:
        if self._template:
            return fields.prompt_by_template(found, self._template)
        return fields.prompt_in_field(found, self._field)

    def _header(self) -> tuple[str, ...]:
        if self._columns is None:
            with open_input(self._path) as file:
                span = next(spans(file, quoted=True), None)
            self._columns = () if span is None else self._read_header(span)
        return self._columns

    def _read_header(self, span: Span) -> tuple[str, ...]:
        if not span.body.strip():
            raise BadInput(f"{self._path} has no header: its first line must name the columns")
        if span.too_long:
            raise BadInput(f"{self._path} has no header that can be read: it is too long")
        names = fields.parse_cells(span.body)
        if isinstance(names, Flaw):
            raise BadInput(f"{self._path} has no header that can be read: {names.message}")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            shown = fields.listed(f'"{name}"' for name in twice)
            raise BadInput(f"{self._path} has more than one column of the same name: {shown}")
        return tuple(names)

    def _lacking(self, needed: tuple[str, ...], seen: list[dict[str, Any]]) -> str:
        names = list(dict.fromkeys(name for record in seen for name in record))
        have = f"its records have: {fields.listed(sorted(names))}"
        missing = [name for name in needed if name not in names]
        if not missing:
            return (
                f"{self._path}: none of the first {len(seen)} records has all fields of "
                f"the template: {fields.listed(needed)}"
            )
        what = f'{self._path} has no field "{missing[0]}" ({have})'
        if self._template:
            return f"{what}. The template can name only fields that are there."
        example = _likely_prompt(names)
        if example is None:
            return f"{what}."
        return f"{what}. Name the field with --template, for example --template '{{{example}}}'."


_EXTENSIONS = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".json": Format.JSONL,
    ".csv": Format.CSV,
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
}


def _by_its_beginning(path: Path) -> Format:
    with open_input(path) as file:
        beginning = file.read(_SURVEY_BUFFER_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
        while not beginning and (more := file.read(_SURVEY_BUFFER_BYTES)):
            beginning = more.lstrip()
    return Format.JSONL if beginning.startswith(b"{") else Format.TEXT


#: Names that datasets give to what is asked, the likeliest first.
_PROMPT_NAMES = ("prompt", "question", "text", "input", "instruction", "query", "content")
_OUR_NAMES = ("custom_id", "params")


def _likely_prompt(names: list[str]) -> str | None:
    usable = [
        name for name in names if can_be_named(name) and "'" not in name and name not in _OUR_NAMES
    ]
    known = [name for name in _PROMPT_NAMES if name in usable]
    return next(iter(known + usable), None)


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is read."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        count = self._file.readinto(buffer)
        self.sha256.update(memoryview(buffer)[:count])
        return count

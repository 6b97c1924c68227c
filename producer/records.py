"""The input of `millpond run FILE`: its records, one call each.

    file ─▶ spans ─▶ formats, fields ─▶ Record    sent
                                    └─▶ Invalid   told to the user under its line; the run goes on

A file that is of no use at all is BadInput, raised by `Reader.check` before anything is sent.
A record is found again by its line, offset and length: nothing else of it needs to be kept.
"""

import hashlib
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.producer import fields, openai_lines
from millpond.producer.bad_input import BadInput as BadInput  # others import these from here
from millpond.producer.fields import Flaw, Parsed
from millpond.producer.formats import CHECKED_RECORDS, parse
from millpond.producer.formats import Format as Format
from millpond.producer.formats import detect as detect
from millpond.producer.seen import SeenIds
from millpond.producer.spans import Span, open_input, span_at, span_from, spans
from millpond.producer.template import Template, can_be_named

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SURVEY_BUFFER_BYTES = 1024 * 1024

#: How many records, the latest, are not read again when still another one has their custom_id.
_REREAD_KEPT = 256


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
    """What is asked; of an OpenAI batch line the text in its body, for people and for counting."""

    custom_id: str | None
    params: dict[str, Any]
    body: dict[str, Any] | None = None
    """Of an OpenAI batch line: the whole request, sent as it is."""


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
    """`url` is the one that OpenAI batch lines must name; without it, either is taken."""

    def __init__(
        self,
        path: Path,
        format: Format,
        *,
        field: str,
        template: Template | None,
        url: str | None = None,
    ) -> None:
        self._path = path
        self._csv = format is Format.CSV
        self._openai = format is Format.OPENAI
        self._format = format
        self._field = field
        self._template = template
        self._url = url
        self._columns: tuple[str, ...] | None = None

    def read(self, skip: Callable[[int], bool] = never) -> Iterator[Record | Invalid]:
        """Every record but the skipped ones.

        A record is Invalid if an earlier one has its custom_id: skipped or not, valid or not. So
        skipped ones are parsed too, if they have one.
        """
        seen = SeenIds(lru_cache(_REREAD_KEPT)(self._custom_id_at))
        for span in self._spans():
            record = None if skip(span.line) else self._record(span)
            custom_id = self._custom_id_in(span) if record is None else record.custom_id
            # An empty one tells nothing apart, and is no name to be taken.
            first = seen.first_line(custom_id, span.line, span.offset) if custom_id else None
            if record is not None:
                yield record if first is None else _duplicate(record, first)

    def at(self, line: int, offset: int, length: int) -> Record | Invalid:
        """What `read` yielded there, as long as the file is the same.

        Only that others have its custom_id cannot be seen here: what was Invalid for that alone
        comes as a Record.
        """
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
        if self._openai and self._template:
            raise BadInput(
                f"{self._path} holds OpenAI batch lines, and a template cannot change what they "
                "ask: leave out --template, or read them as plain records with --format jsonl"
            )
        seen = [dict.fromkeys(self._header())] if self._csv else self._first_readable()
        needed = self._needed()
        if seen and not any(record.keys() >= set(needed) for record in seen):
            raise BadInput(self._lacking(needed, seen))
        urls = {str(record.get("url")) for record in seen} if self._openai else set()
        if urls and self._url and self._url not in urls:
            raise BadInput(
                f"{self._path} asks {fields.listed(sorted(urls))}, and this run is for "
                f"{self._url}: choose the endpoint that fits with --endpoint"
            )

    def models(self) -> set[str]:
        """The models that OpenAI batch lines name, as far as the first of them tell."""
        if not self._openai:
            return set()
        named = (openai_lines.model_of(record) for record in self._first_readable())
        return {model for model in named if model is not None}

    def sample_lines(self, n: int, seed: str) -> frozenset[int]:
        """The lines of n records, or of all if there are fewer: each is as likely as another.

        The same file, n and seed give the same lines; of a generator's methods, only `random` is
        promised not to change with Python's versions.
        """
        chance = random.Random(seed)
        kept: list[int] = []
        for count, span in enumerate(self._spans(), start=1):
            if len(kept) < n:
                kept.append(span.line)
            elif (place := int(chance.random() * count)) < n:
                kept[place] = span.line
        return frozenset(kept)

    def parsed(self) -> Iterator[tuple[int, Parsed]]:
        """Line and fields of every record, whether they make a request or not."""
        for span in self._spans():
            yield span.line, self._parse(span)

    def _spans(self) -> Iterator[Span]:
        if self._csv:
            self._header()
        with open_input(self._path) as file:
            yield from islice(spans(file, quoted=self._csv), int(self._csv), None)

    def _first_readable(self) -> list[dict[str, Any]]:
        readable = (parsed.fields for _, parsed in self.parsed() if parsed.flaw is None)
        return list(islice(readable, CHECKED_RECORDS))

    def _record(self, span: Span) -> Record | Invalid:
        parsed = self._parse(span)
        custom_id = self._custom_id(parsed)
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
        if self._openai:
            asked = openai_lines.read_line(parsed.fields, self._url)
            if isinstance(asked, Flaw):
                return invalid(asked)
            return Record(line, offset, length, parsed.input, asked.text, custom_id, {}, asked.body)
        params = fields.params_of(parsed)
        if isinstance(params, Flaw):
            return invalid(params)
        prompt = self._prompt(parsed.fields)
        if isinstance(prompt, Flaw):
            return invalid(prompt)
        return Record(line, offset, length, parsed.input, prompt, custom_id, params)

    def _parse(self, span: Span) -> Parsed:
        return parse(span, self._format, self._header() if self._csv else ())

    def _prompt(self, found: dict[str, Any]) -> str | Flaw:
        if self._template:
            return fields.prompt_by_template(found, self._template)
        return fields.prompt_in_field(found, self._field)

    def _custom_id(self, parsed: Parsed) -> str | Flaw | None:
        return openai_lines.line_id(parsed) if self._openai else fields.custom_id_of(parsed)

    def _custom_id_in(self, span: Span) -> str | None:
        """The custom_id alone; a record that cannot have one is not parsed."""
        match self._format:
            case Format.TEXT:
                return None
            case Format.CSV:
                if "custom_id" not in self._header():
                    return None
            case Format.JSONL | Format.OPENAI:
                if b"custom_id" not in span.body and _ESCAPED_ASCII not in span.body:
                    return None
        custom_id = self._custom_id(self._parse(span))
        return None if isinstance(custom_id, Flaw) else custom_id

    def _custom_id_at(self, line: int, offset: int) -> str | None:
        with open_input(self._path) as file:
            span = span_from(file, line, offset, quoted=self._csv)
        return None if span is None else self._custom_id_in(span)

    def _needed(self) -> tuple[str, ...]:
        if self._openai:
            return tuple(openai_lines.FIELDS)
        return self._template.fields if self._template else (self._field,)

    def columns(self) -> tuple[str, ...] | None:
        """The names of a CSV file's columns; None for any other file."""
        return self._header() if self._csv else None

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
            whose = "an OpenAI batch line" if self._openai else "the template"
            return (
                f"{self._path}: none of the first {len(seen)} records has all fields of "
                f"{whose}: {fields.listed(needed)}"
            )
        what = f'{self._path} has no field "{missing[0]}" ({have})'
        if self._openai:
            return f"{what}. An OpenAI batch line has: {fields.listed(needed)}."
        if self._template:
            return f"{what}. The template can name only fields that are there."
        example = _likely_prompt(names)
        if example is None:
            return f"{what}."
        return f"{what}. Name the field with --template, for example --template '{{{example}}}'."


#: In JSON, how a letter of "custom_id" begins if it is written as its number.
_ESCAPED_ASCII = b"\\u00"


def _duplicate(record: Record | Invalid, first: int) -> Record | Invalid:
    if isinstance(record, Invalid):
        return record  # whose own fault says more
    assert record.custom_id is not None
    message = (
        f"line {first} has the custom_id {fields.listed([record.custom_id])} already: "
        "give each record its own"
    )
    return Invalid(
        record.line,
        record.offset,
        record.length,
        record.input,
        record.custom_id,
        "duplicate_custom_id",
        message,
        "/custom_id",
    )


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

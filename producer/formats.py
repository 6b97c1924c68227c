"""What the file is, and one of its records as fields."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path

from millpond.producer import error_rows, fields, openai_lines
from millpond.producer.bad_input import BadInput
from millpond.producer.fields import Parsed
from millpond.producer.spans import Span, open_input, spans

#: How many readable records are looked at before something is said of the file as a whole.
CHECKED_RECORDS = 100

#: Where they are looked for, to tell what the file is.
_CHECKED_LINES = 10_000

_BUFFER_BYTES = 1024 * 1024


class Format(StrEnum):
    JSONL = "jsonl"
    OPENAI = "openai"
    CSV = "csv"
    TEXT = "text"


def detect(path: Path, wish: str, *, name: str | None = None) -> Format:
    """What the file is: as wished, or for "auto" by its name, else by how it begins.

    `name` is the one that it had before it was spooled. A JSONL file is one of OpenAI batch lines
    if most of its first records are.
    """
    if wish != "auto":
        try:
            return Format(wish)
        except ValueError:
            raise BadInput(
                f"there is no input format {wish!r}: it is auto, jsonl, openai, csv or text"
            ) from None
    extension = Path(path.name if name is None else name).suffix.lower()
    found = _EXTENSIONS.get(extension) or _by_its_beginning(path)
    if found is Format.JSONL and _holds_openai_lines(path):
        return Format.OPENAI
    return found


def parse(span: Span, format: Format, columns: Sequence[str] = ()) -> Parsed:
    """The fields of one record; of a row of our own errors file, those of the record in it."""
    if span.too_long:
        return fields.too_long(span.body, span.length)
    match format:
        case Format.JSONL | Format.OPENAI:
            return error_rows.unwrapped(fields.parse_jsonl(span.body))
        case Format.TEXT:
            return fields.parse_text(span.body)
        case Format.CSV:
            return fields.parse_csv(span.body, columns)


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
        beginning = file.read(_BUFFER_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
        while not beginning and (more := file.read(_BUFFER_BYTES)):
            beginning = more.lstrip()
    return Format.JSONL if beginning.startswith(b"{") else Format.TEXT


def _holds_openai_lines(path: Path) -> bool:
    """Most, not all: a line that lacks one of the fields is told under its line."""
    with open_input(path) as file:
        first = islice(spans(file, quoted=False), _CHECKED_LINES)
        parsed = (parse(span, Format.JSONL) for span in first)
        readable = islice((one.fields for one in parsed if one.flaw is None), CHECKED_RECORDS)
        verdicts = [one.keys() >= openai_lines.FIELDS.keys() for one in readable]
    return sum(verdicts) * 2 > len(verdicts)

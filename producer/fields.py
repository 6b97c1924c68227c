"""What is in one record: bytes to fields, fields to prompt, custom_id and params.

Functions of plain values. What is wrong with a record comes back as a Flaw, for the run goes on
with the next one.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from millpond.producer.spans import HEAD_BYTES, MAX_RECORD_BYTES
from millpond.producer.template import Template

CUSTOM_ID_MAX_CHARACTERS = 512
EXCERPT_CHARACTERS = 1_000

#: orjson reads 1,024 levels and writes 254. What we read must be written again, inside an answer.
DEPTH_MAX = 200

_NAMES_SHOWN = 20
_NAME_SHOWN_CHARACTERS = 80

# The limit is the whole process's, and by default shorter than our records: only ever raise it.
csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))


@dataclass(frozen=True, slots=True)
class Flaw:
    code: str
    message: str
    pointer: str | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    input: Any
    """The record as it is shown to the user; if it cannot be read, the beginning of its text."""

    fields: dict[str, Any]
    flaw: Flaw | None = None
    from_csv: bool = False
    """Its fields are cells: an empty one is as good as none, and params is JSON in a cell."""


def parse_jsonl(body: bytes) -> Parsed:
    if not body.strip():
        return _unreadable(body, _EMPTY_LINE)
    value = parse_json(body)
    if isinstance(value, Flaw):
        return _unreadable(body, value)
    if not isinstance(value, dict):
        flaw = Flaw("not_an_object", f"the line must be a JSON object, not {kind(value)}")
        return Parsed(value, {}, flaw)
    return Parsed(value, value)


def parse_text(body: bytes) -> Parsed:
    if not body.strip():
        return _unreadable(body, _EMPTY_LINE)
    text = decode(body)
    if isinstance(text, Flaw):
        return _unreadable(body, text)
    return Parsed(text, {"prompt": text, "text": text})


def parse_csv(body: bytes, columns: Sequence[str]) -> Parsed:
    if not body:
        return _unreadable(body, _EMPTY_LINE)
    cells = parse_cells(body)
    if isinstance(cells, Flaw):
        return _unreadable(body, cells)
    # A short row lacks its last cells: their fields are not there.
    fields = dict(zip(columns, cells, strict=False))
    if len(cells) > len(columns):
        message = f"the record has {len(cells)} cells, the header {len(columns)}"
        return Parsed(fields, fields, Flaw("too_many_cells", message), from_csv=True)
    return Parsed(fields, fields, from_csv=True)


def too_long(head: bytes, length: int) -> Parsed:
    message = f"the record has {length:,} bytes, {MAX_RECORD_BYTES:,} are allowed"
    if head.count(b'"') % 2:
        message += "; is a quote left open in it?"
    return _unreadable(head, Flaw("too_long", message))


def parse_cells(body: bytes) -> list[str] | Flaw:
    """The cells of one CSV record, of any number of lines."""
    text = decode(body)
    if isinstance(text, Flaw):
        return text
    try:
        # Strict: a cell with stray quotes is refused, not quietly given other words.
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        return Flaw("invalid_csv", _csv_message(str(error)))


def parse_json(body: bytes) -> Any | Flaw:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _json_flaw(body, error)
    openings = body.count(b"[") + body.count(b"{")
    if openings > DEPTH_MAX and _deeper_than(DEPTH_MAX, value):
        return Flaw("too_deep", f"the JSON is nested deeper than {DEPTH_MAX} levels")
    return value


def decode(body: bytes) -> str | Flaw:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start + 1} of the record (0x{body[error.start]:02x}) is not UTF-8"
        return Flaw("invalid_utf8", wrong)


def custom_id_of(parsed: Parsed) -> str | Flaw | None:
    match parsed.fields.get("custom_id"):
        case None:
            return None
        case "" if parsed.from_csv:
            return None
        case str(text) if len(text) <= CUSTOM_ID_MAX_CHARACTERS:
            return text
        case str(text):
            message = f"it has {len(text):,} characters, {CUSTOM_ID_MAX_CHARACTERS} are allowed"
            return Flaw("custom_id_too_long", f"custom_id is too long: {message}", "/custom_id")
        case int(number) if not isinstance(number, bool):
            return str(number)
        case other:
            message = f"custom_id must be a string or a 64-bit integer, not {kind(other)}"
            return Flaw("wrong_type", message, "/custom_id")


def params_of(parsed: Parsed) -> dict[str, Any] | Flaw:
    params = parsed.fields.get("params")
    if parsed.from_csv and params is not None:
        params = parse_json(params.encode()) if params.strip() else None
    match params:
        case None:
            return {}
        case dict():
            return params
        case Flaw(code, message):
            return Flaw(code, f"params: {message}", "/params")
        case other:
            message = f"params must be a JSON object, not {kind(other)}"
            return Flaw("wrong_type", message, "/params")


def prompt_in_field(fields: Mapping[str, Any], name: str) -> str | Flaw:
    match fields.get(name):
        case "":
            return Flaw("empty_prompt", f'the field "{name}" is empty', pointer_to(name))
        case str(prompt):
            return prompt
        case None:
            return missing(fields, name)
        case other:
            message = f'the field "{name}" must be a string, not {kind(other)}'
            return Flaw("wrong_type", message, pointer_to(name))


def prompt_by_template(fields: Mapping[str, Any], template: Template) -> str | Flaw:
    name = template.first_missing(fields)
    if name is not None:
        return missing(fields, name)
    return template.render(fields) or Flaw("empty_prompt", "the template gives an empty prompt")


def listed(names: Iterable[str]) -> str:
    """Names of fields in a message: not more of them, and not longer, than one can read."""
    names = list(names)
    shown = [
        name if len(name) <= _NAME_SHOWN_CHARACTERS else name[:_NAME_SHOWN_CHARACTERS] + "…"
        for name in names[:_NAMES_SHOWN]
    ]
    if len(names) > _NAMES_SHOWN:
        shown.append(f"and {len(names) - _NAMES_SHOWN} more")
    return ", ".join(shown) or "none"


def missing(fields: Mapping[str, Any], name: str) -> Flaw:
    """The record lacks a field that it needs; null is as good as not there."""
    if name in fields:
        message = f'the field "{name}" is null'
    else:
        message = f'the record has no field "{name}"; its fields are: {listed(fields)}'
    return Flaw("missing_field", message, pointer_to(name))


def kind(value: Any) -> str:
    """What a JSON value is, for a message."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return f"the number {value}"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def pointer_to(name: str) -> str:
    """The JSON pointer of a record's field."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


_EMPTY_LINE = Flaw("empty_line", "the line is empty")


def _unreadable(body: bytes, flaw: Flaw) -> Parsed:
    excerpt = body[:HEAD_BYTES].decode(errors="replace")[:EXCERPT_CHARACTERS]
    return Parsed(excerpt, {}, flaw)


def _json_flaw(body: bytes, error: json.JSONDecodeError) -> Flaw:
    # orjson calls bad UTF-8 bad JSON; the place of the byte helps more.
    text = decode(body)
    if isinstance(text, Flaw):
        return text
    where = f"{error.msg} (column {error.colno})"
    if "surrogate" in error.msg:
        return Flaw("lone_surrogate", f"half of a surrogate pair is no character: {where}")
    return Flaw("invalid_json", f"the JSON cannot be read: {where}")


def _deeper_than(levels: int, value: Any) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [inner for outer in layer for inner in _containers_in(outer)]
        if not layer:
            return False
    return True


def _containers_in(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value
    return [item for item in inner if isinstance(item, dict | list)]


def _csv_message(message: str) -> str:
    if "unexpected end of data" in message:
        return "a quoted cell is not closed before the end of the file"
    if "new-line character" in message:
        return "there is a lone carriage return outside quotes"
    if "expected after" in message:
        return "there is text behind a cell's closing quote; a quote inside a cell is doubled"
    return message

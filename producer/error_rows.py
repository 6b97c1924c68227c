"""A row of our own errors file as input: what it holds is asked again.

{"line", "custom_id", "endpoint", "status", "error", "attempts", "input"}  ──▶  the input
"""

from collections.abc import Mapping
from typing import Any

from millpond.producer.fields import Flaw, Parsed, kind

_NAMES = frozenset({"line", "custom_id", "endpoint", "status", "error", "attempts", "input"})
_STATUSES = ("failed", "invalid", "expired", "cancelled")

#: What is said of a record of which the row does not hold everything: it cannot be asked from here.
_NOT_WHOLE = (
    "empty_line",
    "invalid_csv",
    "invalid_json",
    "invalid_utf8",
    "lone_surrogate",
    "not_an_object",
    "too_deep",
    "too_long",
    "too_many_cells",
)


def unwrapped(parsed: Parsed) -> Parsed:
    """The record in a row of an errors file; anything else as it is."""
    row = parsed.fields
    if len(row) != len(_NAMES) or row.keys() != _NAMES or row["status"] not in _STATUSES:
        return parsed
    custom_id = row["custom_id"]
    if flaw := _not_whole(row):
        return Parsed(row["input"], {"custom_id": custom_id}, flaw)
    match row["input"]:
        case dict(record):
            return _record(record, custom_id)
        case str(text):
            return Parsed(text, {"prompt": text, "text": text, "custom_id": custom_id})
        case other:
            message = f"the input of a row of errors must be an object or a text, not {kind(other)}"
            return Parsed(other, {"custom_id": custom_id}, Flaw("wrong_type", message, "/input"))


def _record(record: dict[str, Any], custom_id: Any) -> Parsed:
    fields = record if record.get("custom_id") is not None else {**record, "custom_id": custom_id}
    # Nothing but texts: perhaps the cells of a CSV file, whose params are text too.
    from_csv = all(isinstance(value, str) for value in record.values())
    return Parsed(record, fields, from_csv=from_csv)


def _not_whole(row: Mapping[str, Any]) -> Flaw | None:
    match row:
        case {"status": "invalid", "error": {"code": str(code), "message": str(message)}} if (
            code in _NOT_WHOLE
        ):
            advice = "mend it in the file that it came from: this row does not hold all of it"
            return Flaw(code, f"{message}; {advice}", "/input")
        case _:
            return None

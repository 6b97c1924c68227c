"""A prompt made of a record's fields: `Solve: {question}`.

A template knows `{name}`, where the name is any text without braces, and `{{` and `}}` for the
braces themselves. It is no Python format: what `str.format` would read as an attribute, an index, a
conversion or a format is refused, so that nobody waits for it to work.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from millpond.producer.bad_input import BadInput

#: Ends every complaint.
_FORM = "write {name} for a field of the record, and {{ or }} for a brace"

_PIECE = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<name>[^{}]*)\}|(?P<stray>[{}])")

#: A name that means something to `str.format`. "Question: text", "No. 1" and "price [EUR]" do not.
_PYTHON_ONLY = (
    (re.compile(r"\w*(\.\w+|\[[^\]]*\])*![rsa](:.*)?"), "converts a value"),
    (re.compile(r"\w*(\.\w+|\[[^\]]*\])*:\S*"), "formats a value"),
    (re.compile(r"\w+(\.\w+)*\[[^\]]*\].*"), "takes an element of a field"),
    (re.compile(r"\w+(\.[^\W\d]\w*)+"), "takes an attribute of a field"),
)


class Template:
    """Raises BadInput for a text that is no template."""

    def __init__(self, text: str) -> None:
        self.text = text
        #: By turns a text and the name of a field, beginning and ending with a text.
        self._pieces = _pieces(text)
        self.fields: tuple[str, ...] = tuple(dict.fromkeys(self._pieces[1::2]))
        if not self.fields:
            raise BadInput(f"the template {text!r} names no field: {_FORM}")

    def first_missing(self, record: Mapping[str, Any]) -> str | None:
        """The first field that the record lacks; null is as good as not there."""
        return next((name for name in self.fields if record.get(name) is None), None)

    def render(self, record: Mapping[str, Any]) -> str:
        """The prompt. The record must have every field: ask `first_missing` first."""
        pieces = list(self._pieces)
        for at in range(1, len(pieces), 2):
            pieces[at] = _shown(record[pieces[at]])
        return "".join(pieces)


def can_be_named(field: str) -> bool:
    """Whether a template can have this field."""
    return _fault(field) is None and not re.search(r"[{}]", field)


def _pieces(text: str) -> list[str]:
    pieces, end = [""], 0
    for found in _PIECE.finditer(text):
        pieces[-1] += text[end : found.start()]
        end = found.end()
        match found.lastgroup:
            case "brace":
                pieces[-1] += found["brace"][0]
            case "name":
                if fault := _fault(found["name"]):
                    raise BadInput(f"the template's {found[0]} {fault}: {_FORM}")
                pieces += [found["name"], ""]
            case _:
                raise BadInput(
                    f"the template has a single {found['stray']} at character "
                    f"{found.start() + 1}: {_FORM}"
                )
    pieces[-1] += text[end:]
    return pieces


def _fault(name: str) -> str | None:
    if not name.strip():
        return "names no field"
    return next((fault for shape, fault in _PYTHON_ONLY if shape.fullmatch(name)), None)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()

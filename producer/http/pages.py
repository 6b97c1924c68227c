"""Lists in pages: `limit` and an opaque `cursor` in, `data` and `next_cursor` out."""

import base64
import binascii
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from millpond.producer.http.problems import Problem, invalid
from millpond.producer.http.table import Model

CURSOR_MOST = 400
_NO_CURSOR = "it is no next_cursor of this API"


def cursor_of(text: str) -> str:
    """A place in a list, as the client is given it."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def text_of(cursor: str) -> str:
    """The place again. ValueError: it is no cursor of ours."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    if not text or cursor_of(text) != cursor:
        raise ValueError(_NO_CURSOR)
    return text


def bad_cursor() -> Problem:
    """For a handler that finds that the text in a cursor is none of its own."""
    return invalid("/cursor", _NO_CURSOR, where="query")


#: In a query model: the client's cursor in, the text that was hidden in it out.
Cursor = Annotated[
    str,
    StringConstraints(max_length=CURSOR_MOST, pattern=r"^[A-Za-z0-9_-]+$"),
    AfterValidator(text_of),
]


class PageQuery(Model):
    """What a list is asked with. Inherit from it to add filters."""

    limit: Annotated[int, Field(ge=1, le=1_000, description="How many at most.")] = 50
    cursor: Annotated[Cursor | None, Field(description="`next_cursor` of the page before.")] = None


T = TypeVar("T", bound=BaseModel)


class Page(Model, Generic[T]):
    """One page; `next_cursor` is null on the last."""

    data: list[T]
    next_cursor: str | None = None

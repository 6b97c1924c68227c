"""Pages of an audit or a ledger, the latest row first: a cursor is the id of a page's last row."""

import re
from collections.abc import Sequence
from typing import Literal

from millpond.producer.http.pages import PageQuery, bad_cursor, cursor_of
from millpond.store.store import Row, Store

_ROW = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


async def rows_of(
    store: Store, org: str, what: Literal["audit", "ledger"], query: PageQuery
) -> list[Row]:
    """A page of an org's rows. Raises UnknownPart if there is no such org."""
    await store.org(org)
    return await store.records(org, what, most=query.limit, before=before_of(query))


def before_of(query: PageQuery) -> str:
    """The row that a page of records begins behind. Raises a Problem for another list's cursor."""
    if query.cursor is not None and not _ROW.fullmatch(query.cursor):
        raise bad_cursor()
    return query.cursor or "+"


def next_cursor(rows: Sequence[Row], query: PageQuery) -> str | None:
    """Where the page after these rows begins. A full page may be the last: then an empty one
    follows."""
    return cursor_of(rows[-1].id) if len(rows) == query.limit else None

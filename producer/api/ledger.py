"""The ledger of an org, told to operators: what each of its calls used, and the sums after it."""

from millpond.producer.api.row_pages import next_cursor, rows_of
from millpond.producer.api.wall import Wall, wall_now
from millpond.producer.http.pages import Page, PageQuery
from millpond.producer.http.table import Call, Model, Route, Who
from millpond.store.store import Row, Store


class LedgerRow(Model):
    """Characters of a call, or that somebody entered; and the org's sums after it."""

    at: str | None
    outcome: str
    characters: int
    used: int
    estimated: int
    call: str | None = None
    lane: str | None = None
    by: str | None = None
    why: str | None = None


class LedgerRoutes:
    """For operators: the ledger of an org."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/v1/orgs/{org}/ledger",
                self.get_ledger,
                who=Who.OPERATOR,
                tags=("orgs",),
                summary="What an org's calls used, the latest first",
                query=PageQuery,
                replies={200: Page[LedgerRow]},
            ),
        ]

    async def get_ledger(self, call: Call) -> Page[LedgerRow]:
        query: PageQuery = call.query
        rows = await rows_of(self._store, call.path["org"], "ledger", query)
        wall = wall_now(self._store.gateway)
        return Page[LedgerRow](
            data=[_ledger_row(row, wall) for row in rows], next_cursor=next_cursor(rows, query)
        )


def _ledger_row(row: Row, wall: Wall) -> LedgerRow:
    fields = row.fields
    return LedgerRow(
        at=wall.at(int(fields["at"])),
        outcome=fields["outcome"],
        characters=int(fields["characters"]),
        used=int(fields["used"]),
        estimated=int(fields["estimated"]),
        **{name: fields.get(name) or None for name in ("call", "lane", "by", "why")},
    )

"""The audit: who changed what, when and why, told to an org's admins and to operators."""

from collections.abc import Sequence

import orjson
from pydantic import Field

from millpond.producer.api.row_pages import before_of, next_cursor, rows_of
from millpond.producer.api.wall import Wall, wall_now
from millpond.producer.http.pages import Page, PageQuery
from millpond.producer.http.table import Call, Model, Route, Who
from millpond.store.directory import Directory
from millpond.store.store import Row, Store


class ChangeShape(Model):
    """One field of one thing, before and after."""

    what: str
    id: str
    field: str
    from_: str = Field(alias="from")
    to: str


class AuditRow(Model):
    """Who changed what, and why if that was told. `version` is that of the org's record."""

    at: str | None
    by: str
    version: int
    why: str | None
    changes: list[ChangeShape]


class OwnAuditRoutes:
    """For admins: the audit of their org."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/v1/audit",
                self.get_audit,
                who=Who.ADMIN,
                tags=("account",),
                summary="Who changed what of the org, the latest first",
                query=PageQuery,
                replies={200: Page[AuditRow]},
            ),
        ]

    async def get_audit(self, call: Call) -> Page[AuditRow]:
        query: PageQuery = call.query
        rows = await self._store.records(
            call.caller.org, "audit", most=query.limit, before=before_of(query)
        )
        return _page(rows, query, wall_now(self._store.gateway))


class OrgAuditRoutes:
    """For operators: the audit of an org."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/v1/orgs/{org}/audit",
                self.get_org_audit,
                who=Who.OPERATOR,
                tags=("orgs",),
                summary="Who changed what of an org, the latest first",
                query=PageQuery,
                replies={200: Page[AuditRow]},
            ),
        ]

    async def get_org_audit(self, call: Call) -> Page[AuditRow]:
        query: PageQuery = call.query
        rows = await rows_of(self._store, call.path["org"], "audit", query)
        return _page(rows, query, wall_now(self._store.gateway))


class OperatorAuditRoutes:
    """For operators: the audit of what belongs to no org."""

    def __init__(self, store: Store) -> None:
        self._gateway = store.gateway
        self._directory = Directory(store)

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/v1/audit",
                self.get_audit,
                who=Who.OPERATOR,
                tags=("operators",),
                summary="Who changed what belongs to no org, the latest first",
                query=PageQuery,
                replies={200: Page[AuditRow]},
            ),
        ]

    async def get_audit(self, call: Call) -> Page[AuditRow]:
        query: PageQuery = call.query
        rows = await self._directory.audit(most=query.limit, before=before_of(query))
        return _page(rows, query, wall_now(self._gateway))


def _page(rows: Sequence[Row], query: PageQuery, wall: Wall) -> Page[AuditRow]:
    return Page[AuditRow](
        data=[_audit_row(row, wall) for row in rows],
        next_cursor=next_cursor(rows, query),
    )


def _audit_row(row: Row, wall: Wall) -> AuditRow:
    fields = row.fields
    names = ("what", "id", "field", "from", "to")
    return AuditRow(
        at=wall.at(int(fields["at"])),
        by=fields["by"],
        version=int(fields.get("version", 0)),
        why=fields.get("why") or None,
        changes=[
            ChangeShape.model_validate(dict(zip(names, map(str, one), strict=True)))
            for one in orjson.loads(fields["changes"])
        ],
    )

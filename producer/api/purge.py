"""Routes of operators by which an org is erased, and its receipt is told."""

import asyncio
from contextlib import suppress
from typing import Any

from pydantic import Field

from millpond.clock import monotonic_ms
from millpond.producer.api.values import Prose
from millpond.producer.api.wall import wall_now
from millpond.producer.http.problems import invalid
from millpond.producer.http.table import Call, Model, Name, Reply, Route, Who
from millpond.store.purge import REMAINDER, Purge, Receipt
from millpond.store.store import Store

#: A request erases for so long; who asks again goes on.
PURGE_MS = 20_000
#: Between looks at calls that have not ended yet.
LOOK_S = 0.25
_RETRY_AFTER_S = 5


class PurgeAsked(Model):
    """Why an org is erased; and its id once more, since that cannot be taken back."""

    why: Prose
    confirm: Name


class ReceiptShape(Model):
    """Of an org that was erased, or is being erased. Nothing of what it asked or was answered."""

    org: str
    name: str
    by: str
    why: str
    begun_at: str | None
    ended_at: str | None = Field(description="null: it is not done, ask for it again.")
    waits_for: str | None = Field(None, description="Why it does not go on by itself.")
    erased: dict[str, int] = Field(description="How much of what.")
    left: str = Field(REMAINDER, description="What is left to lapse by itself.")


class PurgeRoutes:
    """The handlers, and what they work with."""

    def __init__(self, store: Store) -> None:
        self._gateway = store.gateway
        self._purge = Purge(store)

    def routes(self) -> list[Route]:
        told: dict[str, Any] = {"who": Who.OPERATOR, "tags": ("orgs",)}
        return [
            Route(
                "POST",
                "/v1/orgs/{org}/purge",
                self.purge_org,
                summary="Erase an org with everything of it, for ever; 202: ask again, it goes on",
                body=PurgeAsked,
                replies={200: ReceiptShape, 202: ReceiptShape},
                **told,
            ),
            Route(
                "GET",
                "/v1/receipts/{org}",
                self.get_receipt,
                summary="What was erased of an org, by whom, when and why",
                replies={200: ReceiptShape},
                **told,
            ),
        ]

    async def purge_org(self, call: Call) -> Reply:
        """Some of it in each request, so that none takes long."""
        org, asked = call.path["org"], call.body
        if asked.confirm != org:
            raise invalid("/confirm", f"it must be the id of the org that is erased: {org}")
        by, end_ms = f"operator {call.caller.name}", monotonic_ms() + PURGE_MS
        while True:
            step = await self._purge.step(org, by, asked.why)
            if step.done:
                return Reply(self._shape(step.receipt))
            over = monotonic_ms() >= end_ms or call.stopping.is_set()
            if over or step.busy is not None:
                headers = {"Retry-After": str(_RETRY_AFTER_S)}
                return Reply(self._shape(step.receipt, step.waits), status=202, headers=headers)
            if step.waits is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await call.stopping.wait()

    async def get_receipt(self, call: Call) -> ReceiptShape:
        return self._shape(await self._purge.receipt(call.path["org"]))

    def _shape(self, receipt: Receipt, waits_for: str | None = None) -> ReceiptShape:
        wall = wall_now(self._gateway)
        return ReceiptShape(
            org=receipt.org,
            name=receipt.name,
            by=receipt.by,
            why=receipt.why,
            begun_at=wall.at(receipt.begun_ms),
            ended_at=wall.at(receipt.ended_ms),
            waits_for=waits_for,
            erased=dict(receipt.erased),
        )

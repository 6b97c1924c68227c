"""Routes of operators' own keys, and how an operator is named in audits."""

from typing import Any

from millpond.domain.account import Identity
from millpond.producer.api.account_shapes import KeyShape, NewKeyShape, key_shape, new_key_shape
from millpond.producer.api.values import Label, Lifetime, Prose
from millpond.producer.api.wall import wall_now
from millpond.producer.http.pages import Page
from millpond.producer.http.table import Call, Model, Reply, Route, Who
from millpond.store.api_keys import ApiKeys
from millpond.store.store import Store


def operator_name(who: Identity) -> str:
    """An operator, for audits: no user's id looks so."""
    return f"operator {who.name}"


class OperatorAsked(Model):
    """An operator, who gets a key."""

    name: Label
    expires_in_s: Lifetime | None = None
    why: Prose | None = None


class OperatorRoutes:
    """For operators: the keys of all operators."""

    def __init__(self, store: Store, api_keys: ApiKeys) -> None:
        self._gateway = store.gateway
        self._api_keys = api_keys

    def routes(self) -> list[Route]:
        told: dict[str, Any] = {"who": Who.OPERATOR, "tags": ("operators",)}
        return [
            Route(
                "GET",
                "/v1/operators",
                self.list_operators,
                summary="Operators' keys, the latest first",
                replies={200: Page[KeyShape]},
                **told,
            ),
            Route(
                "POST",
                "/v1/operators",
                self.create_operator,
                summary="Make a key for an operator; its text is told this once",
                body=OperatorAsked,
                replies={201: NewKeyShape},
                problems=(409,),
                **told,
            ),
            Route(
                "DELETE",
                "/v1/operators/{key}",
                self.revoke_operator,
                summary="An operator's key is good no more, within 5 s",
                replies={204: None},
                problems=(409,),
                **told,
            ),
        ]

    async def list_operators(self, call: Call) -> Page[KeyShape]:
        return Page[KeyShape](data=await self._operators())

    async def create_operator(self, call: Call) -> Reply:
        asked = call.body
        made = await self._api_keys.make_operator(
            asked.name,
            by=operator_name(call.caller),
            good_ms=(asked.expires_in_s or 0) * 1_000,
            why=asked.why or "",
        )
        return Reply(new_key_shape(made, asked.name, wall_now(self._gateway)), status=201)

    async def revoke_operator(self, call: Call) -> Reply:
        await self._api_keys.revoke_operator(call.path["key"], by=operator_name(call.caller))
        return Reply(status=204)

    async def _operators(self) -> list[KeyShape]:
        found = await self._api_keys.operators()
        now_ms, wall = self._gateway.logical_ms(), wall_now(self._gateway)
        return [key_shape(one, now_ms, wall) for one in found]

"""Routes of API keys: one's own, and for admins those of their org's users."""

from typing import Any

from pydantic import Field

from millpond.domain.account import Role
from millpond.producer.api.account_shapes import KeyShape, NewKeyShape, key_shape, new_key_shape
from millpond.producer.api.values import Label, Lifetime
from millpond.producer.api.wall import wall_now
from millpond.producer.http.pages import Page
from millpond.producer.http.problems import Problem
from millpond.producer.http.table import Call, Model, Name, Reply, Route, Who
from millpond.store.api_keys import ApiKeys
from millpond.store.directory import Directory
from millpond.store.store import Store


class KeyAsked(Model):
    """A key to make: one's own, or by an admin for a user."""

    name: Label
    expires_in_s: Lifetime | None = None
    user: Name | None = None


class KeysQuery(Model):
    """Whose keys."""

    user: Name | None = Field(None, description="For admins: of this user. None: one's own.")


class KeyRoutes:
    """For users: their own keys. For admins: those of every user of the org."""

    def __init__(self, store: Store, api_keys: ApiKeys) -> None:
        self._gateway = store.gateway
        self._directory = Directory(store)
        self._api_keys = api_keys

    def routes(self) -> list[Route]:
        user: dict[str, Any] = {"who": Who.USER, "tags": ("keys",)}
        return [
            Route(
                "GET",
                "/v1/keys",
                self.list_keys,
                summary="One's own API keys, the latest first; an admin may ask for a user's",
                query=KeysQuery,
                replies={200: Page[KeyShape]},
                **user,
            ),
            Route(
                "POST",
                "/v1/keys",
                self.create_key,
                summary="Make an API key; its text is told this once",
                body=KeyAsked,
                replies={201: NewKeyShape},
                problems=(409,),
                **user,
            ),
            Route(
                "DELETE",
                "/v1/keys/{id}",
                self.revoke_key,
                summary="An API key is good no more, within 5 s",
                replies={204: None},
                **user,
            ),
        ]

    async def list_keys(self, call: Call) -> Page[KeyShape]:
        who = call.caller
        user = call.query.user or who.user
        if user != who.user:
            _refuse_members(call)
            await self._directory.user(who.org, user)
        now_ms, wall = self._gateway.logical_ms(), wall_now(self._gateway)
        found = await self._api_keys.of(who.org, user)
        return Page[KeyShape](data=[key_shape(one, now_ms, wall) for one in found])

    async def create_key(self, call: Call) -> Reply:
        who, asked = call.caller, call.body
        user = asked.user or who.user
        if user != who.user:
            _refuse_members(call)
        made = await self._api_keys.make(
            who.org, user, asked.name, by=who.user, good_ms=(asked.expires_in_s or 0) * 1_000
        )
        return Reply(
            new_key_shape(made, asked.name, wall_now(self._gateway), user=user), status=201
        )

    async def revoke_key(self, call: Call) -> Reply:
        who = call.caller
        user = "" if who.role is Role.ADMIN else who.user
        await self._api_keys.revoke(call.path["id"], org=who.org, user=user, by=who.user)
        return Reply(status=204)


def _refuse_members(call: Call) -> None:
    if call.caller.role is not Role.ADMIN:
        raise Problem("forbidden", "only admins look after the keys of others")

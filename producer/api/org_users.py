"""Routes of operators by which an org gets a user (its first admin), and a user a key."""

from typing import Any

from millpond.domain.account import Role
from millpond.producer.api.account_shapes import (
    NewKeyShape,
    UserShape,
    new_key_shape,
    user_shape,
)
from millpond.producer.api.operators import operator_name
from millpond.producer.api.values import Label, Lifetime, Prose, UserId, UserRole
from millpond.producer.api.wall import wall_now
from millpond.producer.http.table import Call, Model, Name, Reply, Route, Who
from millpond.store.api_keys import ApiKeys
from millpond.store.directory import Directory
from millpond.store.store import Store


class UserOfOrg(Model):
    """A user to make, an admin if nothing else is said."""

    id: UserId
    name: Label
    role: UserRole = Role.ADMIN
    why: Prose | None = None


class KeyOfUser(Model):
    """A key to make for a user of the org."""

    user: Name
    name: Label
    expires_in_s: Lifetime | None = None
    why: Prose | None = None


class OrgUserRoutes:
    """For operators: the users of an org, and keys for them."""

    def __init__(self, store: Store, api_keys: ApiKeys) -> None:
        self._gateway = store.gateway
        self._directory = Directory(store)
        self._api_keys = api_keys

    def routes(self) -> list[Route]:
        told: dict[str, Any] = {"who": Who.OPERATOR, "tags": ("orgs",)}
        one = "/v1/orgs/{org}"
        return [
            Route(
                "POST",
                f"{one}/users",
                self.create_user,
                summary="Make a user of an org: its first admin",
                body=UserOfOrg,
                replies={201: UserShape},
                problems=(409,),
                **told,
            ),
            Route(
                "POST",
                f"{one}/keys",
                self.create_key,
                summary="Make a key for a user of an org; its text is told this once",
                body=KeyOfUser,
                replies={201: NewKeyShape},
                problems=(409,),
                **told,
            ),
        ]

    async def create_user(self, call: Call) -> Reply:
        org, asked, by = call.path["org"], call.body, operator_name(call.caller)
        await self._directory.create_user(
            org, asked.id, asked.name, asked.role, by=by, why=asked.why or ""
        )
        user = await self._directory.user(org, asked.id)
        return Reply(user_shape(user, wall_now(self._gateway)), status=201)

    async def create_key(self, call: Call) -> Reply:
        org, asked = call.path["org"], call.body
        made = await self._api_keys.make(
            org,
            asked.user,
            asked.name,
            by=operator_name(call.caller),
            good_ms=(asked.expires_in_s or 0) * 1_000,
            why=asked.why or "",
        )
        shape = new_key_shape(made, asked.name, wall_now(self._gateway), user=asked.user)
        return Reply(shape, status=201)

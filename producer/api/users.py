"""Routes of an org's users: all may see them, admins make, change and remove them."""

import re
from contextlib import suppress
from typing import Annotated, Any

import orjson
from pydantic import Field

from millpond.clock import monotonic_ms
from millpond.domain.account import Role
from millpond.errors import UnknownPart
from millpond.producer.api.account_shapes import UserShape, user_shape
from millpond.producer.api.values import Label, Prose, UserId, UserRole
from millpond.producer.api.wall import wall_now
from millpond.producer.http.pages import Cursor, Page, PageQuery, bad_cursor, cursor_of
from millpond.producer.http.problems import Problem, invalid
from millpond.producer.http.table import Call, Model, Reply, Route, Who
from millpond.store.directory import Directory, UnknownUser
from millpond.store.singles import Kept, Singles
from millpond.store.store import Store

#: Erasing what a user's jobs say goes on for so long in one request.
ERASE_MS = 20_000
_AT_ONCE = 200
_MOMENT = re.compile(r"[0-9]{1,16}\|")


class Me(UserShape):
    """Whoever asks, and the id of the key that it asks with."""

    org: str
    key: str


class UserAsked(Model):
    """A user to make."""

    id: UserId
    name: Label
    role: UserRole = Role.MEMBER
    why: Prose | None = None


class UserChanged(Model):
    """What changes of a user; what is not named stays."""

    role: UserRole | None = None
    suspended: bool | None = None
    why: Prose | None = None


class RemoveQuery(Model):
    """How a user goes."""

    why: Prose | None = Field(None, description="It stands in the org's audit.")

    content: bool = Field(False, description="What its jobs asked and were answered goes as well.")
    cursor: Annotated[
        Cursor | None, Field(description="`next_cursor` of the reply before: go on from there.")
    ] = None


class Erased(Model):
    """Of how many jobs nothing is kept any more. If there is a `next_cursor`, there may be more:
    ask again with it."""

    erased: int
    next_cursor: str | None = None


class UserRoutes:
    """For users, and for admins: the users of their org."""

    def __init__(self, store: Store) -> None:
        self._gateway = store.gateway
        self._directory = Directory(store)
        self._singles = Singles(store.gateway)

    def routes(self) -> list[Route]:
        user: dict[str, Any] = {"who": Who.USER, "tags": ("account",)}
        admin: dict[str, Any] = {"who": Who.ADMIN, "tags": ("account",)}
        return [
            Route(
                "GET",
                "/v1/users",
                self.list_users,
                summary="Users of the org, by their id",
                query=PageQuery,
                replies={200: Page[UserShape]},
                **user,
            ),
            Route(
                "GET",
                "/v1/users/me",
                self.get_me,
                summary="Whoever asks",
                replies={200: Me},
                **user,
            ),
            Route(
                "POST",
                "/v1/users",
                self.create_user,
                summary="Make a user",
                body=UserAsked,
                replies={201: UserShape},
                problems=(409,),
                **admin,
            ),
            Route(
                "PATCH",
                "/v1/users/{id}",
                self.change_user,
                summary="Change a user's role, suspend it or lift that",
                body=UserChanged,
                replies={200: UserShape},
                problems=(409,),
                **admin,
            ),
            Route(
                "DELETE",
                "/v1/users/{id}",
                self.remove_user,
                summary="A user goes, and its keys with it; on demand what its jobs say as well",
                query=RemoveQuery,
                replies={200: Erased, 204: None},
                problems=(409,),
                **admin,
            ),
        ]

    async def list_users(self, call: Call) -> Page[UserShape]:
        query: PageQuery = call.query
        found = await self._directory.users(
            call.caller.org, after=query.cursor or "", most=query.limit
        )
        wall = wall_now(self._gateway)
        return Page[UserShape](
            data=[user_shape(one, wall) for one in found.entries],
            next_cursor=found.after and cursor_of(found.after),
        )

    async def get_me(self, call: Call) -> Me:
        who = call.caller
        user = user_shape(await self._directory.user(who.org, who.user), wall_now(self._gateway))
        return Me(**user.model_dump(), org=who.org, key=who.key)

    async def create_user(self, call: Call) -> Reply:
        who, asked = call.caller, call.body
        await self._directory.create_user(
            who.org, asked.id, asked.name, asked.role, by=who.user, why=asked.why or ""
        )
        return Reply(await self._told(who.org, asked.id), status=201)

    async def change_user(self, call: Call) -> UserShape:
        who, user, changed = call.caller, call.path["id"], call.body
        if changed.role is None and changed.suspended is None:
            raise invalid("", "name what to change: role, suspended")
        why = changed.why or ""
        if changed.suspended and user == who.user:
            raise Problem("conflict", "nobody suspends themselves: another admin has to")
        if changed.role is not None:
            await self._directory.set_role(who.org, user, changed.role, by=who.user, why=why)
        if changed.suspended is True:
            await self._directory.suspend_user(who.org, user, by=who.user, why=why)
        if changed.suspended is False:
            await self._directory.lift_user(who.org, user, by=who.user, why=why)
        return await self._told(who.org, user)

    async def remove_user(self, call: Call) -> Reply:
        """With its content: said again it goes on where it was cut off."""
        who, user, query = call.caller, call.path["id"], call.query
        if query.cursor is not None and not _MOMENT.fullmatch(query.cursor):
            raise bad_cursor()
        if query.content and user == who.user:
            raise Problem("conflict", "nobody erases themselves: another admin has to")
        gone: UnknownUser | None = None
        if query.cursor is None:  # else the user has gone, and a new one may have the id
            try:
                await self._directory.remove_user(who.org, user, by=who.user, why=query.why or "")
            except UnknownUser as unknown:
                gone = unknown
        if not query.content:
            if gone is not None:
                raise gone
            return Reply(status=204)
        erased, more = await self._erase(who.org, user, query.cursor or "")
        if gone is not None and not erased and more is None:
            raise gone  # there is nothing of such a user
        return Reply(Erased(erased=erased, next_cursor=more and cursor_of(more)))

    async def _erase(self, org: str, user: str, place: str) -> tuple[int, str | None]:
        """Erase a user's jobs from a place on; how many, and where to go on, None: all are seen.

        A page is read before those of the page ahead of it go: it is found by the last of them.
        """
        until_ms, erased = monotonic_ms() + ERASE_MS, 0
        page, more = await self._singles.page(org, before=place, most=_AT_ONCE)
        while True:
            ahead: tuple[list[Kept], str | None] = ([], None)
            if more is not None:
                ahead = await self._singles.page(org, before=more, most=_AT_ONCE)
            for kept in page:
                if orjson.loads(kept.note)["user"] == user:
                    with suppress(UnknownPart):  # it went meanwhile
                        await self._singles.erase(org, kept.id)
                        erased += 1
            if more is None:
                return erased, None
            if monotonic_ms() >= until_ms:
                return erased, more.partition("|")[0] + "|"  # of that moment there may be more
            page, more = ahead

    async def _told(self, org: str, user: str) -> UserShape:
        return user_shape(await self._directory.user(org, user), wall_now(self._gateway))

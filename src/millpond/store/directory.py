"""Orgs and their users: who there is."""

from dataclasses import dataclass
from typing import Literal

from redis.asyncio.client import Pipeline

from millpond.domain.account import USER_ROLES, Role, name_fault, org_id_fault, user_id_fault
from millpond.domain.job import Endpoint
from millpond.domain.limit import Limits
from millpond.errors import Refused, UnknownPart
from millpond.store import keys
from millpond.store.reading import Page, page_size, read_all, refuse, texts
from millpond.store.store import Changes, LaneTerms, OrgPurging, Row, Store
from millpond.store.view import OrgView, read_org

USERS_MOST = 10_000


class UserKnown(Refused):
    """A user is to be created that is there."""

    code = "user_known"

    def __init__(self, org: str, user: str) -> None:
        super().__init__(f"org {org} has a user {user!r} already; choose another id")


class UnknownUser(Refused):
    """The org has no such user, or no longer."""

    code = "unknown_user"

    def __init__(self, org: str, user: str) -> None:
        super().__init__(f"org {org} has no user {user!r}")


class TooMany(Refused):
    """There are as many as there may be."""

    code = "too_many"


class LastAdmin(Refused):
    """Nobody could look after the org any more."""

    code = "last_admin"

    def __init__(self, org: str, user: str) -> None:
        super().__init__(
            f"{user} is the last admin of org {org} who can act: first make another user its "
            "admin, or lift the suspension of one who is"
        )


@dataclass(frozen=True, slots=True)
class Org:
    id: str
    view: OrgView


@dataclass(frozen=True, slots=True)
class User:
    org: str
    id: str
    name: str
    role: Role
    suspended: bool
    created_ms: int
    by: str


class Directory:
    """The orgs of one partition, and their users."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gateway = store.gateway

    # ------------------------------------------------------------ orgs

    async def create_org(
        self,
        org: str,
        name: str,
        *,
        limits: Limits,
        quota: int | None,
        pool: str,
        by: str,
        mode: str = "limited",
        why: str = "",
    ) -> int:
        """Create an org with a lane for each endpoint; the version of its record.

        `pool`: whose workers make its calls. Raises OrgKnown and BadValue.
        """
        refuse(org_id_fault(org) or name_fault("the org's name", name))
        missing = ", ".join(endpoint for endpoint in Endpoint if endpoint not in limits)
        refuse(
            f"an org has limits for each endpoint; there are none for {missing}"
            if missing
            else None
        )
        lanes = [
            LaneTerms(
                f"{org}.{endpoint}",
                limits[endpoint],
                pool=pool,
                counted=endpoint == Endpoint.GENERATE,
            )
            for endpoint in Endpoint
        ]
        told = Changes(
            new=True,
            name=name,
            mode=mode,
            quota="none" if quota is None else quota,
            status="active",
            reserve="strict",
            lanes=lanes,
            why=why,
        )
        return await self._store.change(org, told, by=by)

    async def org(self, org: str) -> Org:
        """Raises UnknownPart."""
        return Org(org, await self._store.org(org))

    async def orgs(self, *, after: str = "", most: int = 100) -> Page[Org]:
        """All orgs by their id, those that runs made as well."""
        partition = self._gateway.partition
        every, by_id = keys.orgs(partition), keys.orgs_sorted(partition)
        pipe = self._pipe()
        pipe.scard(every)
        pipe.zcard(by_id)
        there, known = await read_all(pipe)
        if there != known:
            pipe = self._pipe()
            pipe.zunionstore(by_id, {every: 0})
            await read_all(pipe)
        found, next = await self._ids(by_id, after, most)
        pipe = self._pipe()
        for org in found:
            pipe.hgetall(keys.org(partition, org))
        told = await read_all(pipe)
        orgs = (Org(org, read_org(texts(one))) for org, one in zip(found, told, strict=True) if one)
        return Page(tuple(orgs), next)

    # ------------------------------------------------------------ users

    async def create_user(
        self, org: str, user: str, name: str, role: Role, *, by: str, why: str = ""
    ) -> int:
        """The version of the org's record. Raises UnknownPart, UserKnown, TooMany,
        OrgPurging and BadValue."""
        refuse(user_id_fault(user) or name_fault("the user's name", name) or _role_fault(role))
        return await self._user(org, user, "create", by, why, role=role, name=name)

    async def set_role(self, org: str, user: str, role: Role, *, by: str, why: str = "") -> int:
        """The version of the org's record. Raises UnknownUser, LastAdmin and BadValue."""
        refuse(_role_fault(role))
        return await self._user(org, user, "role", by, why, role=role)

    async def suspend_user(self, org: str, user: str, *, by: str, why: str = "") -> int:
        """The user's keys are good for nothing until that is lifted. Raises UnknownUser."""
        return await self._user(org, user, "suspend", by, why)

    async def lift_user(self, org: str, user: str, *, by: str, why: str = "") -> int:
        """The user's keys are good again. Raises UnknownUser."""
        return await self._user(org, user, "lift", by, why)

    async def remove_user(self, org: str, user: str, *, by: str, why: str = "") -> int:
        """The user has gone, and its API keys with it. Raises UnknownUser and LastAdmin."""
        return await self._user(org, user, "remove", by, why)

    async def user(self, org: str, user: str) -> User:
        """Raises UnknownUser."""
        pipe = self._pipe()
        pipe.hgetall(keys.user(self._gateway.partition, org, user))
        [told] = await read_all(pipe)
        if not told:
            raise UnknownUser(org, user)
        return _user(org, user, texts(told))

    async def users(self, org: str, *, after: str = "", most: int = 100) -> Page[User]:
        """An org's users by their id."""
        partition = self._gateway.partition
        found, next = await self._ids(keys.users(partition, org), after, most)
        pipe = self._pipe()
        for user in found:
            pipe.hgetall(keys.user(partition, org, user))
        told = await read_all(pipe)
        users = (_user(org, user, texts(one)) for user, one in zip(found, told, strict=True) if one)
        return Page(tuple(users), next)

    async def _user(
        self,
        org: str,
        user: str,
        how: Literal["create", "role", "suspend", "lift", "remove"],
        by: str,
        why: str,
        *,
        role: str = "",
        name: str = "",
    ) -> int:
        match await self._gateway.run("user", by, why, org, user, how, role, name, USERS_MOST):
            case [b"done", version]:
                return int(version)
            case [b"unknown", b"org"]:
                raise UnknownPart("org", org)
            case [b"unknown", b"user"]:
                raise UnknownUser(org, user)
            case [b"known"]:
                raise UserKnown(org, user)
            case [b"purging"]:
                raise OrgPurging(org)
            case [b"full"]:
                raise TooMany(
                    f"org {org} has {USERS_MOST:,} users, as many as may be: remove one first"
                )
            case [b"last_admin"]:
                raise LastAdmin(org, user)
            case other:
                raise AssertionError(f"user.lua replied {other}")

    async def _ids(self, key: str, after: str, most: int) -> tuple[list[str], str | None]:
        """Members of a sorted set after one, and the last of them if there may be more."""
        first = f"({after}" if after else "-"
        pipe = self._pipe()
        pipe.zrangebylex(key, first, "+", 0, page_size(most))
        [found] = await read_all(pipe)
        ids = [id.decode() for id in found]
        return ids, ids[-1] if len(ids) == most else None

    def _pipe(self) -> Pipeline:
        return self._gateway.redis.pipeline(transaction=False)

    # ------------------------------------------------------------ audit

    async def audit(self, *, most: int = 100, before: str = "+") -> list[Row]:
        """Changes of what belongs to no org, the newest first; those older than the row `before`.
        (An org's own: `Store.records`.)"""
        last = before if before == "+" else f"({before}"
        stream = keys.audit(self._gateway.partition)
        pipe = self._pipe()
        pipe.xrevrange(stream, last, "-", count=page_size(most))
        [found] = await read_all(pipe)
        return [Row(id.decode(), texts(fields)) for id, fields in found]


def _role_fault(role: Role) -> str | None:
    if role in USER_ROLES:
        return None
    return f"a user's role is {' or '.join(USER_ROLES)}, not {role}"


def _user(org: str, user: str, told: dict[str, str]) -> User:
    return User(
        org=org,
        id=user,
        name=told["name"],
        role=Role(told["role"]),
        suspended=told["status"] == "suspended",
        created_ms=int(told["created"]),
        by=told["by"],
    )

"""Routes of an org's own account: its users, their API keys, its audit, its fine-tuned models and
its key at the provider."""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, Field, StringConstraints

from millpond.clock import monotonic_ms
from millpond.domain.account import (
    GUIDELINES_VERSION,
    TEXT_MOST,
    Role,
    Stage,
    name_fault,
    text_fault,
    user_id_fault,
)
from millpond.errors import UnknownPart
from millpond.producer.api.wall import Wall, wall_now
from millpond.producer.http.pages import Cursor, Page, PageQuery, bad_cursor, cursor_of
from millpond.producer.http.problems import Faults, Problem, invalid
from millpond.producer.http.table import Call, Model, Name, Reply, Route, Who
from millpond.providers.catalogue import Models
from millpond.store.access import Access, AlreadyApplied, HasFullAccess
from millpond.store.api_keys import ApiKey, ApiKeys, NewKey, NotFirst, UnknownKey, UserSuspended
from millpond.store.directory import (
    Directory,
    LastAdmin,
    TooMany,
    UnknownUser,
    User,
    UserKnown,
)
from millpond.store.keyring import HELD, KNOWN_MS, let_go_on
from millpond.store.own_models import ModelTaken, OwnModels
from millpond.store.reading import BadValue
from millpond.store.sealing import NoMasterKey
from millpond.store.singles import Kept, Singles
from millpond.store.store import OrgKnown, Row, Store, WrongStage
from millpond.store.vault import KeysHidden, KeyTaken, NoKey, Vault
from millpond.store.view import OrgView

#: Fine-tuned models that an org may have.
MODELS_MOST = 1_000
#: Erasing what a user's jobs say goes on for so long in one request.
ERASE_MS = 20_000
_AT_ONCE = 200
_KEY_S_MOST = 3_650 * 86_400

_ROW = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
_MOMENT = re.compile(r"[0-9]{1,16}\|")


def no_fault(fault: Callable[[str], str | None]) -> AfterValidator:
    """A text in which a function of the domain finds no fault."""

    def check(text: str) -> str:
        wrong = fault(text)
        if wrong is not None:
            raise ValueError(wrong)
        return text

    return AfterValidator(check)


def _no_user_id(id: str) -> str | None:
    return "'me' is whoever asks: choose another id" if id == "me" else user_id_fault(id)


UserId = Annotated[str, StringConstraints(min_length=1, max_length=63), no_fault(_no_user_id)]
Label = Annotated[
    str, StringConstraints(min_length=1, max_length=200), no_fault(partial(name_fault, "it"))
]
Prose = Annotated[
    str, StringConstraints(min_length=1, max_length=TEXT_MOST), no_fault(partial(text_fault, "it"))
]
UserRole = Annotated[
    Role,
    Field(strict=False, json_schema_extra={"enum": ["member", "admin"]}),
    AfterValidator(lambda role: _of_user(role)),
]
Lifetime = Annotated[
    int, Field(ge=1, le=_KEY_S_MOST, description="Seconds that it is good for; none: no end.")
]


def _of_user(role: Role) -> Role:
    if role is Role.OPERATOR:
        raise ValueError("a user is a member or an admin")
    return role


# ---- shapes


class GuidelinesShape(Model):
    """The usage guidelines: the version that holds now, and which one the org has accepted."""

    current: str
    accepted: str | None = None
    accepted_by: str | None = None
    accepted_at: str | None = None


class ApplicationBrief(Model):
    """The latest application for full access, and where it stands."""

    number: int
    stage: Annotated[Stage, Field(strict=False)]


class OrgShape(Model):
    """An org, its access mode and its quota (characters; null: none)."""

    id: str
    name: str
    mode: str
    suspended: bool
    quota: int | None
    used: int
    estimated: int
    reserved: int
    created_at: str | None
    guidelines: GuidelinesShape
    application: ApplicationBrief | None


class UserShape(Model):
    """A user of the org. `by`: who made it."""

    id: str
    name: str
    role: Annotated[Role, Field(strict=False)]
    suspended: bool
    created_at: str | None
    by: str


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

    content: bool = Field(False, description="What its jobs asked and were answered goes as well.")
    cursor: Annotated[
        Cursor | None, Field(description="`next_cursor` of the reply before: go on from there.")
    ] = None


class Erased(Model):
    """Of how many jobs nothing is kept any more. If there is a `next_cursor`, there may be more:
    ask again with it."""

    erased: int
    next_cursor: str | None = None


class KeyShape(Model):
    """An API key, all but its text. `last_used`: the day."""

    id: str
    name: str
    user: str | None = None
    state: str
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None
    last_used: str | None
    by: str


class NewKeyShape(Model):
    """A key that was just made. `key` is told this once: nobody can tell it again."""

    id: str
    name: str
    user: str | None = None
    created_at: str | None
    expires_at: str | None
    key: str = Field(repr=False)


class KeyAsked(Model):
    """A key to make: one's own, or by an admin for a user."""

    name: Label
    expires_in_s: Lifetime | None = None
    user: Name | None = None


class KeysQuery(Model):
    """Whose keys."""

    user: Name | None = Field(None, description="For admins: of this user. None: one's own.")


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


class ModelAsked(Model):
    """A fine-tuned model: its id at the provider, and the model that it was made of."""

    id: Name
    base: Name


class OwnModel(Model):
    """A model that is the org's own."""

    id: str
    base: str


class SecretAsked(Model):
    """The org's key at the provider."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[!-~]+$")] = (
        Field(repr=False)
    )


class SecretKept(Model):
    """The key is kept sealed, and nobody can read it back. `resumed`: lanes that go on with it."""

    fingerprint: str
    resumed: list[str]


# ---- errors


def _key_taken(taken: KeyTaken) -> Problem:
    told = "another org has this key: one account at a provider has one org"
    return Problem("conflict", told, error_code=taken.code)


def _keys_hidden(hidden: KeysHidden | NoMasterKey) -> Problem:
    told = "this server cannot keep the key as it is set up: its operator has to look"
    return Problem("conflict", told, error_code=hidden.code)


def _bad_value(bad: BadValue) -> Problem:
    return Problem("invalid", str(bad), error_code=bad.code)


def _model_taken(taken: ModelTaken) -> Problem:
    return Problem(
        "conflict", "it is registered already: a model belongs to one org", error_code=taken.code
    )


def _no_key(none: NoKey) -> Problem:
    return Problem("not-found", "the org has no key at the provider", error_code=none.code)


ACCOUNT_FAULTS: Faults = {
    AlreadyApplied: "conflict",
    BadValue: _bad_value,
    HasFullAccess: "conflict",
    KeyTaken: _key_taken,
    KeysHidden: _keys_hidden,
    LastAdmin: "conflict",
    ModelTaken: _model_taken,
    NoKey: _no_key,
    NoMasterKey: _keys_hidden,
    NotFirst: "conflict",
    OrgKnown: "conflict",
    TooMany: "conflict",
    UnknownKey: "not-found",
    UnknownUser: "not-found",
    UserKnown: "conflict",
    UserSuspended: "conflict",
    WrongStage: "conflict",
}


class Accounts:
    """The handlers, and what they work with."""

    def __init__(
        self, store: Store, api_keys: ApiKeys, vault: Vault, models: Models | None
    ) -> None:
        self._store = store
        self._directory = Directory(store)
        self._access = Access(store)
        self._singles = Singles(store.gateway)
        self._own_models = OwnModels(store.gateway)
        self._api_keys = api_keys
        self._vault = vault
        self._models = models

    def routes(self) -> list[Route]:
        return [*self._people(), *self._keys(), *self._belongings()]

    def _people(self) -> list[Route]:
        user: dict[str, Any] = {"who": Who.USER, "tags": ("account",)}
        admin: dict[str, Any] = {"who": Who.ADMIN, "tags": ("account",)}
        return [
            Route(
                "GET",
                "/v1/orgs/me",
                self.get_org,
                summary="The org: its access mode, its quota, where its application stands",
                replies={200: OrgShape},
                **user,
            ),
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
            Route(
                "GET",
                "/v1/audit",
                self.get_audit,
                summary="Who changed what of the org, the latest first",
                query=PageQuery,
                replies={200: Page[AuditRow]},
                **admin,
            ),
        ]

    def _keys(self) -> list[Route]:
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

    def _belongings(self) -> list[Route]:
        admin: dict[str, Any] = {"who": Who.ADMIN, "tags": ("org",)}
        return [
            Route(
                "POST",
                "/v1/models",
                self.add_model,
                summary="A fine-tuned model is the org's own",
                body=ModelAsked,
                replies={201: OwnModel},
                problems=(409,),
                **admin,
            ),
            Route(
                "DELETE",
                "/v1/models/{id}",
                self.remove_model,
                summary="A fine-tuned model is the org's no more",
                replies={204: None},
                **admin,
            ),
            Route(
                "PUT",
                "/v1/provider-key",
                self.keep_provider_key,
                summary="The org's key at the provider; it can never be read back. Takes 5 s if "
                "lanes stand still for want of it",
                body=SecretAsked,
                replies={200: SecretKept},
                problems=(409,),
                **admin,
            ),
            Route(
                "DELETE",
                "/v1/provider-key",
                self.remove_provider_key,
                summary="The org has no key at the provider any more: its calls stand still",
                replies={204: None},
                **admin,
            ),
        ]

    # ------------------------------------------------------------ people

    async def get_org(self, call: Call) -> OrgShape:
        org = call.caller.org
        return await org_shape(
            org, await self._store.org(org), self._access, wall_now(self._store.gateway)
        )

    async def list_users(self, call: Call) -> Page[UserShape]:
        query: PageQuery = call.query
        found = await self._directory.users(
            call.caller.org, after=query.cursor or "", most=query.limit
        )
        wall = wall_now(self._store.gateway)
        return Page[UserShape](
            data=[user_shape(one, wall) for one in found.entries],
            next_cursor=found.after and cursor_of(found.after),
        )

    async def get_me(self, call: Call) -> Me:
        who = call.caller
        user = user_shape(
            await self._directory.user(who.org, who.user), wall_now(self._store.gateway)
        )
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
        gone: UnknownUser | None = None
        try:
            await self._directory.remove_user(who.org, user, by=who.user)
        except UnknownUser as unknown:
            gone = unknown
        if not query.content:
            if gone is not None:
                raise gone
            return Reply(status=204)
        erased, more = await self._erase(who.org, user, query.cursor or "")
        if gone is not None and not erased and more is None and query.cursor is None:
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
        return user_shape(await self._directory.user(org, user), wall_now(self._store.gateway))

    async def get_audit(self, call: Call) -> Page[AuditRow]:
        query: PageQuery = call.query
        rows = await self._store.records(
            call.caller.org, "audit", most=query.limit, before=before_of(query)
        )
        return audit_page(rows, query, wall_now(self._store.gateway))

    # ------------------------------------------------------------ keys

    async def list_keys(self, call: Call) -> Page[KeyShape]:
        who = call.caller
        user = call.query.user or who.user
        if user != who.user:
            _refuse_members(call)
            await self._directory.user(who.org, user)
        now_ms, wall = self._store.gateway.logical_ms(), wall_now(self._store.gateway)
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
            new_key_shape(made, asked.name, wall_now(self._store.gateway), user=user), status=201
        )

    async def revoke_key(self, call: Call) -> Reply:
        who = call.caller
        user = "" if who.role is Role.ADMIN else who.user
        await self._api_keys.revoke(call.path["id"], org=who.org, user=user, by=who.user)
        return Reply(status=204)

    # ------------------------------------------------------------ models, the provider's key

    async def add_model(self, call: Call) -> Reply:
        who, asked = call.caller, call.body
        if self._models is not None and asked.id in self._models:
            raise invalid("/id", "it is the provider's own, for everybody")
        if self._models is not None and asked.base not in self._models:
            raise invalid("/base", f"there is no such model; there are {', '.join(self._models)}")
        own = await self._own_models.of(who.org)
        if asked.id not in own and len(own) >= MODELS_MOST:
            raise TooMany(f"org {who.org} has {MODELS_MOST:,} models, as many as may be")
        await self._own_models.add(who.org, asked.id, asked.base, by=who.user)
        return Reply(OwnModel(id=asked.id, base=asked.base), status=201)

    async def remove_model(self, call: Call) -> Reply:
        who = call.caller
        await self._own_models.remove(who.org, call.path["id"], by=who.user)
        return Reply(status=204)

    async def keep_provider_key(self, call: Call) -> SecretKept:
        who = call.caller
        before = await self._vault.find(who.org)
        _, sealed = await self._vault.keep(who.org, call.body.key, by=who.user)
        resumed: list[str] = []
        removed = before is not None and before.sealed is None
        if removed or await self._stands_still(who.org):
            # Until every worker knows the new key, one may still hold a lane for the old one.
            await asyncio.sleep(KNOWN_MS / 1_000)
            resumed = await let_go_on(self._store, who.org, by=who.user)
        return SecretKept(fingerprint=sealed.fingerprint, resumed=resumed)

    async def _stands_still(self, org: str) -> bool:
        """Whether a lane waits for another key."""
        for lane in await self._store.lanes(org):
            paused = (await self._store.explain(lane=lane)).lane.paused
            if paused is not None and paused.startswith(HELD):
                return True
        return False

    async def remove_provider_key(self, call: Call) -> Reply:
        who = call.caller
        await self._vault.remove(who.org, by=who.user)
        return Reply(status=204)


def _refuse_members(call: Call) -> None:
    if call.caller.role is not Role.ADMIN:
        raise Problem("forbidden", "only admins look after the keys of others")


# ---- what accounts, access and operators have in common


def access_mode(view: OrgView) -> str:
    """An org that was given none is in limited mode."""
    return "full" if view.mode == "full" else "limited"


def guidelines_shape(view: OrgView, wall: Wall) -> GuidelinesShape:
    return GuidelinesShape(
        current=GUIDELINES_VERSION,
        accepted=view.guidelines or None,
        accepted_by=view.guidelines_by or None,
        accepted_at=wall.at(view.guidelines_at_ms or None),
    )


async def org_shape(org: str, view: OrgView, access: Access, wall: Wall) -> OrgShape:
    application = None
    if view.application:
        with suppress(UnknownPart):
            found = await access.application(org, view.application)
            application = ApplicationBrief(number=found.number, stage=found.stage)
    return OrgShape(
        id=org,
        name=view.name,
        mode=access_mode(view),
        suspended=view.suspended,
        quota=view.quota,
        used=view.used,
        estimated=view.estimated,
        reserved=view.reserved,
        created_at=wall.at(view.created_ms or None),
        guidelines=guidelines_shape(view, wall),
        application=application,
    )


def user_shape(user: User, wall: Wall) -> UserShape:
    return UserShape(
        id=user.id,
        name=user.name,
        role=user.role,
        suspended=user.suspended,
        created_at=wall.at(user.created_ms),
        by=user.by,
    )


def key_shape(key: ApiKey, now_ms: int, wall: Wall) -> KeyShape:
    """`state`: good, revoked or expired."""
    over = key.expires_ms and key.expires_ms <= now_ms
    used = wall.at(key.used_ms or None)
    return KeyShape(
        id=key.id,
        name=key.name,
        user=key.user or None,
        state="revoked" if key.revoked_ms else "expired" if over else "good",
        created_at=wall.at(key.created_ms),
        expires_at=wall.at(key.expires_ms or None),
        revoked_at=wall.at(key.revoked_ms or None),
        last_used=used and used[:10],
        by=key.by,
    )


def new_key_shape(made: NewKey, name: str, wall: Wall, *, user: str | None = None) -> NewKeyShape:
    return NewKeyShape(
        id=made.id,
        name=name,
        user=user,
        created_at=wall.at(made.created_ms),
        expires_at=wall.at(made.expires_ms or None),
        key=made.text,
    )


def before_of(query: PageQuery) -> str:
    """The row that a page of records begins behind. Raises a Problem for another list's cursor."""
    if query.cursor is not None and not _ROW.fullmatch(query.cursor):
        raise bad_cursor()
    return query.cursor or "+"


def audit_page(rows: Sequence[Row], query: PageQuery, wall: Wall) -> Page[AuditRow]:
    return Page[AuditRow](
        data=[_audit_row(row, wall) for row in rows],
        next_cursor=cursor_of(rows[-1].id) if len(rows) == query.limit else None,
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

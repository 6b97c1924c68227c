"""What the API tells of an org, its users and their API keys; to users and operators alike."""

from contextlib import suppress
from typing import Annotated

from pydantic import Field

from millpond.domain.account import GUIDELINES_VERSION, Role, Stage
from millpond.errors import UnknownPart
from millpond.producer.api.wall import Wall
from millpond.producer.http.table import Model
from millpond.store.access import Access
from millpond.store.api_keys import ApiKey, NewKey
from millpond.store.directory import User
from millpond.store.view import OrgView

# ---- org


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


# ---- user


class UserShape(Model):
    """A user of the org. `by`: who made it."""

    id: str
    name: str
    role: Annotated[Role, Field(strict=False)]
    suspended: bool
    created_at: str | None
    by: str


def user_shape(user: User, wall: Wall) -> UserShape:
    return UserShape(
        id=user.id,
        name=user.name,
        role=user.role,
        suspended=user.suspended,
        created_at=wall.at(user.created_ms),
        by=user.by,
    )


# ---- API key


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

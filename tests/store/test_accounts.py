"""set, user: orgs are created with their lanes; users come, change and go."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from conftest import TestTime, lane
from millpond.domain.account import Role
from millpond.domain.job import Class, Endpoint
from millpond.domain.limit import FULL, LIMITED
from millpond.errors import MillpondError, UnknownPart
from millpond.store.api_keys import ApiKeys, KeyChecker
from millpond.store.directory import (
    USERS_MOST,
    Directory,
    LastAdmin,
    TooMany,
    UnknownUser,
    User,
    UserKnown,
)
from millpond.store.reading import BadValue
from millpond.store.sealing import MasterKey, MasterKeys
from millpond.store.singles import Flow, Singles
from millpond.store.store import LaneTerms, OrgKnown, Row, Store
from millpond.store.view import OrgView
from store.pond import PREFIX, Pond, everything


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


@pytest.fixture
def directory(store: Store) -> Directory:
    return Directory(store)


async def create(directory: Directory, org: str = "acme", **how: Any) -> int:
    usual: dict[str, Any] = {"limits": LIMITED, "quota": 500_000, "pool": "shared", "by": "ops"}
    return await directory.create_org(org, org.title(), **usual | how)


@pytest.fixture
async def _acme(directory: Directory) -> None:
    """Org acme with an admin ann and a member bob."""
    await create(directory)
    await directory.create_user("acme", "ann", "Ann", Role.ADMIN, by="ops")
    await directory.create_user("acme", "bob", "Bob", Role.MEMBER, by="ann")


def told(row: Row) -> tuple[str, list[list[str]], str | None]:
    """Who, what and why of a row of an audit."""
    return row.fields["by"], json.loads(row.fields["changes"]), row.fields.get("why")


async def latest(pond: Pond, org: str = "acme") -> tuple[str, list[list[str]], str | None]:
    [row] = await pond.store.records(org, "audit", most=1)
    return told(row)


# ---------------------------------------------------------------- orgs


async def test_a_new_org_is_limited_and_has_accepted_no_guidelines(
    pond: Pond, directory: Directory
) -> None:
    await create(directory)

    found = await directory.org("acme")

    assert found.id == "acme"
    assert found.view == OrgView(
        quota=500_000,
        used=0,
        reserved=0,
        estimated=0,
        suspended=False,
        mode="limited",
        name="Acme",
        created_ms=pond.now_ms,
        guidelines="",
        application=0,
    )


@pytest.mark.parametrize(
    ("endpoint", "limits", "counted"),
    [
        #            calls in a minute and in a day             characters count against the quota
        ("generate", '[[60,60000,"calls",false],[50000,86400000,"calls",true]]', "1"),
        ("embed", '[[500,60000,"calls",false],[100000,86400000,"calls",true]]', "0"),
        ("classify", '[[500,60000,"calls",false],[100000,86400000,"calls",true]]', "0"),
    ],
)
async def test_a_new_org_has_a_lane_for_each_endpoint_under_limited_limits(
    pond: Pond, directory: Directory, endpoint: str, limits: str, counted: str
) -> None:
    await create(directory)

    found = await pond.fields(f"l:acme.{endpoint}")

    assert (found["org"], found["pool"]) == ("acme", "shared")
    assert (found["limits"], found["counted"]) == (limits, counted)
    assert await pond.store.lanes("acme") == ["acme.classify", "acme.embed", "acme.generate"]


async def test_an_org_and_its_lanes_are_created_in_one_step_with_one_row_of_audit(
    pond: Pond, directory: Directory
) -> None:
    version = await create(directory, why="signed up")

    rows = await pond.store.records("acme", "audit", most=10)

    assert version == 1
    [(by, changes, why)] = [told(row) for row in rows]
    assert (by, why) == ("ops", "signed up")
    named = {(what, id, field): new for what, id, field, _, new in changes}
    assert named["org", "acme", "mode"] == "limited"
    assert named["org", "acme", "quota"] == "500000"
    assert named["org", "acme", "name"] == "Acme"
    for endpoint in Endpoint:
        assert ("lane", f"acme.{endpoint}", "limits") in named


async def test_jobs_go_through_the_lane_of_a_new_org(pond: Pond, directory: Directory) -> None:
    """Limits that a flow brings do not take the place of the org's."""
    await create(directory)
    brought = replace(lane("100/60s", quota=500_000), pool="shared", if_new=True)
    await pond.store.set_flow("f", brought, attempts=3, crashes=3)
    await pond.accept(*(f"j{i}" for i in range(100)))
    await pond.beat(free=100, pool="shared")

    assert (await pond.release())[0] == 60


async def test_an_org_that_is_there_is_not_created_again(
    pond: Pond, directory: Directory, redis: Redis
) -> None:
    await create(directory)
    before = await everything(redis)

    with pytest.raises(OrgKnown, match="there is an org 'acme' already"):
        await create(directory, mode="full", quota=None, limits=FULL)

    assert await everything(redis) == before


async def test_of_two_that_create_an_org_at_once_one_does(pond: Pond) -> None:
    directories = [Directory(pond.another_store()) for _ in range(5)]

    made = await asyncio.gather(*(create(one) for one in directories), return_exceptions=True)

    assert sorted(type(one).__name__ for one in made) == ["OrgKnown"] * 4 + ["int"]
    assert len(await pond.store.records("acme", "audit", most=10)) == 1


@pytest.mark.parametrize(
    ("org", "how", "message"),
    [
        ("Acme", {}, "cannot be an org's id"),
        ("a.b", {}, "cannot be an org's id"),
        ("", {}, "cannot be an org's id"),
        ("acme", {"limits": {Endpoint.EMBED: LIMITED[Endpoint.EMBED]}}, "generate, classify"),
    ],
)
async def test_an_org_that_cannot_be_is_refused_and_changes_nothing(
    directory: Directory, redis: Redis, org: str, how: dict[str, Any], message: str
) -> None:
    before = await everything(redis)

    with pytest.raises(BadValue, match=message):
        await create(directory, org, **how)

    assert await everything(redis) == before


async def test_orgs_are_listed_by_id_page_by_page_those_of_runs_as_well(
    pond: Pond, directory: Directory
) -> None:
    for org in ("delta", "acme", "beta"):
        await create(directory, org)
    await pond.open(org="c0ffee99")  # as a run makes it: of a digest

    first = await directory.orgs(most=2)
    second = await directory.orgs(after=first.after or "", most=2)
    await create(directory, "aaa")
    every = await directory.orgs()

    assert [org.id for org in first.entries] == ["acme", "beta"]
    assert [(org.id, org.view.name) for org in second.entries] == [
        ("c0ffee99", ""),
        ("delta", "Delta"),
    ]
    assert (await directory.orgs(after=second.after or "", most=2)).entries == ()
    assert [org.id for org in every.entries] == ["aaa", "acme", "beta", "c0ffee99", "delta"]
    assert every.after is None


async def test_no_org_is_not_told_as_an_empty_one(directory: Directory) -> None:
    with pytest.raises(UnknownPart):
        await directory.org("gone")
    assert (await directory.orgs()).entries == ()
    with pytest.raises(BadValue, match="1 to 1,000 entries"):
        await directory.orgs(most=0)


# ---------------------------------------------------------------- lanes that change together


async def test_lanes_change_together_or_not_at_all(
    pond: Pond, directory: Directory, redis: Redis
) -> None:
    """One of three is another org's: the mode, the quota and the others stay as they are."""
    await create(directory)
    await create(directory, "beta")
    before = await everything(redis)
    lanes = [
        LaneTerms("acme.generate", FULL[Endpoint.GENERATE]),
        LaneTerms("beta.embed", FULL[Endpoint.EMBED]),
    ]

    with pytest.raises(UnknownPart, match=r"no lane 'beta\.embed'"):
        await pond.change(mode="full", quota="none", lanes=lanes)

    assert await everything(redis) == before


async def test_why_stands_in_the_audit_and_what_says_no_why_has_none(
    pond: Pond, directory: Directory
) -> None:
    await create(directory)
    await pond.change(quota=7, why="asked for")
    assert await latest(pond) == ("ann", [["org", "acme", "quota", "500000", "7"]], "asked for")
    await pond.change(quota=8)
    assert await latest(pond) == ("ann", [["org", "acme", "quota", "7", "8"]], None)


# ---------------------------------------------------------------- users


@pytest.mark.usefixtures("_acme")
async def test_users_are_told_by_id_page_by_page(pond: Pond, directory: Directory) -> None:
    await directory.create_user("acme", "Zoe@acme.org", "Zoë", Role.MEMBER, by="ann")

    first = await directory.users("acme", most=2)
    second = await directory.users("acme", after=first.after or "", most=2)

    assert [user.id for user in first.entries] == ["Zoe@acme.org", "ann"]
    assert second.entries == (
        User("acme", "bob", "Bob", Role.MEMBER, suspended=False, created_ms=pond.now_ms, by="ann"),
    )
    assert second.after is None
    assert await directory.user("acme", "bob") == second.entries[0]


@pytest.mark.usefixtures("_acme")
async def test_a_user_id_is_unique_within_its_org(directory: Directory, redis: Redis) -> None:
    await create(directory, "beta")
    await directory.create_user("beta", "bob", "Another Bob", Role.ADMIN, by="ops")
    before = await everything(redis)

    with pytest.raises(UserKnown, match="org acme has a user 'bob' already"):
        await directory.create_user("acme", "bob", "Bob II", Role.ADMIN, by="ann")

    assert await everything(redis) == before
    assert (await directory.user("acme", "bob")).name == "Bob"


@pytest.mark.usefixtures("_acme")
async def test_of_two_that_create_a_user_at_once_one_does(pond: Pond) -> None:
    made = await asyncio.gather(
        *(
            Directory(pond.another_store()).create_user("acme", "eve", "Eve", role, by="ann")
            for role in (Role.MEMBER, Role.ADMIN, Role.MEMBER)
        ),
        return_exceptions=True,
    )

    assert sorted(type(one).__name__ for one in made) == ["UserKnown", "UserKnown", "int"]


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize(
    ("org", "user", "name", "role", "error"),
    [
        ("gone", "eve", "Eve", Role.MEMBER, UnknownPart),
        ("acme", "", "Eve", Role.MEMBER, BadValue),
        ("acme", "e:ve", "Eve", Role.MEMBER, BadValue),
        ("acme", "eve", "", Role.MEMBER, BadValue),
        ("acme", "eve", "Eve", Role.OPERATOR, BadValue),
    ],
)
async def test_a_user_that_cannot_be_is_refused_and_changes_nothing(
    directory: Directory,
    redis: Redis,
    org: str,
    user: str,
    name: str,
    role: Role,
    error: type[MillpondError],
) -> None:
    before = await everything(redis)

    with pytest.raises(error):
        await directory.create_user(org, user, name, role, by="ann")

    assert await everything(redis) == before


@pytest.mark.usefixtures("_acme")
async def test_an_org_has_so_many_users_at_most(
    directory: Directory, redis: Redis, pond: Pond
) -> None:
    many = [item for i in range(USERS_MOST - 2) for item in (0, f"u{i}")]
    await pond.command("ZADD", f"{PREFIX}o:acme:users", *many)
    before = await everything(redis)

    with pytest.raises(TooMany, match="10,000 users"):
        await directory.create_user("acme", "eve", "Eve", Role.MEMBER, by="ann")

    assert await everything(redis) == before


@pytest.mark.usefixtures("_acme")
async def test_each_change_of_a_user_has_its_row_with_who_and_why(
    pond: Pond, directory: Directory
) -> None:
    await directory.set_role("acme", "bob", Role.ADMIN, by="ann", why="helps")
    await directory.suspend_user("acme", "bob", by="ann", why="on leave")
    await directory.lift_user("acme", "bob", by="ann", why="back")
    version = await directory.remove_user("acme", "bob", by="ops", why="left")

    rows = await pond.store.records("acme", "audit", most=5)

    assert [told(row) for row in rows] == [
        ("ops", [["user", "bob", "role", "admin", ""]], "left"),
        ("ann", [["user", "bob", "status", "suspended", "active"]], "back"),
        ("ann", [["user", "bob", "status", "active", "suspended"]], "on leave"),
        ("ann", [["user", "bob", "role", "member", "admin"]], "helps"),
        (
            "ann",
            [
                ["user", "bob", "name", "", "Bob"],
                ["user", "bob", "role", "", "member"],
                ["user", "bob", "status", "", "active"],
            ],
            None,
        ),
    ]
    assert int(rows[0].fields["version"]) == version


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("how", ["set_role", "suspend_user", "lift_user"])
async def test_what_is_so_already_changes_nothing(
    directory: Directory, redis: Redis, how: str
) -> None:
    more: dict[str, Any] = {"role": Role.MEMBER} if how == "set_role" else {}
    if how == "suspend_user":
        await directory.suspend_user("acme", "bob", by="ann")
    before = await everything(redis)

    await getattr(directory, how)("acme", "bob", **more, by="eve")

    assert await everything(redis) == before


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("how", ["set_role", "suspend_user", "lift_user", "remove_user"])
async def test_of_a_user_that_is_not_there_nothing_changes(
    directory: Directory, redis: Redis, how: str
) -> None:
    more: dict[str, Any] = {"role": Role.ADMIN} if how == "set_role" else {}
    before = await everything(redis)

    with pytest.raises(UnknownUser):
        await getattr(directory, how)("acme", "gone", **more, by="ann")
    with pytest.raises(UnknownPart):
        await getattr(directory, how)("gone", "bob", **more, by="ann")

    assert await everything(redis) == before


@pytest.mark.usefixtures("_acme")
async def test_the_keys_of_a_user_who_is_removed_are_gone_at_once_and_its_audit_stays(
    pond: Pond, directory: Directory
) -> None:
    masters = MasterKeys([MasterKey(bytes(range(32)))])
    api_keys = ApiKeys(pond.store.gateway, masters)
    one = await api_keys.make("acme", "bob", "laptop", by="bob")
    two = await api_keys.make("acme", "bob", "server", by="bob")
    hers = await api_keys.make("acme", "ann", "laptop", by="ann")

    await directory.remove_user("acme", "bob", by="ann", why="left")

    checker = KeyChecker(api_keys, pond.time.monotonic_ms)
    assert await checker.identity(one.text) is None
    assert await checker.identity(two.text) is None
    assert await checker.identity(hers.text)
    assert await pond.keys_of("o:acme:u:bob") == []
    by, changes, why = await latest(pond)
    assert (by, why) == ("ann", "left")
    assert ["user", "bob", "role", "member", ""] in changes
    assert sorted(change[1] for change in changes if change[0] == "api key") == sorted(
        (one.id, two.id)
    )
    rows = await pond.store.records("acme", "audit", most=100)
    assert any(["user", "bob", "name", "", "Bob"] in told(row)[1] for row in rows)


@pytest.mark.usefixtures("_acme")
async def test_who_comes_back_under_the_same_id_has_none_of_the_old_keys(
    pond: Pond, directory: Directory
) -> None:
    masters = MasterKeys([MasterKey(bytes(range(32)))])
    api_keys = ApiKeys(pond.store.gateway, masters)
    old = await api_keys.make("acme", "bob", "laptop", by="bob")
    await directory.remove_user("acme", "bob", by="ann")

    await directory.create_user("acme", "bob", "Another Bob", Role.MEMBER, by="ann")

    assert await api_keys.of("acme", "bob") == []
    assert await KeyChecker(api_keys, pond.time.monotonic_ms).identity(old.text) is None


# ---------------------------------------------------------------- the last admin


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("other", ["none", "a member", "suspended", "removed"])
async def test_the_last_admin_can_neither_be_removed_nor_made_a_member(
    directory: Directory, redis: Redis, other: str
) -> None:
    if other != "none":
        role = Role.MEMBER if other == "a member" else Role.ADMIN
        await directory.create_user("acme", "eve", "Eve", role, by="ann")
    if other == "suspended":
        await directory.suspend_user("acme", "eve", by="ann")
    if other == "removed":
        await directory.remove_user("acme", "eve", by="ann")
    before = await everything(redis)

    with pytest.raises(LastAdmin, match="first make another user its admin"):
        await directory.remove_user("acme", "ann", by="ops")
    with pytest.raises(LastAdmin):
        await directory.set_role("acme", "ann", Role.MEMBER, by="ops")

    assert await everything(redis) == before


@pytest.mark.usefixtures("_acme")
async def test_one_of_two_admins_can_go(directory: Directory) -> None:
    await directory.set_role("acme", "bob", Role.ADMIN, by="ann")

    await directory.remove_user("acme", "ann", by="bob")

    with pytest.raises(LastAdmin):
        await directory.set_role("acme", "bob", Role.MEMBER, by="bob")


@pytest.mark.usefixtures("_acme")
async def test_a_suspended_admin_goes_once_there_is_another(directory: Directory) -> None:
    """Whom an operator suspends may be the last: nobody is left, until there is another."""
    await directory.suspend_user("acme", "ann", by="ops")
    with pytest.raises(LastAdmin):
        await directory.remove_user("acme", "ann", by="ops")
    await directory.set_role("acme", "bob", Role.ADMIN, by="ops")

    await directory.remove_user("acme", "ann", by="ops")

    assert [user.id for user in (await directory.users("acme")).entries] == ["bob"]


@pytest.mark.usefixtures("_acme")
async def test_of_two_admins_who_remove_each_other_at_once_one_stays(
    pond: Pond, directory: Directory
) -> None:
    await directory.set_role("acme", "bob", Role.ADMIN, by="ann")

    done = await asyncio.gather(
        Directory(pond.another_store()).remove_user("acme", "bob", by="ann"),
        Directory(pond.another_store()).set_role("acme", "ann", Role.MEMBER, by="bob"),
        return_exceptions=True,
    )

    assert sorted(type(one).__name__ for one in done) == ["LastAdmin", "int"]
    assert len(await pond.members("o:acme:admins")) == 1


# ---------------------------------------------------------------- single jobs of an org


@pytest.mark.parametrize(
    ("org", "lane", "message"),
    [
        ("gone", "gone.generate", "no org 'gone'"),
        ("acme", "acme.rerank", r"no lane 'acme\.rerank'"),
        ("acme", "beta.generate", r"no lane 'beta\.generate'"),
    ],
)
async def test_single_jobs_join_only_a_lane_of_their_own_org(
    pond: Pond, directory: Directory, redis: Redis, org: str, lane: str, message: str
) -> None:
    await create(directory)
    await create(directory, "beta")
    before = await everything(redis)

    with pytest.raises(UnknownPart, match=message):
        await Singles(pond.store.gateway).open(
            Flow("s", org, lane, "ann", Class.BULK, 3, 3, 1, b"{}"), by="api"
        )

    assert await everything(redis) == before

"""mint, revoke, identify, used: API keys are kept as marks, and tell who a caller is."""

import asyncio
import hmac
import json
import logging
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.account import Identity, Role
from millpond.domain.limit import LIMITED
from millpond.errors import MillpondError, StoreUnavailable, UnknownPart
from millpond.store.api_keys import (
    KEYS_MOST,
    ApiKey,
    ApiKeys,
    KeyChecker,
    LastOperator,
    NewKey,
    NotFirst,
    UnknownKey,
    UserSuspended,
)
from millpond.store.directory import Directory, TooMany, UnknownUser
from millpond.store.key_text import Kind, make_key_text
from millpond.store.reading import BadValue
from millpond.store.sealing import MasterKey, MasterKeys, NoMasterKey
from millpond.store.store import Row, Store
from store.pond import Pond, everything

OLD, NEW = MasterKey(bytes(range(32))), MasterKey(bytes(range(32, 64)))
DAY_MS = 86_400_000


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


@pytest.fixture
def directory(store: Store) -> Directory:
    return Directory(store)


@pytest.fixture
async def _users(directory: Directory) -> None:
    """Org acme with an admin ann and a member bob, org beta with eve."""
    for org in ("acme", "beta"):
        await directory.create_org(
            org, org.title(), limits=LIMITED, quota=500_000, pool="shared", by="ops"
        )
    await directory.create_user("acme", "ann", "Ann", Role.ADMIN, by="ops")
    await directory.create_user("acme", "bob", "Bob", Role.MEMBER, by="ann")
    await directory.create_user("beta", "eve", "Eve", Role.ADMIN, by="ops")


def api_keys(pond: Pond, *masters: MasterKey) -> ApiKeys:
    return ApiKeys(pond.store.gateway, MasterKeys(masters) if masters else None)


def checker(pond: Pond, *masters: MasterKey) -> KeyChecker:
    return KeyChecker(api_keys(pond, *(masters or (OLD,))), pond.time.monotonic_ms)


async def bobs(pond: Pond, *masters: MasterKey, good_ms: int = 0) -> NewKey:
    found = api_keys(pond, *(masters or (OLD,)))
    return await found.make("acme", "bob", "laptop", by="bob", good_ms=good_ms)


def told(row: Row) -> tuple[str, list[list[str]], str | None]:
    """Who, what and why of a row of an audit."""
    return row.fields["by"], json.loads(row.fields["changes"]), row.fields.get("why")


async def latest(pond: Pond, org: str = "acme") -> tuple[str, list[list[str]], str | None]:
    [row] = await pond.store.records(org, "audit", most=1)
    return told(row)


# ---------------------------------------------------------------- making


@pytest.mark.usefixtures("_users")
async def test_a_key_says_whose_it_is(pond: Pond) -> None:
    key = await bobs(pond)

    identity = await checker(pond).identity(key.text)

    assert identity == Identity(key.id, Role.MEMBER, "acme", "bob")


@pytest.mark.usefixtures("_users")
async def test_a_keys_text_is_told_once_and_is_nowhere_else(
    pond: Pond, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = await bobs(pond)
    secret = key.text[17:]
    await checker(pond).identity(key.text)
    [listed] = await api_keys(pond, OLD).of("acme", "bob")

    assert secret not in repr(key)
    assert secret not in f"{key} {listed}"
    assert secret not in str(await everything(redis))
    assert secret not in caplog.text


@pytest.mark.usefixtures("_users")
async def test_all_that_is_kept_of_a_key_is_its_mark_and_whose_it_is(pond: Pond) -> None:
    key = await bobs(pond, good_ms=90 * DAY_MS)

    assert await pond.fields(f"k:{key.id}") == {
        "kind": "mpk",
        "org": "acme",
        "user": "bob",
        "name": "laptop",
        "by": "bob",
        "created": str(pond.now_ms),
        "expires": str(pond.now_ms + 90 * DAY_MS),
        "revoked": "0",
        "used": "0",
        "master": OLD.name,
        "mark": OLD.mark_api_key(key.text),
    }
    assert await api_keys(pond).of("acme", "bob") == [
        ApiKey(
            id=key.id,
            kind=Kind.USER,
            org="acme",
            user="bob",
            name="laptop",
            created_ms=pond.now_ms,
            expires_ms=pond.now_ms + 90 * DAY_MS,
            revoked_ms=0,
            used_ms=0,
            by="bob",
            master=OLD.name,
        )
    ]


@pytest.mark.usefixtures("_users")
async def test_the_audit_says_who_made_and_revoked_a_key_and_holds_neither_text_nor_mark(
    pond: Pond,
) -> None:
    key = await bobs(pond)
    made = await latest(pond)
    await api_keys(pond).revoke(key.id, org="acme", by="ann", why="he left")

    assert made == (
        "bob",
        [
            ["api key", key.id, "name", "", "laptop"],
            ["api key", key.id, "user", "", "bob"],
            ["api key", key.id, "expires", "", "0"],
        ],
        None,
    )
    assert await latest(pond) == (
        "ann",
        [["api key", key.id, "revoked", "", str(pond.now_ms)]],
        "he left",
    )
    rows = str(await pond.store.records("acme", "audit", most=100))
    assert OLD.mark_api_key(key.text) not in rows
    assert key.text[17:] not in rows


@pytest.mark.usefixtures("_users")
async def test_without_a_master_key_there_are_no_api_keys_and_the_error_says_the_way_out(
    pond: Pond, redis: Redis
) -> None:
    before = await everything(redis)

    with pytest.raises(NoMasterKey, match="MILLPOND_MASTER_KEY") as refused:
        await api_keys(pond).make("acme", "bob", "laptop", by="bob")
    with pytest.raises(NoMasterKey, match="openssl rand"):
        await api_keys(pond).first_operator("ops", by="root")
    with pytest.raises(NoMasterKey):
        KeyChecker(api_keys(pond))

    assert "API keys" in str(refused.value)
    assert "provider keys" not in str(refused.value)
    assert await everything(redis) == before


@pytest.mark.usefixtures("_users")
@pytest.mark.parametrize(
    ("org", "user", "name", "error"),
    [
        ("gone", "bob", "laptop", UnknownPart),
        ("acme", "gone", "laptop", UnknownUser),
        ("acme", "eve", "laptop", UnknownUser),
        ("acme", "bob", "", BadValue),
        ("acme", "bob", "two\nlines", BadValue),
    ],
)
async def test_a_key_for_nobody_is_refused_and_changes_nothing(
    pond: Pond, redis: Redis, org: str, user: str, name: str, error: type[MillpondError]
) -> None:
    before = await everything(redis)

    with pytest.raises(error):
        await api_keys(pond, OLD).make(org, user, name, by="ann")

    assert await everything(redis) == before


@pytest.mark.usefixtures("_users")
async def test_who_is_suspended_gets_no_key(pond: Pond, redis: Redis, directory: Directory) -> None:
    await directory.suspend_user("acme", "bob", by="ann")
    before = await everything(redis)

    with pytest.raises(UserSuspended):
        await bobs(pond)

    assert await everything(redis) == before


@pytest.mark.usefixtures("_users")
async def test_a_user_has_a_hundred_keys_and_one_that_is_over_makes_room_after_a_day(
    pond: Pond, redis: Redis
) -> None:
    made = [await bobs(pond, good_ms=DAY_MS if i == 7 else 0) for i in range(KEYS_MOST)]
    before = await everything(redis)
    with pytest.raises(TooMany, match="100 keys that are good"):
        await bobs(pond)
    assert await everything(redis) == before

    await api_keys(pond).revoke(made[3].id, org="acme", by="bob")
    with pytest.raises(TooMany):  # it is of today: keys that come and go would fill the audit
        await bobs(pond)
    await pond.jump(DAY_MS)
    one, other = await bobs(pond), await bobs(pond)

    with pytest.raises(TooMany):
        await bobs(pond)
    left = {key.id for key in await api_keys(pond).of("acme", "bob")}
    assert left == {key.id for key in [*made, one, other]} - {made[3].id, made[7].id}
    assert await pond.keys_of(f"k:{made[3].id}") == []
    assert await checker(pond).identity(made[3].text) is None
    assert await checker(pond).identity(other.text)


# ---------------------------------------------------------------- checking


class Counting:
    """A gateway that counts what it is asked, and can be away."""

    def __init__(self, pond: Pond) -> None:
        self._gateway = pond.store.gateway
        self.asked: list[str] = []
        self.away: bool | str = False

    @property
    def now_ms(self) -> int:
        return self._gateway.now_ms

    async def run(self, name: str, *args: Any) -> Any:
        self.asked.append(name)
        if self.away in (True, name):
            raise StoreUnavailable("away")
        return await self._gateway.run(name, *args)


def counting(pond: Pond, *masters: MasterKey) -> tuple[Counting, KeyChecker]:
    gateway = Counting(pond)
    known = ApiKeys(gateway, MasterKeys(masters or (OLD,)))  # type: ignore[arg-type]
    return gateway, KeyChecker(known, pond.time.monotonic_ms)


@pytest.mark.usefixtures("_users")
async def test_a_mistyped_key_is_refused_without_asking_the_server(pond: Pond) -> None:
    gateway, keys = counting(pond)
    text = (await bobs(pond)).text

    for wrong in ("", "Bearer", text[:-1], text[:-1] + "~", text.swapcase(), text + " "):
        assert await keys.identity(wrong) is None

    assert gateway.asked == []


@pytest.mark.usefixtures("_users")
async def test_another_secret_for_a_known_id_is_nobodys(pond: Pond) -> None:
    """Its checksum is right: only the mark tells."""
    key = await bobs(pond)
    name, other = make_key_text(Kind.USER)
    await pond.command("RENAME", f"mp:t:k:{key.id}", f"mp:t:k:{name.id}")

    assert await checker(pond).identity(other) is None


@pytest.mark.usefixtures("_users")
async def test_a_key_of_unknown_id_is_as_much_work_as_one_of_a_known_id(
    pond: Pond, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is asked once, one mark is made, and one is compared in constant time."""
    work: list[str] = []
    compare, mark = hmac.compare_digest, MasterKey.mark_api_key

    def comparing(one: str, other: str) -> bool:
        work.append(f"compare {len(one)} with {len(other)}")
        return compare(one, other)

    def marking(self: MasterKey, text: str) -> str:
        work.append(f"mark under {self.name}")
        return mark(self, text)

    key = await bobs(pond)
    name, unknown = make_key_text(Kind.USER)
    other, wrong = make_key_text(Kind.USER)
    fields = await pond.fields(f"k:{key.id}")
    await pond.command("HSET", f"mp:t:k:{other.id}", *(x for pair in fields.items() for x in pair))
    assert await checker(pond).identity(key.text)  # its first use has been noted
    monkeypatch.setattr(hmac, "compare_digest", comparing)
    monkeypatch.setattr(MasterKey, "mark_api_key", marking)
    gateway, keys = counting(pond)

    found = []
    for text in (key.text, unknown, wrong):
        found.append(await keys.identity(text))
        assert work == [f"mark under {OLD.name}", "compare 64 with 64"]
        assert gateway.asked == ["identify"]
        work.clear()
        gateway.asked.clear()

    assert found[0] is not None
    assert found[1:] == [None, None]
    assert name.id != other.id


@pytest.mark.usefixtures("_users")
async def test_a_key_is_looked_up_once_in_five_seconds(pond: Pond) -> None:
    gateway, keys = counting(pond)
    text = (await bobs(pond)).text

    for _ in range(3):
        assert await keys.identity(text)
    assert gateway.asked == ["identify", "used"]
    await pond.jump(4_999)
    assert await keys.identity(text)
    assert gateway.asked == ["identify", "used"]
    await pond.jump(1)
    assert await keys.identity(text)
    assert gateway.asked == ["identify", "used", "identify"]


@pytest.mark.usefixtures("_users")
@pytest.mark.parametrize("how", ["revoked", "suspended", "removed", "expired"])
async def test_five_seconds_after_a_key_came_to_its_end_nobody_believes_it(
    pond: Pond, directory: Directory, how: str
) -> None:
    key = await bobs(pond, good_ms=3_000 if how == "expired" else 0)
    keys = checker(pond)
    assert await keys.identity(key.text)

    if how == "revoked":
        await api_keys(pond).revoke(key.id, org="acme", by="ann")
    if how == "suspended":
        await directory.suspend_user("acme", "bob", by="ann")
    if how == "removed":
        await directory.remove_user("acme", "bob", by="ann")
    await pond.jump(3_000 if how == "expired" else 5_000)

    assert await keys.identity(key.text) is None


@pytest.mark.usefixtures("_users")
async def test_a_user_whose_suspension_is_lifted_is_known_again_within_a_second(
    pond: Pond, directory: Directory
) -> None:
    key = await bobs(pond)
    keys = checker(pond)
    await directory.suspend_user("acme", "bob", by="ann")
    assert await keys.identity(key.text) is None

    await directory.lift_user("acme", "bob", by="ann")
    await pond.jump(1_000)

    assert await keys.identity(key.text)


@pytest.mark.usefixtures("_users")
async def test_a_new_role_holds_within_five_seconds(pond: Pond, directory: Directory) -> None:
    key = await bobs(pond)
    keys = checker(pond)
    assert (await keys.identity(key.text) or Identity("", Role.ADMIN)).role == Role.MEMBER

    await directory.set_role("acme", "bob", Role.ADMIN, by="ann")
    await pond.jump(5_000)

    assert (await keys.identity(key.text) or Identity("", Role.MEMBER)).role == Role.ADMIN


@pytest.mark.usefixtures("_users")
async def test_a_key_that_is_nobodys_is_looked_up_once_a_second(pond: Pond) -> None:
    gateway, keys = counting(pond)
    _, text = make_key_text(Kind.USER)

    for _ in range(3):
        assert await keys.identity(text) is None
    assert gateway.asked == ["identify"]
    await pond.jump(1_000)
    assert await keys.identity(text) is None
    assert gateway.asked == ["identify", "identify"]


@pytest.mark.usefixtures("_users")
async def test_what_is_remembered_is_bounded_and_holds_no_key(
    pond: Pond, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millpond.store.api_keys._KNOWN_MOST", 3)
    gateway, keys = counting(pond)
    good = (await bobs(pond)).text
    assert await keys.identity(good)

    wrong = [make_key_text(Kind.USER)[1] for _ in range(10)]
    for text in wrong:
        assert await keys.identity(text) is None

    assert len(keys._bad) == 3
    gateway.asked.clear()
    assert await keys.identity(good)  # wrong ones, however many, drive out no good one
    assert gateway.asked == []
    remembered = repr([vars(keys._good), vars(keys._bad)])
    assert not any(text[17:] in remembered for text in [good, *wrong])


@pytest.mark.usefixtures("_users")
async def test_while_the_server_is_away_a_key_is_believed_for_its_five_seconds_only(
    pond: Pond,
) -> None:
    gateway, keys = counting(pond)
    text = (await bobs(pond)).text
    assert await keys.identity(text)

    gateway.away = True

    assert await keys.identity(text)
    await pond.jump(5_000)
    with pytest.raises(StoreUnavailable):
        await keys.identity(text)


@pytest.mark.usefixtures("_users")
async def test_a_key_is_good_even_if_its_use_cannot_be_noted(pond: Pond) -> None:
    gateway, keys = counting(pond, NEW, OLD)
    key = await bobs(pond, OLD)
    gateway.away = "used"

    assert await keys.identity(key.text)

    assert gateway.asked == ["identify", "used"]
    assert await pond.field(f"k:{key.id}", "master") == OLD.name


@pytest.mark.usefixtures("_users")
@pytest.mark.parametrize("good_ms", [-1, 10**12])
async def test_a_key_is_good_for_ten_years_at_most(pond: Pond, redis: Redis, good_ms: int) -> None:
    before = await everything(redis)

    with pytest.raises(BadValue, match="a key is good for"):
        await bobs(pond, good_ms=good_ms)

    assert await everything(redis) == before


# ---------------------------------------------------------------- revoking


@pytest.mark.usefixtures("_users")
async def test_a_key_is_revoked_even_while_the_servers_memory_is_full(
    pond: Pond, redis: Redis
) -> None:
    key = await bobs(pond)
    await redis.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(StoreUnavailable):
            await bobs(pond)
        await api_keys(pond).revoke(key.id, org="acme", by="ann")
        assert await checker(pond).identity(key.text) is None
    finally:
        await redis.config_set("maxmemory", "0")


@pytest.mark.usefixtures("_users")
async def test_a_key_of_another_org_or_user_is_as_unknown_as_none(pond: Pond, redis: Redis) -> None:
    key = await bobs(pond)
    ops = await api_keys(pond, OLD).make_operator("ops", by="root")
    before = await everything(redis)

    errors = []
    for id, how in (
        (key.id, {"org": "beta"}),
        (key.id, {"org": "acme", "user": "ann"}),
        (key.id, {"org": ""}),
        (ops.id, {"org": "acme"}),
        (ops.id, {"org": ""}),
        ("aaaaaaaaaaaa", {"org": "acme"}),
    ):
        with pytest.raises(UnknownKey) as refused:
            await api_keys(pond).revoke(id, by="eve", **how)
        errors.append(str(refused.value).replace(id, "ID"))
    with pytest.raises(UnknownKey):
        await api_keys(pond).revoke_operator(key.id, by="ops")

    assert len(set(errors)) == 1
    assert await everything(redis) == before


@pytest.mark.usefixtures("_users")
async def test_revoking_twice_is_revoking_once(pond: Pond, redis: Redis) -> None:
    key = await bobs(pond)
    await api_keys(pond).revoke(key.id, org="acme", user="bob", by="bob")
    before = await everything(redis)

    await pond.jump(1_000)
    await api_keys(pond).revoke(key.id, org="acme", by="ann")

    assert await everything(redis) == before


# ---------------------------------------------------------------- use, rotation


@pytest.mark.usefixtures("_users")
async def test_the_day_of_the_last_use_is_written_once_a_day_and_only_after_success(
    pond: Pond,
) -> None:
    key = await bobs(pond)
    today = pond.now_ms // DAY_MS * DAY_MS
    gateway, keys = counting(pond)
    name, wrong = make_key_text(Kind.USER)
    await pond.command("COPY", f"mp:t:k:{key.id}", f"mp:t:k:{name.id}")
    assert await keys.identity(wrong) is None
    assert await pond.field(f"k:{name.id}", "used") == "0"

    for _ in range(3):
        await pond.jump(6_000)
        assert await keys.identity(key.text)
    assert gateway.asked.count("used") == 1
    assert await pond.field(f"k:{key.id}", "used") == str(today)
    assert (await api_keys(pond).of("acme", "bob"))[0].used_ms == today

    await pond.jump(DAY_MS)
    assert await keys.identity(key.text)
    assert await pond.field(f"k:{key.id}", "used") == str(today + DAY_MS)


@pytest.mark.usefixtures("_users")
async def test_with_a_newer_master_key_an_older_mark_is_good_and_is_made_anew(
    pond: Pond,
) -> None:
    key = await bobs(pond, OLD)

    assert await checker(pond, NEW, OLD).identity(key.text)

    fields = await pond.fields(f"k:{key.id}")
    assert (fields["master"], fields["mark"]) == (NEW.name, NEW.mark_api_key(key.text))
    assert await latest(pond) == (
        "rotation",
        [["api key", key.id, "master", OLD.name, NEW.name]],
        None,
    )
    assert await checker(pond, NEW).identity(key.text)  # the old master key may go
    assert await checker(pond, OLD).identity(key.text) is None


@pytest.mark.usefixtures("_users")
async def test_a_wrong_secret_does_not_rotate_a_mark(pond: Pond, redis: Redis) -> None:
    key = await bobs(pond, OLD)
    name, wrong = make_key_text(Kind.USER)
    await pond.command("RENAME", f"mp:t:k:{key.id}", f"mp:t:k:{name.id}")
    before = await everything(redis)

    assert await checker(pond, NEW, OLD).identity(wrong) is None

    assert await everything(redis) == before


@pytest.mark.usefixtures("_users")
async def test_two_that_rotate_one_mark_at_once_write_it_once(pond: Pond) -> None:
    key = await bobs(pond, OLD)

    found = await asyncio.gather(
        *(checker(pond, NEW, OLD).identity(key.text) for _ in range(5)),
    )

    assert all(found)
    rows = await pond.store.records("acme", "audit", most=100)
    assert [told(row)[0] for row in rows].count("rotation") == 1


@pytest.mark.usefixtures("_users")
async def test_a_use_that_is_noted_late_does_not_bring_a_removed_key_back(
    pond: Pond, directory: Directory
) -> None:
    key = await bobs(pond)
    await directory.remove_user("acme", "bob", by="ann")

    reply = await pond.store.gateway.run(
        "used", key.id, OLD.mark_api_key(key.text), OLD.name, OLD.mark_api_key(key.text)
    )

    assert reply == [b"changed"]
    assert await pond.keys_of("k:") == []


@pytest.mark.usefixtures("_users")
async def test_a_key_that_no_master_key_of_ours_marked_is_refused_and_the_log_says_so(
    pond: Pond,
) -> None:
    key = await bobs(pond, OLD)

    with structlog.testing.capture_logs() as logs:
        assert await checker(pond, NEW).identity(key.text) is None

    [line] = [one for one in logs if one["event"] == "api_key_unreadable"]
    assert (line["key"], line["master"]) == (key.id, OLD.name)
    assert key.text[17:] not in str(logs)


# ---------------------------------------------------------------- operators


async def test_the_first_operator_is_made_once(pond: Pond, redis: Redis) -> None:
    first = await api_keys(pond, OLD).first_operator("ops", by="root")
    before = await everything(redis)

    with pytest.raises(NotFirst, match="already"):
        await api_keys(pond, OLD).first_operator("mallory", by="root")

    assert await everything(redis) == before
    identity = await checker(pond).identity(first.text)
    assert first.text.startswith("mpo_")
    assert identity == Identity(first.id, Role.OPERATOR, name="ops")


async def test_of_two_first_operators_at_once_one_is_made(pond: Pond) -> None:
    stores = [pond.another_store() for _ in range(5)]

    made = await asyncio.gather(
        *(
            ApiKeys(store.gateway, MasterKeys([OLD])).first_operator(f"op{i}", by="root")
            for i, store in enumerate(stores)
        ),
        return_exceptions=True,
    )

    assert sorted(type(one).__name__ for one in made) == ["NewKey"] + ["NotFirst"] * 4
    assert len(await api_keys(pond).operators()) == 1


async def test_after_the_first_operator_was_revoked_there_is_no_second_first(pond: Pond) -> None:
    """Else whoever gets every key revoked could begin anew."""
    first = await api_keys(pond, OLD).first_operator("ops", by="root")
    with pytest.raises(LastOperator):
        await api_keys(pond).revoke_operator(first.id, by="root")
    other = await api_keys(pond, OLD).make_operator("rev", by="ops", good_ms=DAY_MS)
    with pytest.raises(LastOperator):  # the other one ends
        await api_keys(pond).revoke_operator(first.id, by="root")
    await api_keys(pond).revoke_operator(other.id, by="root")

    with pytest.raises(NotFirst):
        await api_keys(pond, OLD).first_operator("mallory", by="root")


@pytest.mark.usefixtures("_users")
async def test_operators_are_listed_and_revoked_and_the_audit_of_no_org_has_it(
    pond: Pond, directory: Directory
) -> None:
    one = await api_keys(pond, OLD).first_operator("ops", by="root")
    await pond.jump(1)
    two = await api_keys(pond, OLD).make_operator("rev", by="ops", why="desk")

    listed = await api_keys(pond).operators()
    await api_keys(pond).revoke_operator(one.id, by="rev", why="lost")

    assert [(key.id, key.name, key.kind, key.org) for key in listed] == [
        (two.id, "rev", Kind.OPERATOR, ""),
        (one.id, "ops", Kind.OPERATOR, ""),
    ]
    revoked, made, first = await directory.audit()
    assert told(first)[:2] == (
        "root",
        [
            ["api key", one.id, "name", "", "ops"],
            ["api key", one.id, "user", "", ""],
            ["api key", one.id, "expires", "", "0"],
        ],
    )
    assert (told(made)[0], told(made)[2]) == ("ops", "desk")
    assert told(revoked) == (
        "rev",
        [["api key", one.id, "revoked", "", str(pond.now_ms)]],
        "lost",
    )
    assert [row.fields["version"] for row in (first, made, revoked)] == ["1", "2", "3"]
    assert set(revoked.fields) == {"at", "by", "version", "changes", "why"}
    assert await checker(pond).identity(one.text) is None
    assert await checker(pond).identity(two.text)

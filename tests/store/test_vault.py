"""seal, enlist, and the keyring: an org's key is kept sealed, and used for its calls alone."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from redis.asyncio import Redis

from conftest import PARTITION, TestTime
from millpond.errors import MillpondError, StoreUnavailable, UnknownPart
from millpond.settings import Settings
from millpond.store.gateway import Gateway, connect
from millpond.store.keyring import Keyring, KeyUnusable, keyring_of, let_go_on
from millpond.store.own_models import ModelTaken, OwnModels
from millpond.store.sealing import MasterKey, MasterKeys, NoMasterKey
from millpond.store.store import Store
from millpond.store.vault import KeysHidden, KeyTaken, NoKey, Vault
from store.pond import Pond, everything

CANARY = "co-canary-5b1f9e"
OLD, NEW = MasterKey(bytes(range(32))), MasterKey(bytes(range(32, 64)))
LANE = "acme.generate"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


@pytest.fixture
async def orgs(pond: Pond) -> None:
    """Two orgs, each with a lane and a flow."""
    await pond.open()
    await pond.open(org="beta", flow="g")


def vault(pond: Pond, *masters: MasterKey) -> Vault:
    return Vault(pond.store.gateway, MasterKeys(masters) if masters else None)


def keyring(pond: Pond, *masters: MasterKey) -> Keyring:
    known = MasterKeys(masters) if masters else None
    return Keyring(pond.store, known, clock=pond.time.monotonic_ms)


async def told(pond: Pond, what: Any, org: str = "acme") -> list[dict[str, Any]]:
    """An org's audit or events, the newest first, without the quota's."""
    rows = await pond.store.records(org, what, most=1_000)
    found = [row.fields for row in rows if row.fields.get("event") != "quota"]
    return [{k: v for k, v in fields.items() if k != "at"} for fields in found]


# ---------------------------------------------------------------- keeping


@pytest.mark.usefixtures("orgs")
async def test_a_key_that_is_kept_is_the_one_of_its_org(pond: Pond) -> None:
    await vault(pond, OLD).keep("acme", CANARY, by="ann")

    assert await keyring(pond, OLD).key_of("acme") == CANARY
    assert await keyring(pond, OLD).key_of("beta") is None


@pytest.mark.usefixtures("orgs")
async def test_audit_and_events_say_who_changed_it_with_its_fingerprint(pond: Pond) -> None:
    one = OLD.fingerprint("one")
    two = OLD.fingerprint("two")
    await vault(pond, OLD).keep("acme", "one", by="ann")
    version, _ = await vault(pond, OLD).keep("acme", "two", by="bob")

    await vault(pond, OLD).remove("acme", by="eve")

    removed, changed, kept, *_ = await told(pond, "audit")
    assert json.loads(kept["changes"]) == [
        ["key", "acme", "fingerprint", "", one],
        ["key", "acme", "master", "", OLD.name],
    ]
    assert (changed["by"], int(changed["version"])) == ("bob", version)
    assert json.loads(changed["changes"]) == [["key", "acme", "fingerprint", one, two]]
    assert json.loads(removed["changes"])[0] == ["key", "acme", "fingerprint", two, ""]
    assert await told(pond, "events") == [
        {"event": "key", "change": change, "by": by, "fingerprint": mark, "master": OLD.name}
        for change, by, mark in (("removed", "eve", two), ("set", "bob", two), ("set", "ann", one))
    ]


@pytest.mark.usefixtures("orgs")
async def test_the_same_key_again_changes_nothing(pond: Pond, redis: Redis) -> None:
    version, _ = await vault(pond, OLD).keep("acme", CANARY, by="ann")
    before = await everything(redis)

    again, _ = await vault(pond, OLD).keep("acme", CANARY, by="bob")

    assert again == version
    assert await everything(redis) == before


@pytest.mark.usefixtures("orgs")
@pytest.mark.parametrize(
    ("masters", "then"),
    [([OLD], [OLD]), ([OLD], [NEW, OLD]), ([NEW, OLD], [OLD, NEW])],
    ids=["as before", "with a newer master key", "with both the other way round"],
)
async def test_a_second_org_with_the_same_key_is_refused_and_nothing_changes(
    pond: Pond, redis: Redis, masters: list[MasterKey], then: list[MasterKey]
) -> None:
    await vault(pond, *masters).keep("acme", CANARY, by="ann")
    before = await everything(redis)

    with pytest.raises(KeyTaken, match="org acme has this key") as error:
        await vault(pond, *then).keep("beta", CANARY, by="ann")

    assert CANARY not in str(error.value)
    assert await everything(redis) == before


@pytest.mark.usefixtures("orgs")
async def test_a_key_that_was_changed_or_removed_is_free_for_another_org(pond: Pond) -> None:
    safe = vault(pond, OLD)
    await safe.keep("acme", "one", by="ann")
    await safe.keep("acme", "two", by="ann")
    await safe.keep("beta", "one", by="ann")
    await safe.remove("acme", by="ann")

    await safe.keep("beta", "two", by="ann")

    assert await keyring(pond, OLD).key_of("beta") == "two"


@pytest.mark.usefixtures("orgs")
async def test_while_nobody_can_tell_whether_another_org_has_it_a_key_is_refused(
    pond: Pond, redis: Redis
) -> None:
    await vault(pond, OLD).keep("acme", CANARY, by="ann")
    before = await everything(redis)

    with pytest.raises(KeysHidden, match=OLD.name):
        await vault(pond, NEW).keep("beta", CANARY, by="ann")

    assert await everything(redis) == before
    # Its own may be put in the place of one whose master key was lost; so may a removed one's.
    await vault(pond, NEW).keep("acme", "another", by="ann")
    await vault(pond, NEW).keep("beta", CANARY, by="ann")
    assert await keyring(pond, NEW).key_of("beta") == CANARY


async def test_of_what_is_not_there_nothing_is_changed(pond: Pond, redis: Redis) -> None:
    await pond.open()
    before = await everything(redis)

    with pytest.raises(UnknownPart, match="no org 'nobody'"):
        await vault(pond, OLD).keep("nobody", CANARY, by="ann")
    with pytest.raises(NoKey):
        await vault(pond, OLD).remove("acme", by="ann")
    with pytest.raises(NoMasterKey):
        await vault(pond).keep("acme", CANARY, by="ann")

    assert await everything(redis) == before


# ---------------------------------------------------------------- rotation


@pytest.mark.usefixtures("orgs")
async def test_a_key_that_is_sealed_anew_opens_with_the_newest_master_key_alone(pond: Pond) -> None:
    await vault(pond, OLD).keep("acme", CANARY, by="ann")
    record = await vault(pond).find("acme")
    assert record is not None

    assert await vault(pond, NEW, OLD).seal_again(record, by="ann")

    assert await keyring(pond, NEW).key_of("acme") == CANARY
    with pytest.raises(KeyTaken):
        await vault(pond, NEW).keep("beta", CANARY, by="ann")
    assert (await told(pond, "events"))[0]["change"] == "sealed anew"
    assert ["key", "acme", "master", OLD.name, NEW.name] in json.loads(
        (await told(pond, "audit"))[0]["changes"]
    )


@pytest.mark.usefixtures("orgs")
@pytest.mark.parametrize("meanwhile", ["changed", "removed"])
async def test_a_key_that_is_changed_meanwhile_is_not_put_back(pond: Pond, meanwhile: str) -> None:
    safe = vault(pond, NEW, OLD)
    await vault(pond, OLD).keep("acme", "one", by="ann")
    record = await safe.find("acme")
    assert record is not None
    if meanwhile == "changed":
        await safe.keep("acme", "two", by="bob")
    else:
        await safe.remove("acme", by="bob")
    before = await everything(pond.redis)

    assert await safe.seal_again(record, by="ann")

    assert await everything(pond.redis) == before


@pytest.mark.usefixtures("orgs")
async def test_what_no_master_key_opens_is_not_sealed_anew(pond: Pond) -> None:
    await vault(pond, OLD).keep("acme", CANARY, by="ann")
    record = await vault(pond).find("acme")
    assert record is not None

    assert not await vault(pond, NEW).seal_again(record, by="ann")
    assert await keyring(pond, OLD).key_of("acme") == CANARY


async def test_keys_are_told_of_the_orgs_that_have_or_had_one(pond: Pond) -> None:
    names = [f"o{n:03}" for n in range(450)]
    for name in names:
        await pond.command("HSET", f"mp:{PARTITION}:o:{name}", "quota", "none")
    safe = vault(pond, OLD)
    for name in (names[0], names[210], names[449]):
        await safe.keep(name, f"key-of-{name}", by="ann")
    await safe.remove(names[210], by="bob")

    found = [record async for record in vault(pond).records(names)]

    assert [(one.org, one.sealed is None, one.by) for one in found] == [
        (names[0], False, "ann"),
        (names[210], True, "bob"),
        (names[449], False, "ann"),
    ]
    assert {one.at_ms for one in found} == {pond.now_ms}


# ---------------------------------------------------------------- the keyring


@pytest.mark.usefixtures("orgs")
async def test_without_any_key_nothing_is_different(pond: Pond, redis: Redis) -> None:
    before = await everything(redis)

    assert await keyring(pond, OLD).key_of("acme") is None
    assert await keyring(pond).key_of("acme") is None
    assert await everything(redis) == before


@pytest.mark.usefixtures("orgs")
@pytest.mark.parametrize("change", ["changed", "removed"])
async def test_a_key_is_remembered_for_five_seconds_and_not_longer(pond: Pond, change: str) -> None:
    ring, safe = keyring(pond, OLD), vault(pond, OLD)
    await safe.keep("acme", "one", by="ann")
    assert await ring.key_of("acme") == "one"
    if change == "changed":
        await safe.keep("acme", "two", by="ann")
    else:
        await safe.remove("acme", by="ann")

    await pond.jump(4_999)
    assert await ring.key_of("acme") == "one"

    await pond.jump(1)
    if change == "changed":
        assert await ring.key_of("acme") == "two"
    else:
        with pytest.raises(KeyUnusable, match="was removed by ann"):
            await ring.key_of("acme")


async def test_so_many_orgs_are_remembered_and_not_more(
    pond: Pond, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millpond.store.keyring._ORGS_MOST", 3)
    ring = keyring(pond, OLD)

    for n in range(10):
        await ring.key_of(f"o{n}")

    assert list(ring._known) == ["o7", "o8", "o9"]


async def copied_from_beta(pond: Pond) -> None:
    found = await pond.fields("o:beta:key")
    await pond.command("HSET", f"mp:{PARTITION}:o:acme:key", *sum(found.items(), ()))


@pytest.mark.usefixtures("orgs")
@pytest.mark.parametrize(
    ("masters", "copied", "told"),
    [
        ([NEW], False, f"sealed with master key {OLD.name}, which the worker does not have"),
        ([],    False, "it has none"),
        ([OLD], True,  "does not open: its record was changed by other means"),
    ],
)  # fmt: skip
async def test_the_calls_of_an_org_whose_key_does_not_open_stand_still_with_the_reason(
    pond: Pond, masters: list[MasterKey], copied: bool, told: str
) -> None:
    await pond.open(flow="e", endpoint="embed")
    await vault(pond, OLD).keep("acme", CANARY, by="ann")
    await vault(pond, OLD).keep("beta", "of-beta", by="ann")
    if copied:
        await copied_from_beta(pond)
    await pond.accept("j1")
    await pond.beat()

    with structlog.testing.capture_logs() as logs, pytest.raises(KeyUnusable) as error:
        await keyring(pond, *masters).key_of("acme")

    assert told in str(error.value)
    for lane in (LANE, "acme.embed"):
        paused = (await pond.store.explain(lane=lane)).lane.paused
        assert paused == f"key: {error.value}"
    assert (await pond.store.explain(lane="beta.generate")).lane.paused is None
    assert await pond.release() == (0, None)
    [event] = logs
    assert (event["event"], event["org"]) == ("provider_key_unusable", "acme")
    assert CANARY not in f"{logs} {error.value!r}"


@pytest.mark.usefixtures("orgs")
async def test_what_an_operator_has_paused_stays_paused_for_the_operators_reason(
    pond: Pond,
) -> None:
    await vault(pond, OLD).keep("acme", CANARY, by="ann")
    await pond.change(lane=LANE, paused="paused: night")

    with pytest.raises(KeyUnusable):
        await keyring(pond, NEW).key_of("acme")

    assert (await pond.store.explain(lane=LANE)).lane.paused == "paused: night"


@pytest.mark.usefixtures("orgs")
async def test_calls_that_go_on_too_early_stand_still_again(pond: Pond) -> None:
    await vault(pond, OLD).keep("acme", CANARY, by="ann")
    ring = keyring(pond, NEW)
    for _ in range(2):
        with pytest.raises(KeyUnusable):
            await ring.key_of("acme")
        assert await let_go_on(pond.store, "acme", by="ann") == [LANE]

    with pytest.raises(KeyUnusable):
        await ring.key_of("acme")

    assert (await pond.store.explain(lane=LANE)).lane.paused is not None


@pytest.mark.usefixtures("orgs")
@pytest.mark.parametrize(
    ("paused", "goes_on"),
    [
        ("key: invalid api token (401)", True),
        ("paused: key: it is being changed", False),
        ("quota: spent", False),
    ],
)
async def test_with_a_new_key_those_lanes_go_on_that_were_paused_for_the_old_one(
    pond: Pond, paused: str, goes_on: bool
) -> None:
    await pond.change(lane=LANE, paused=paused)

    assert await let_go_on(pond.store, "acme", by="ann") == ([LANE] if goes_on else [])

    assert (await pond.store.explain(lane=LANE)).lane.paused == (None if goes_on else paused)


@pytest.mark.parametrize(
    ("settings", "looks"),
    [
        (Settings(), True),
        (Settings(provider_key=SecretStr("own")), False),
        (Settings(master_key=SecretStr("A" * 43 + "=")), True),
        (Settings(master_key=SecretStr("A" * 43 + "="), provider_key=SecretStr("own")), True),
    ],
    ids=["neither", "a key of its own", "a master key", "both"],
)
def test_a_worker_with_nothing_but_a_key_of_its_own_has_no_keyring(
    pond: Pond, settings: Settings, looks: bool
) -> None:
    assert (keyring_of(pond.store, settings) is not None) == looks


async def test_while_the_server_is_away_no_key_is_told(pond: Pond) -> None:
    async with connect("unix:///nowhere/s") as nobody:
        ring = Keyring(Store(Gateway(nobody, PARTITION, time=pond.time)), MasterKeys([OLD]))

        with pytest.raises(StoreUnavailable):
            await ring.key_of("acme")


# ---------------------------------------------------------------- the canary


async def _keep_twice(pond: Pond) -> None:
    await vault(pond, OLD).keep("beta", CANARY, by="ann")


async def _keep_hidden(pond: Pond) -> None:
    await vault(pond, NEW).keep("beta", CANARY, by="ann")


async def _keep_without_master(pond: Pond) -> None:
    await vault(pond).keep("acme", CANARY, by="ann")


async def _keep_of_nobody(pond: Pond) -> None:
    await vault(pond, OLD).keep("nobody", CANARY, by="ann")


async def _look_with_the_wrong_master(pond: Pond) -> None:
    await keyring(pond, NEW).key_of("acme")


@pytest.mark.usefixtures("orgs")
@pytest.mark.parametrize(
    "fails",
    [
        _keep_twice,
        _keep_hidden,
        _keep_without_master,
        _keep_of_nobody,
        _look_with_the_wrong_master,
    ],
)
async def test_no_error_log_or_record_shows_a_key(
    pond: Pond, redis: Redis, caplog: pytest.LogCaptureFixture, fails: Callable[[Pond], Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    safe, ring = vault(pond, OLD), keyring(pond, OLD)
    _, sealed = await safe.keep("acme", CANARY, by="ann")
    await ring.key_of("acme")

    with structlog.testing.capture_logs() as logs, pytest.raises(MillpondError) as error:
        await fails(pond)

    shown = [repr(one) for one in (error.value, error.value.__context__, error.value.__cause__)]
    shown += [str(error.value), repr(logs), caplog.text, repr(sealed), repr(ring._known)]
    shown += [repr(await safe.find("acme")), json.dumps(await everything(redis))]
    assert CANARY not in " ".join(shown)
    assert CANARY.encode().hex() not in " ".join(shown)


# ---------------------------------------------------------------- fine-tuned models


def own(pond: Pond) -> OwnModels:
    return OwnModels(pond.store.gateway)


@pytest.mark.usefixtures("orgs")
async def test_a_fine_tuned_model_is_its_orgs_alone(pond: Pond) -> None:
    await own(pond).add("acme", "tuned", "command", by="ann")

    assert await own(pond).of("acme") == {"tuned": "command"}
    assert await own(pond).of("beta") == {}
    with pytest.raises(ModelTaken, match="to another org"):
        await own(pond).add("beta", "tuned", "command", by="bob")


@pytest.mark.usefixtures("orgs")
async def test_each_change_of_a_model_is_in_the_audit(pond: Pond) -> None:
    version = await own(pond).add("acme", "tuned", "command", by="ann")
    await own(pond).add("acme", "tuned", "command-light", by="bob")
    await own(pond).remove("acme", "tuned", by="eve")

    removed, changed, added, *_ = await told(pond, "audit")

    assert (added["by"], int(added["version"])) == ("ann", version)
    assert [json.loads(row["changes"]) for row in (added, changed, removed)] == [
        [["model", "acme", "tuned", "", "command"]],
        [["model", "acme", "tuned", "command", "command-light"]],
        [["model", "acme", "tuned", "command-light", ""]],
    ]
    assert await own(pond).of("acme") == {}
    await own(pond).add("beta", "tuned", "command", by="bob")


@pytest.mark.usefixtures("orgs")
async def test_registering_what_is_registered_or_is_not_there_changes_nothing(
    pond: Pond, redis: Redis
) -> None:
    await own(pond).add("acme", "tuned", "command", by="ann")
    before = await everything(redis)

    await own(pond).add("acme", "tuned", "command", by="bob")
    for org, model, part in (
        ("nobody", "x", "org"),
        ("beta", "tuned", "model"),
        ("acme", "x", "model"),
    ):
        with pytest.raises(UnknownPart, match=f"no {part}"):
            await own(pond).remove(org, model, by="bob")

    assert await everything(redis) == before

"""An org is erased over HTTP: in portions, with a receipt, and nobody can take it back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from flow.test_api_accounts import MASTERS, RIVER, Answer, Caller, service
from millpond.domain.account import Role
from millpond.domain.limit import LIMITED, parse_limit
from millpond.producer.api import purge
from millpond.producer.http.listener import serve
from millpond.store.api_keys import ApiKeys
from millpond.store.directory import Directory
from millpond.store.store import Store
from store.pond import Pond, whole_dump

ASKED = {"why": "they asked for it", "confirm": "acme"}
PURGE = "/v1/orgs/acme/purge"


@dataclass(frozen=True)
class Town:
    """Two orgs, an operator, and a worker who says what a test wants."""

    pond: Pond
    operator: Caller
    acme: Caller
    beta: Caller

    async def ask(self, caller: Caller, method: str, path: str, body: Any = None) -> Answer:
        return await asyncio.to_thread(caller, method, path, body)

    async def purge(self, **more: Any) -> Answer:
        return await self.ask(self.operator, "POST", PURGE, {**ASKED, **more})


@pytest.fixture
async def town(store: Store, redis: Redis, time: TestTime) -> AsyncIterator[Town]:
    directory, api_keys = Directory(store), ApiKeys(store.gateway, MASTERS)
    texts = {"": (await api_keys.make_operator("olga", by="t")).text}
    for org in ("acme", "beta"):
        await directory.create_org(org, org, limits=LIMITED, quota=None, pool="http", by="t")
        await directory.create_user(org, "ann", "Ann", Role.ADMIN, by="t")
        texts[org] = (await api_keys.make(org, "ann", "k", by="t")).text
    api = service(store)
    async with (
        serve(api.users(), port=0) as users,
        serve(api.operators(), port=0) as operators,
    ):
        url, admin_url = (f"http://127.0.0.1:{one.port}" for one in (users, operators))
        yield Town(
            Pond(store, redis, time),
            Caller(admin_url, texts[""]),
            Caller(url, texts["acme"]),
            Caller(url, texts["beta"]),
        )


@pytest.fixture
async def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request erases for a moment only."""
    monkeypatch.setattr(purge, "PURGE_MS", 100)
    monkeypatch.setattr(purge, "LOOK_S", 0.01)


async def test_an_org_goes_with_everything_and_its_receipt_stays(town: Town) -> None:
    for caller in (town.acme, town.beta):
        assert (await town.ask(caller, "POST", "/v1/jobs", [RIVER] * 450)).status == 202
    await town.pond.change("acme", lane="acme.generate", caps=[parse_limit("1/60s")])
    await town.pond.beat(pool="http")
    await town.pond.release()
    assert await town.pond.keys_of("l:acme.generate:by:")
    for call in await town.pond.claim():
        await town.pond.settle(call)

    answer = await town.purge()

    assert answer.status == 200, answer.body
    told = answer.json
    assert told["begun_at"]
    assert told["ended_at"]
    assert (told["org"], told["by"], told["why"]) == ("acme", "operator olga", "they asked for it")
    assert told["waits_for"] is None
    assert told["erased"]["jobs"] == 450
    assert told["erased"]["users"] == told["erased"]["api_keys"] == 1
    assert "idempotency" in told["left"]
    dump = await whole_dump(town.pond.redis)
    left = {key for key, value in dump.items() if "acme" in key or "acme" in str(value)}
    assert left == {"receipt:acme", "audit"}
    receipt = await town.ask(town.operator, "GET", "/v1/receipts/acme")
    assert receipt.status == 200
    again = await town.purge(why="once more")
    assert again.status == 200
    for one in (receipt.json, again.json):
        assert (one["by"], one["why"], one["erased"]) == (told["by"], told["why"], told["erased"])
    assert (await town.ask(town.operator, "GET", "/v1/orgs/acme")).status == 404
    jobs = await town.ask(town.beta, "GET", "/v1/jobs?limit=1000")
    assert len(jobs.json["data"]) == 450


@pytest.mark.usefixtures("_short")
async def test_it_waits_for_a_call_and_goes_on_when_asked_again(town: Town) -> None:
    await town.ask(town.acme, "POST", "/v1/jobs", RIVER)
    await town.pond.beat(pool="http")
    await town.pond.release()
    [call] = await town.pond.claim()

    answer = await town.purge()

    assert answer.status == 202
    assert answer.json["ended_at"] is None
    assert "calls" in answer.json["waits_for"]
    assert int(answer.headers["Retry-After"]) > 0
    assert (await town.ask(town.operator, "GET", "/v1/receipts/acme")).json["ended_at"] is None
    refused = await town.ask(town.acme, "POST", "/v1/jobs", RIVER)
    assert (refused.status, refused.json["code"]) == (403, "suspended")
    lift = await town.ask(town.operator, "POST", "/v1/orgs/acme/lift", {"why": "a mistake"})
    assert (lift.status, lift.json["code"]) == (409, "purging")
    user = {"id": "late", "name": "Late"}
    for path, body in (("/users", user), ("/to-limited", {"why": "x"})):
        more = await town.ask(town.operator, "POST", f"/v1/orgs/acme{path}", body)
        assert (more.status, more.json["code"]) == (409, "purging")

    assert await town.pond.settle(call) == "settled"
    assert (await town.purge()).status == 200


async def test_a_run_in_the_way_is_named_at_once(town: Town) -> None:
    await town.pond.open(flow="run")
    await town.pond.accept("j1", flow="run")

    answer = await town.purge()

    assert answer.status == 202
    assert "flow run of a run" in answer.json["waits_for"]
    assert await town.pond.state("j1") == "queued"


async def test_whoever_has_a_key_that_is_still_believed_finds_nothing(town: Town) -> None:
    [job] = (await town.ask(town.acme, "POST", "/v1/jobs", [RIVER])).json["data"]
    assert (await town.purge()).status == 200

    for method, path, body in (
        ("GET", f"/v1/jobs/{job['id']}", None),
        ("GET", "/v1/jobs", None),
        ("GET", "/v1/orgs/me", None),
        ("GET", "/v1/usage", None),
        ("GET", "/v1/limits", None),
        ("POST", "/v1/jobs", [RIVER]),
        ("POST", "/v1/users", {"id": "zoe", "name": "Zoe", "role": "member"}),
    ):
        answer = await town.ask(town.acme, method, path, body)
        assert answer.status < 500, (method, path, answer.body)
        assert b"river" not in answer.body
        assert method == "GET" or answer.status >= 400
    dump = await whole_dump(town.pond.redis)
    assert {key for key in dump if "acme" in key} == {"receipt:acme"}


async def test_without_its_id_said_twice_nothing_is_erased(town: Town) -> None:
    before = await whole_dump(town.pond.redis)

    wrong = await town.purge(confirm="beta")
    none = await town.ask(town.operator, "POST", PURGE, {"why": "x"})
    no_why = await town.ask(town.operator, "POST", PURGE, {"confirm": "acme"})

    assert (wrong.status, wrong.pointers) == (422, ["/confirm"])
    assert (none.status, none.pointers) == (422, ["/confirm"])
    assert (no_why.status, no_why.pointers) == (422, ["/why"])
    assert (await whole_dump(town.pond.redis))["o:acme"] == before["o:acme"]
    assert (await town.ask(town.operator, "GET", "/v1/receipts/acme")).status == 404


async def test_what_nobody_knows_is_not_found(town: Town) -> None:
    asked = {"why": "x", "confirm": "nobody"}
    assert (await town.ask(town.operator, "POST", "/v1/orgs/nobody/purge", asked)).status == 404
    assert (await town.ask(town.operator, "GET", "/v1/receipts/nobody")).status == 404


async def test_an_admin_cannot_erase_the_own_org(town: Town) -> None:
    assert (await town.ask(town.acme, "POST", PURGE, ASKED)).status == 404
    mine = Caller(town.operator.url, town.acme.key)
    assert (await town.ask(mine, "POST", PURGE, ASKED)).status == 403

"""What an operator changes holds from the next decision on, and stands in the org's audit."""

import json
from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.job import Class
from millpond.domain.limit import parse_limit
from millpond.errors import UnknownPart
from millpond.store.store import Store
from store.pond import PREFIX, Pond, everything, flows, names

LANE = "acme.generate"
WIDE = "10000/60s"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def audit(pond: Pond, org: str = "acme") -> list[tuple[str, int, list[list[str]]]]:
    """Who made which version, and what was changed from what to what; the newest first."""
    rows = await pond.store.records(org, "audit", most=1_000)
    return [
        (row.fields["by"], int(row.fields["version"]), json.loads(row.fields["changes"]))
        for row in rows
    ]


# ---------------------------------------------------------------- versions and audit


@pytest.mark.parametrize(
    ("what", "rows"),
    [
        #  changed                           what, whose, field, old, new
        ({"quota": 700},                     [["org", "acme", "quota", "500", "700"]]),
        ({"quota": "none"},                  [["org", "acme", "quota", "500", "none"]]),
        ({"status": "suspended"},            [["org", "acme", "status", "", "suspended"]]),
        ({"mode": "full"},                   [["org", "acme", "mode", "", "full"]]),
        ({"reserve": "p99"},                 [["org", "acme", "reserve", "strict", "p99"]]),
        ({"weights": {"ann": 4.0}},          [["weights", "acme", "ann", "", "4"]]),
        ({"lane": LANE, "credit": True},     [["lane", LANE, "credit", "0", "1"]]),
        ({"lane": LANE, "paced": True},      [["lane", LANE, "paced", "0", "1"]]),
        ({"lane": LANE, "paused": "night"},  [["lane", LANE, "paused", "", "night"]]),
        ({"flow": "f", "flow_weight": 2.5},  [["flow", "f", "weight", "1", "2.5"]]),
        ({"flow": "f", "flow_paused": True}, [["flow", "f", "paused", "", "1"]]),
        ({"lane": LANE, "limits": [parse_limit("30/60s")]},
         [["lane", LANE, "limits", '[[60,60000,"calls",false]]', '[[30,60000,"calls",false]]']]),
        ({"quota": 1, "lane": LANE, "credit": True},
         [["org", "acme", "quota", "500", "1"], ["lane", LANE, "credit", "0", "1"]]),
    ],
)  # fmt: skip
async def test_a_change_has_a_version_and_says_who_changed_what_from_what_to_what(
    pond: Pond, what: dict[str, Any], rows: list[list[str]]
) -> None:
    await pond.open("60/60s", quota=500)
    [(_, before, _)] = await audit(pond)

    version = await pond.change(by="ann", **what)

    assert version == before + 1
    assert (await audit(pond))[0] == ("ann", version, rows)
    assert int(await pond.field("o:acme", "version") or 0) == version


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"quota": 500},
        {"reserve": "strict"},
        {"weights": {}},
        {"lane": LANE},
        {"lane": LANE, "limits": [parse_limit("60/60s")]},
        {"lane": LANE, "credit": False, "paced": False},
        {"lane": LANE, "paused": ""},
        {"flow": "f"},
        {"flow": "f", "flow_weight": 1.0},
        {"flow": "f", "flow_paused": False},
    ],
)
async def test_what_changes_nothing_has_no_version_and_no_row(
    pond: Pond, what: dict[str, Any]
) -> None:
    await pond.open("60/60s", quota=500)
    before = await audit(pond)

    version = await pond.change(**what)

    assert version == before[0][1]
    assert await audit(pond) == before


async def test_a_lane_that_goes_on_is_in_the_audit(pond: Pond) -> None:
    await pond.open()
    await pond.change(lane=LANE, paused="night")

    await pond.change(by="bob", lane=LANE, paused="")

    assert (await audit(pond))[0] == ("bob", 3, [["lane", LANE, "paused", "night", ""]])


async def test_a_flow_that_goes_on_is_in_the_audit(pond: Pond) -> None:
    await pond.open()
    await pond.change(flow="f", flow_paused=True)

    await pond.change(by="bob", flow="f", flow_paused=False)

    assert (await audit(pond))[0] == ("bob", 3, [["flow", "f", "paused", "1", ""]])


async def test_the_first_row_is_the_opening_of_the_org(pond: Pond) -> None:
    await pond.open("60/60s", quota=500)

    [(by, version, rows)] = await audit(pond)

    assert (by, version) == ("run", 1)
    assert ["org", "acme", "quota", "", "500"] in rows


# ---------------------------------------------------------------- what is not there


@pytest.mark.parametrize(
    ("org", "what", "part"),
    [
        ("nobody", {"status": "suspended"},                         "org"),
        ("nobody", {"quota": 5},                                    "org"),
        ("nobody", {"lane": LANE, "credit": True},                  "org"),
        ("acme",   {"quota": 5, "lane": "acme.other"},              "lane"),
        ("acme",   {"lane": "acme.other", "limits": [parse_limit("1/1s")]}, "lane"),
        ("acme",   {"quota": 5, "flow": "other"},                   "flow"),
        ("acme",   {"lane": LANE, "paused": "night", "flow": "other"}, "flow"),
        # of another org
        ("beta",   {"lane": LANE, "paused": "night"},               "lane"),
        ("beta",   {"flow": "f", "flow_weight": 9.0},               "flow"),
    ],
)  # fmt: skip
async def test_of_what_is_not_there_nothing_is_changed(
    pond: Pond, redis: Redis, org: str, what: dict[str, Any], part: str
) -> None:
    await pond.open("60/60s", quota=500)
    await pond.open("60/60s", flow="g", org="beta", quota=500)
    before = await everything(redis)

    with pytest.raises(UnknownPart) as refused:
        await pond.change(org, **what)

    assert part in str(refused.value)
    assert await everything(redis) == before


async def test_what_is_not_named_stays(pond: Pond) -> None:
    await pond.open("60/60s", quota=500, user="ann", weight=3, pack=7, credit=True, reserve="p99")
    org, lane, flow = [await pond.fields(key) for key in ("o:acme", f"l:{LANE}", "f:f")]

    await pond.change(lane=LANE, flow="f", mode="full")

    assert await pond.fields("o:acme") == org | {"mode": "full", "version": "2"}
    assert await pond.fields(f"l:{LANE}") == lane
    assert await pond.fields("f:f") == flow


async def test_a_change_of_a_lane_and_a_flow_does_not_move_the_flow_there(pond: Pond) -> None:
    await pond.open("60/60s", flow="f", endpoint="generate")
    await pond.open("60/60s", flow="e", endpoint="embed")

    await pond.change(lane=LANE, paced=True, flow="e", flow_weight=2.0)

    assert await pond.field("f:e", "lane") == "acme.embed"


# ---------------------------------------------------------------- suspended


async def test_of_a_suspended_org_nothing_goes(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()

    await pond.change(status="suspended")

    assert await pond.release() == (0, None)
    assert await pond.scores("turn") == {}


async def test_what_was_ready_is_given_back_when_it_is_claimed(pond: Pond) -> None:
    await pond.open(quota=500)
    await pond.accept("j1", "j2")
    await pond.beat()
    await pond.release()

    await pond.change(status="suspended")

    assert await pond.claim() == []
    assert await pond.line() == ["j1", "j2"]
    assert await pond.books() == (0, 0, 0)
    assert await pond.flight() == 0


async def test_what_runs_ends_as_usual(pond: Pond) -> None:
    await pond.open()
    one, two = await pond.run("j1", "j2")
    await pond.change(status="suspended")

    await pond.settle(one)
    await pond.settle(two, "retry", used=0)

    assert await pond.state("j1") == "succeeded"
    await pond.store.promote(200)
    assert await pond.line() == ["j2"]
    assert (await pond.release())[0] == 0


async def test_going_on_wakes_all_its_lanes(pond: Pond) -> None:
    await pond.open(flow="g", endpoint="generate")
    await pond.open(flow="e", endpoint="embed")
    await pond.change(status="suspended")
    await pond.accept("g1", flow="g")
    await pond.accept("e1", flow="e")
    await pond.beat()
    await pond.release()
    await pond.release()

    await pond.change(status="active")

    assert await pond.release() == (2, None)


async def test_opening_a_flow_does_not_set_a_suspended_org_going(pond: Pond) -> None:
    await pond.open()
    await pond.change(status="suspended")

    await pond.open(flow="g")
    await pond.accept("g1", flow="g")
    await pond.beat()

    assert (await pond.release())[0] == 0


async def test_other_orgs_go_on(pond: Pond) -> None:
    await pond.open(flow="f", org="acme")
    await pond.open(flow="g", org="beta")
    await pond.accept("f1", flow="f")
    await pond.accept("g1", flow="g")
    await pond.beat("a", pool="acme")
    await pond.beat("b", pool="beta")
    await pond.change(status="suspended")

    await pond.release()

    assert await pond.state("g1") == "released"
    assert await pond.state("f1") == "queued"


# ---------------------------------------------------------------- lanes and flows


async def test_a_paused_lane_stands_still_and_goes_on(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", "j2")
    await pond.beat()
    await pond.release(1)

    await pond.change(lane=LANE, paused="night")
    assert await pond.claim() == []
    assert await pond.release() == (0, None)
    assert (await pond.store.look("f")).lane.paused == "night"

    await pond.change(lane=LANE, paused="")
    assert await pond.release() == (2, None)
    assert names(await pond.claim()) == ["j1", "j2"]


async def test_another_change_of_a_paused_lane_does_not_set_it_going(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()
    await pond.change(lane=LANE, paused="night")

    await pond.change(lane=LANE, limits=[parse_limit("5/1s")])

    assert (await pond.release())[0] == 0


async def test_a_change_does_not_open_a_lane_that_is_shut(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.settle(call, "retry", used=0, refused=True, shut_ms=5_000)
    await pond.accept("j2")

    await pond.change(lane=LANE, credit=True)

    assert await pond.release() == (0, 5_000)


async def test_a_paused_flow_stands_still_and_goes_on(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()

    await pond.change(flow="f", flow_paused=True)
    assert (await pond.release())[0] == 0

    await pond.change(flow="f", flow_paused=False)
    assert (await pond.release())[0] == 1


async def test_another_change_of_a_paused_flow_does_not_set_it_going(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()
    await pond.change(flow="f", flow_paused=True)

    await pond.change(flow="f", flow_weight=2.0)

    assert (await pond.release())[0] == 0
    assert await pond.field("f:f", "paused") == "1"


async def test_a_flow_paused_with_its_class_and_user_leaves_nothing_in_their_turns(
    pond: Pond,
) -> None:
    await pond.open(user="ann", klass=Class.INTERACTIVE)
    await pond.accept("j1")

    await pond.change(flow="f", flow_paused=True)

    assert await pond.scores(f"l:{LANE}:c") == {}
    assert await pond.scores(f"l:{LANE}:u:i") == {}
    assert await pond.scores(f"l:{LANE}:f:i:ann") == {}


async def test_a_flows_weight_holds_from_the_next_decision_on(pond: Pond) -> None:
    await pond.open(WIDE, flow="f")
    await pond.open(WIDE, flow="g")
    await pond.add("f", 100)
    await pond.add("g", 100)
    await pond.pass_through(10)

    await pond.change(flow="f", flow_weight=4.0)

    assert abs(Counter(flows(await pond.pass_through(50)))["f"] - 40) <= 1


async def test_limits_of_a_lane_hold_from_the_next_decision_on(pond: Pond) -> None:
    await pond.open("2/60s")
    await pond.accept(*"abcdefgh")
    await pond.beat(free=20)
    assert await pond.release() == (2, None)

    await pond.change(lane=LANE, limits=[parse_limit("5/60s")], bulk=[parse_limit("4/60s")])
    assert (await pond.release())[0] == 2

    await pond.change(lane=LANE, limits=[parse_limit("3/60s")])
    assert (await pond.release())[0] == 0


async def test_more_quota_brings_parked_jobs_back(pond: Pond) -> None:
    await pond.open(quota=0)
    await pond.accept("j1")
    await pond.beat()
    await pond.release()

    await pond.change(quota=100)
    await pond.store.promote(200)

    assert (await pond.release())[0] == 1


async def test_a_change_wakes_the_lane_it_names(pond: Pond) -> None:
    await pond.open("1/60s")
    await pond.accept("j1", "j2")
    await pond.beat()
    await pond.release()
    await pond.release()
    assert await pond.scores("due") == {}
    await pond.command("DEL", f"{PREFIX}bell:s")

    await pond.change(lane=LANE, limits=[parse_limit("9/60s")])

    assert await pond.scores("due") == {LANE: pond.now_ms}
    assert await pond.list_of("bell:s") == ["1"]


# ---------------------------------------------------------------- after a restart


async def test_after_a_restart_nothing_is_claimed_until_every_worker_has_told_what_it_holds(
    pond: Pond,
) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat("w1")
    await pond.beat("w2")
    await pond.release()
    await pond.new_life()
    await pond.beat("w1")
    assert await pond.claim("w1") == []

    await pond.beat("w2")

    assert names(await pond.claim("w1")) == ["j1"]


async def test_a_claim_that_had_to_wait_may_be_asked_again_with_its_number(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat("w1")
    await pond.beat("w2")
    await pond.release()
    await pond.new_life()
    await pond.beat("w1")
    assert await pond.store.claim("w1", 1, 10) == []
    await pond.beat("w2")

    claimed = await pond.store.claim("w1", 1, 10)

    assert claimed is not None
    assert names(claimed) == ["j1"]


async def test_a_worker_that_is_gone_is_waited_for_until_its_lease_has_ended(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat("w1", lease_ms=100_000)
    await pond.beat("w2", lease_ms=1_000)
    await pond.release()
    await pond.new_life()
    await pond.beat("w1", lease_ms=100_000)
    assert await pond.claim("w1") == []

    await pond.pass_time(1_250)

    assert names(await pond.claim("w1")) == ["j1"]


async def test_a_ready_call_that_another_worker_holds_is_not_given_away_after_a_restart(
    pond: Pond,
) -> None:
    """The server has forgotten that it was claimed."""
    await pond.open()
    await pond.accept("j1")
    await pond.beat("w1")
    await pond.beat("w2")
    await pond.release()
    known = await pond.snapshot()
    [call] = await pond.claim("w1")
    await pond.forget_since(known)

    await pond.beat("w2", seq=0)
    assert await pond.claim("w2") == []
    await pond.beat("w1", seq=1, held=[call])

    assert await pond.claim("w2") == []
    assert await pond.field(f"c:{call.id}", "worker") == "w1"

"""apply, review, set: two access modes, how an org gets from one to the other, and suspension.

The rows of the provider's access rules, each by its name, with jobs that really go.
"""

import asyncio
import json
from dataclasses import replace
from typing import Any, Literal

import pytest
from redis.asyncio import Redis

from conftest import TestTime, lane
from millpond.domain.account import CHECKLIST, GUIDELINES_VERSION, STEPS, Form, Role, Stage
from millpond.domain.job import Endpoint
from millpond.domain.limit import FULL, LIMITED
from millpond.errors import StoreUnavailable, UnknownPart
from millpond.store import access as access_module
from millpond.store.access import (
    Access,
    AlreadyApplied,
    Application,
    Decision,
    HasFullAccess,
    Terms,
    Word,
)
from millpond.store.directory import Directory, TooMany
from millpond.store.reading import BadValue
from millpond.store.store import Changes, Row, Store, WrongStage
from store.pond import Dump, Pond, everything

QUOTA = 500_000
LIMITED_TERMS = Terms("limited", QUOTA, LIMITED)
FULL_TERMS = Terms("full", None, FULL)
FORM = Form("sort our mail", "it may sort wrongly", True, GUIDELINES_VERSION)
TICKED = dict.fromkeys(CHECKLIST, True)
DAY_MS = 86_400_000


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


@pytest.fixture
def access(store: Store) -> Access:
    return Access(store)


@pytest.fixture
async def _acme(pond: Pond) -> None:
    """A limited org acme with an admin ann, and a flow for each endpoint under its name."""
    await create(pond)
    await Directory(pond.store).create_user("acme", "ann", "Ann", Role.ADMIN, by="ops")
    for endpoint in Endpoint:
        await join(pond, endpoint, flow=endpoint)


async def create(pond: Pond, org: str = "acme") -> None:
    await Directory(pond.store).create_org(
        org, org.title(), limits=LIMITED, quota=QUOTA, pool=org, by="ops"
    )


async def join(pond: Pond, endpoint: str, *, flow: str, user: str = "") -> None:
    """A flow takes its turns in a lane of acme, whose limits and quota stay as they are."""
    brought = replace(lane(endpoint=endpoint, quota=QUOTA), if_new=True)
    await pond.store.set_flow(flow, brought, attempts=3, crashes=3, user=user)


async def use(pond: Pond, characters: int) -> None:
    """So much was used of the quota before."""
    await pond.store.adjust("acme", "add", characters, by="ops", why="before us")


async def go(pond: Pond, most: int = 200) -> int:
    """The next decision: what waits is looked at, then calls are let go. How many went."""
    await pond.beat(free=10_000)
    await pond.store.promote(most)
    return (await pond.release(most))[0]


async def approve(
    access: Access, number: int = 1, *, by: str = "rev", why: str = "all is well"
) -> int:
    return await access.approve("acme", number, FULL_TERMS, TICKED, by=by, why=why)


async def standing(pond: Pond) -> Dump:
    """All that the server knows, once the lanes were looked at: that writes down their share."""
    for endpoint in Endpoint:
        await pond.store.explain(lane=f"acme.{endpoint}")
    return await everything(pond.redis)


def told(row: Row) -> tuple[str, list[list[str]], str | None]:
    """Who, what and why of a row of an audit."""
    return row.fields["by"], json.loads(row.fields["changes"]), row.fields.get("why")


async def latest(pond: Pond, org: str = "acme") -> tuple[str, list[list[str]], str | None]:
    [row] = await pond.store.records(org, "audit", most=1)
    return told(row)


# ---------------------------------------------------------------- two access modes


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize(
    ("mode", "endpoint", "in_a_minute"),
    [
        ("limited", "generate", 60),
        ("limited", "embed", 500),
        ("limited", "classify", 500),
        ("full", "generate", 10_000),
        ("full", "embed", 10_000),
        ("full", "classify", 10_000),
    ],
)
async def test_so_many_calls_go_in_a_minute(
    pond: Pond, access: Access, mode: str, endpoint: str, in_a_minute: int
) -> None:
    await access.apply("acme", FORM, by="ann")
    if mode == "full":
        await approve(access)
    await pond.add(endpoint, min(in_a_minute + 50, 700))

    gone = sum([await go(pond) for _ in range(5)])

    assert gone == min(in_a_minute, 700)


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize(
    ("mode", "endpoint", "limits"),
    [
        ("limited", "generate", [(60, 60_000), (50_000, DAY_MS)]),
        ("limited", "embed", [(500, 60_000), (100_000, DAY_MS)]),
        ("limited", "classify", [(500, 60_000), (100_000, DAY_MS)]),
        ("full", "generate", [(10_000, 60_000)]),
        ("full", "embed", [(10_000, 60_000)]),
        ("full", "classify", [(10_000, 60_000)]),
    ],
)
async def test_each_mode_has_its_limits_of_a_minute_and_of_a_day(
    pond: Pond, access: Access, mode: str, endpoint: str, limits: list[tuple[int, int]]
) -> None:
    await access.apply("acme", FORM, by="ann")
    if mode == "full":
        await approve(access)

    seen = (await pond.store.explain(lane=f"acme.{endpoint}")).lane

    assert [(one.amount, one.window_ms) for one in seen.windows] == limits


@pytest.mark.usefixtures("_acme")
async def test_limits_and_quota_are_one_sum_over_all_users_of_the_org(pond: Pond) -> None:
    await join(pond, "generate", flow="of-bob", user="bob")
    await join(pond, "generate", flow="of-eve", user="eve")
    await use(pond, QUOTA - 1_000)
    await pond.add("of-bob", 40)
    await pond.add("of-eve", 40)

    assert await go(pond) == 10  # of 100 characters each
    await pond.change(quota="none")
    assert await go(pond) == 50  # of 60 in a minute


@pytest.mark.usefixtures("_acme")
async def test_a_quota_that_is_reached_suspends_generate_and_nothing_else(pond: Pond) -> None:
    await use(pond, QUOTA)
    for endpoint in Endpoint:
        await pond.add(endpoint, 5)

    assert await go(pond) == 10

    assert [await pond.flight(endpoint) for endpoint in Endpoint] == [0, 5, 5]
    assert len(await pond.scores("f:generate:parked")) == 5


# ---------------------------------------------------------------- getting full access


@pytest.mark.usefixtures("_acme")
async def test_an_org_that_is_approved_has_its_new_terms_at_once(
    pond: Pond, access: Access
) -> None:
    await access.apply("acme", FORM, by="ann")

    await approve(access)

    org = await pond.store.org("acme")
    assert (org.mode, org.quota, org.left) == ("full", None, None)


@pytest.mark.usefixtures("_acme")
async def test_at_approval_the_quota_falls_away_and_what_waited_for_it_goes(
    pond: Pond, access: Access
) -> None:
    await use(pond, QUOTA - 250)
    await pond.add("generate", 100)
    assert await go(pond) == 2
    assert await go(pond) == 0
    await access.apply("acme", FORM, by="ann")

    await approve(access)

    assert await go(pond) == 98  # more than the 60 of a minute: the new limits hold as well
    assert await pond.scores("f:generate:parked") == {}


@pytest.mark.usefixtures("_acme")
async def test_at_approval_what_waited_for_the_minute_goes(pond: Pond, access: Access) -> None:
    await pond.add("generate", 100)
    await access.apply("acme", FORM, by="ann")
    assert await go(pond) == 60

    await approve(access)

    assert (await pond.release())[0] == 40


@pytest.mark.usefixtures("_acme")
async def test_used_characters_stay_on_record_at_approval_and_count_again_back_in_limited(
    pond: Pond, access: Access
) -> None:
    await use(pond, QUOTA - 1_000)
    await access.apply("acme", FORM, by="ann")
    await approve(access)
    assert (await pond.store.org("acme")).used == QUOTA - 1_000
    await use(pond, 2_000)

    await access.to_limited("acme", LIMITED_TERMS, by="ops", why="not in production")

    org = await pond.store.org("acme")
    assert (org.mode, org.quota, org.used, org.left) == ("limited", QUOTA, QUOTA + 1_000, -1_000)
    for endpoint in Endpoint:
        await pond.add(endpoint, 600)
    gone = sum([await go(pond) for _ in range(10)])
    assert gone == 500 + 500  # of embed and classify, under the limits of the limited mode
    by, changes, why = await latest(pond)
    assert (by, why) == ("ops", "not in production")
    assert ["org", "acme", "quota", "none", "500000"] in changes
    assert {change[1] for change in changes if change[0] == "lane"} == {
        f"acme.{endpoint}" for endpoint in Endpoint
    }


@pytest.mark.usefixtures("_acme")
async def test_what_is_kept_for_interactive_jobs_is_kept_under_the_new_limits(
    pond: Pond, access: Access
) -> None:
    kept = Changes(
        lane="acme.generate",
        limits=LIMITED[Endpoint.GENERATE],
        bulk=[replace(LIMITED[Endpoint.GENERATE][0], amount=50)],  # 10 of 60 are kept
    )
    await pond.store.change("acme", kept, by="ops")
    await access.apply("acme", FORM, by="ann")

    await approve(access)

    seen = (await pond.store.explain(lane="acme.generate")).lane
    assert [(one.amount, one.window_ms, one.unit) for one in seen.windows] == [
        (10_000, 60_000, "calls"),
        (9_990, 60_000, "bulk"),
    ]


# ---------------------------------------------------------------- the form


@pytest.mark.usefixtures("_acme")
async def test_an_application_holds_its_form_and_who_filled_it_in_and_when(
    pond: Pond, access: Access
) -> None:
    number = await access.apply("acme", FORM, by="ann")

    assert await access.application("acme", number) == Application(
        org="acme",
        number=1,
        stage=Stage.OPEN,
        form=FORM,
        by="ann",
        at_ms=pond.now_ms,
        talk=(),
        decision=None,
    )
    assert (await pond.store.org("acme")).application == 1


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_case": ""}, "use_case must be a text of 1 to 4,000 characters"),
        ({"use_case": "x" * 4_001}, "use_case must be a text"),
        ({"risks": " "}, "risks must be a text"),
        ({"risks": "\ud800"}, "risks must be a text"),
        ({"commitment": False}, "commitment must be true"),
        ({"guidelines": "2020-01"}, "not the present ones"),
    ],
)
async def test_a_form_that_is_not_complete_is_refused_and_changes_nothing(
    access: Access, redis: Redis, change: dict[str, Any], message: str
) -> None:
    before = await everything(redis)

    with pytest.raises(BadValue, match=message):
        await access.apply("acme", replace(FORM, **change), by="ann")

    assert await everything(redis) == before


@pytest.mark.usefixtures("_acme")
async def test_the_longest_texts_are_taken_and_count_as_characters(access: Access) -> None:
    form = replace(FORM, use_case="🦆" * 4_000, risks="é" * 4_000)

    number = await access.apply("acme", form, by="ann")

    assert (await access.application("acme", number)).form == form


@pytest.mark.usefixtures("_acme")
async def test_whoever_applies_accepts_the_guidelines_and_one_may_accept_them_before(
    pond: Pond, access: Access
) -> None:
    assert (await pond.store.org("acme")).guidelines == ""

    await access.accept_guidelines("acme", GUIDELINES_VERSION, by="bob")
    accepted_ms = pond.now_ms
    await pond.jump(1_000)
    await access.apply("acme", FORM, by="ann")

    org = await pond.store.org("acme")
    assert (org.guidelines, org.guidelines_by) == (GUIDELINES_VERSION, "bob")
    assert org.guidelines_at_ms == accepted_ms
    applied, accepted, *_ = await pond.store.records("acme", "audit", most=10)
    assert told(accepted) == ("bob", [["org", "acme", "guidelines", "", GUIDELINES_VERSION]], None)
    assert told(applied) == ("ann", [["application", "1", "stage", "", "open"]], None)


@pytest.mark.usefixtures("_acme")
async def test_older_guidelines_can_be_accepted_no_more(access: Access, redis: Redis) -> None:
    before = await everything(redis)

    with pytest.raises(BadValue, match=GUIDELINES_VERSION):
        await access.accept_guidelines("acme", "2020-01", by="ann")

    assert await everything(redis) == before


@pytest.mark.usefixtures("_acme")
async def test_one_application_of_an_org_waits_at_a_time(access: Access, redis: Redis) -> None:
    await access.apply("acme", FORM, by="ann")
    before = await everything(redis)

    with pytest.raises(AlreadyApplied, match="application 1 of org acme is not decided yet"):
        await access.apply("acme", replace(FORM, risks="others"), by="ann")
    assert await access.apply("acme", FORM, by="ann") == 1  # said again: it is the same
    assert await everything(redis) == before

    await access.ask("acme", 1, "Whose mail?", by="rev")
    with pytest.raises(AlreadyApplied):
        await access.apply("acme", FORM, by="ann")


@pytest.mark.usefixtures("_acme")
async def test_of_two_applications_at_once_one_is_taken(pond: Pond) -> None:
    done = await asyncio.gather(
        *(
            Access(pond.another_store()).apply("acme", replace(FORM, risks=f"risk {i}"), by="ann")
            for i in range(5)
        ),
        return_exceptions=True,
    )

    assert sorted(type(one).__name__ for one in done) == ["AlreadyApplied"] * 4 + ["int"]
    assert len((await Access(pond.store).desk()).entries) == 1


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("end", ["reject", "withdraw"])
async def test_one_may_apply_again_after_a_rejection_or_a_withdrawal(
    access: Access, end: str
) -> None:
    await access.apply("acme", FORM, by="ann")
    if end == "reject":
        await access.reject("acme", 1, {}, by="rev", why="too little")
    else:
        await access.withdraw("acme", 1, by="ann")

    assert await access.apply("acme", FORM, by="ann") == 2

    stages = [(one.number, one.stage) for one in await access.applications("acme")]
    assert stages == [
        (2, Stage.OPEN),
        (1, Stage.REJECTED if end == "reject" else Stage.WITHDRAWN),
    ]


@pytest.mark.usefixtures("_acme")
async def test_an_org_with_full_access_cannot_apply_until_it_is_limited_again(
    access: Access, redis: Redis
) -> None:
    await access.apply("acme", FORM, by="ann")
    await approve(access)
    before = await everything(redis)

    with pytest.raises(HasFullAccess):
        await access.apply("acme", FORM, by="ann")
    assert await everything(redis) == before

    await access.to_limited("acme", LIMITED_TERMS, by="ops", why="not in production")
    assert await access.apply("acme", FORM, by="ann") == 2


@pytest.mark.usefixtures("_acme")
async def test_of_the_applications_of_an_org_the_latest_hundred_are_kept(
    pond: Pond, access: Access
) -> None:
    for number in range(1, 103):
        assert await access.apply("acme", FORM, by="ann") == number
        await access.withdraw("acme", number, by="ann")

    assert [one.number for one in await access.applications("acme")] == list(range(102, 2, -1))
    assert len(await pond.keys_of("o:acme:app:")) == 100


async def test_an_org_that_a_run_made_can_apply_and_be_approved(pond: Pond, access: Access) -> None:
    await pond.open("1/60s", org="c0ffee", flow="f", quota=100)
    await access.apply("c0ffee", FORM, by="ann")

    await access.approve("c0ffee", 1, FULL_TERMS, TICKED, by="rev", why="all is well")

    org = await pond.store.org("c0ffee")
    assert (org.mode, org.quota) == ("full", None)
    [window] = (await pond.store.explain(lane="c0ffee.generate")).lane.windows
    assert (window.amount, window.window_ms) == (10_000, 60_000)


# ---------------------------------------------------------------- the review

Step = Literal["ask", "answer", "approve", "reject", "withdraw"]


async def take(access: Access, step: str, text: str = "because") -> None:
    if step == "ask":
        await access.ask("acme", 1, text, by="rev")
    elif step == "answer":
        await access.answer("acme", 1, text, by="ann")
    elif step == "approve":
        await approve(access, why=text)
    elif step == "reject":
        await access.reject("acme", 1, {"use_case_clear": False}, by="rev", why=text)
    else:
        await access.withdraw("acme", 1, by="ann", why=text)


_WAYS: dict[Stage, list[Step]] = {
    Stage.OPEN: [],
    Stage.ASKED: ["ask"],
    Stage.APPROVED: ["approve"],
    Stage.REJECTED: ["reject"],
    Stage.WITHDRAWN: ["withdraw"],
}


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("step", STEPS)
async def test_a_step_is_taken_from_where_it_may_be_and_else_refused_and_changes_nothing(
    access: Access, pond: Pond, stage: Stage, step: str
) -> None:
    await access.apply("acme", FORM, by="ann")
    for one in _WAYS[stage]:
        await take(access, one)
    assert (await access.application("acme", 1)).stage == stage
    before = await standing(pond)
    allowed, leads_to = STEPS[step]

    if stage in allowed:
        await take(access, step, "for another reason")
        assert (await access.application("acme", 1)).stage == leads_to
    else:
        with pytest.raises(WrongStage, match=f"application 1 of org acme is {stage}"):
            await take(access, step, "for another reason")
        assert await standing(pond) == before


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("step", STEPS)
async def test_a_step_said_again_is_taken_once(access: Access, pond: Pond, step: str) -> None:
    await access.apply("acme", FORM, by="ann")
    if step == "answer":
        await take(access, "ask")
    await take(access, step)
    before = await standing(pond)

    await take(access, step)

    assert await standing(pond) == before


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("step", STEPS)
async def test_each_step_has_its_row_with_who_and_why(
    pond: Pond, access: Access, step: str
) -> None:
    await access.apply("acme", FORM, by="ann")
    if step == "answer":
        await take(access, "ask")
    before = (await access.application("acme", 1)).stage

    await take(access, step, "my words")

    by, changes, why = await latest(pond)
    assert (by, why) == ("ann" if step in ("answer", "withdraw") else "rev", "my words")
    assert ["application", "1", "stage", before, STEPS[step][1]] in changes
    rows = await pond.store.records("acme", "audit", most=2)
    assert set(rows[0].fields) == {"at", "by", "version", "changes", "why"}
    assert int(rows[0].fields["version"]) == int(rows[1].fields["version"]) + 1


@pytest.mark.usefixtures("_acme")
async def test_what_was_asked_back_and_answered_is_kept_in_its_order(
    pond: Pond, access: Access
) -> None:
    await access.apply("acme", FORM, by="ann")
    await access.ask("acme", 1, "Whose mail?", by="rev")
    await pond.jump(1_000)
    await access.answer("acme", 1, "Our own.\nNobody else's.", by="bob")

    found = await access.application("acme", 1)

    assert found.stage == Stage.OPEN
    assert found.talk == (
        Word("ask", "rev", pond.now_ms - 1_000, "Whose mail?"),
        Word("answer", "bob", pond.now_ms, "Our own.\nNobody else's."),
    )


@pytest.mark.usefixtures("_acme")
async def test_not_more_is_asked_and_answered_than_anybody_reads(
    access: Access, redis: Redis
) -> None:
    await access.apply("acme", FORM, by="ann")
    for i in range(access_module.TALK_MOST // 2):
        await access.ask("acme", 1, f"question {i}", by="rev")
        await access.answer("acme", 1, f"answer {i}", by="ann")
    before = await everything(redis)

    with pytest.raises(TooMany, match="100 questions and answers"):
        await access.ask("acme", 1, "one more", by="rev")

    assert await everything(redis) == before


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("step", ["approve", "reject"])
async def test_a_decision_carries_who_when_why_and_the_checklist(
    pond: Pond, access: Access, step: str
) -> None:
    await access.apply("acme", FORM, by="ann")
    await pond.jump(1_000)

    await take(access, step, "as it is written")

    ticked = TICKED if step == "approve" else {"use_case_clear": False}
    decision = (await access.application("acme", 1)).decision
    assert decision == Decision("rev", pond.now_ms, "as it is written", ticked)


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("missing", CHECKLIST)
async def test_an_approval_without_every_item_ticked_is_refused_and_changes_nothing(
    access: Access, redis: Redis, missing: str
) -> None:
    await access.apply("acme", FORM, by="ann")
    before = await everything(redis)

    for ticked in (TICKED | {missing: False}, {k: v for k, v in TICKED.items() if k != missing}):
        with pytest.raises(BadValue, match=missing):
            await access.approve("acme", 1, FULL_TERMS, ticked, by="rev", why="well")

    assert await everything(redis) == before


@pytest.mark.usefixtures("_acme")
async def test_a_decision_without_a_reason_is_refused(access: Access, redis: Redis) -> None:
    await access.apply("acme", FORM, by="ann")
    before = await everything(redis)

    for refused in (
        approve(access, why=""),
        access.reject("acme", 1, {}, by="rev", why=" "),
        access.suspend("acme", by="ops", why=""),
        access.lift("acme", by="ops", why=""),
        access.to_limited("acme", LIMITED_TERMS, by="ops", why=""),
        access.ask("acme", 1, "", by="rev"),
    ):
        with pytest.raises(BadValue, match="must be a text"):
            await refused

    assert await everything(redis) == before


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("step", STEPS)
async def test_of_an_application_that_is_not_there_nothing_changes(
    access: Access, pond: Pond, step: str
) -> None:
    before = await standing(pond)

    with pytest.raises(UnknownPart, match="application"):
        await take(access, step)

    assert await standing(pond) == before


async def test_of_an_org_that_is_not_there_nothing_changes(access: Access, redis: Redis) -> None:
    before = await everything(redis)

    for refused in (
        access.apply("gone", FORM, by="ann"),
        access.accept_guidelines("gone", GUIDELINES_VERSION, by="ann"),
        access.approve("gone", 1, FULL_TERMS, TICKED, by="rev", why="well"),
        access.to_limited("gone", LIMITED_TERMS, by="ops", why="well"),
        access.suspend("gone", by="ops", why="well"),
        access.ask("gone", 1, "what?", by="rev"),
        access.applications("gone"),
    ):
        with pytest.raises(UnknownPart):
            await refused

    assert await everything(redis) == before


# ---------------------------------------------------------------- approvals at once, and cut off


@pytest.mark.usefixtures("_acme")
async def test_of_two_approvals_at_once_one_counts(pond: Pond, access: Access) -> None:
    await access.apply("acme", FORM, by="ann")
    accesses = [Access(pond.another_store()) for _ in range(5)]

    done = await asyncio.gather(
        *(approve(one, by=f"rev{i}") for i, one in enumerate(accesses)), return_exceptions=True
    )

    assert sorted(type(one).__name__ for one in done) == ["WrongStage"] * 4 + ["int"]
    rows = [told(row) for row in await pond.store.records("acme", "audit", most=100)]
    approvals = [row for row in rows if ["application", "1", "stage", "open", "approved"] in row[1]]
    assert len(approvals) == 1
    decision = (await access.application("acme", 1)).decision
    assert decision is not None
    assert decision.by == approvals[0][0]


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("other", ["reject", "withdraw", "ask"])
async def test_an_approval_that_comes_second_does_not_switch_the_org(
    pond: Pond, access: Access, other: str
) -> None:
    """Mode and approval change together: no org is full whose application was withdrawn."""
    await access.apply("acme", FORM, by="ann")
    first, second = Access(pond.another_store()), Access(pond.another_store())

    done = await asyncio.gather(take(first, other), approve(second), return_exceptions=True)

    stage, mode = (await access.application("acme", 1)).stage, (await pond.store.org("acme")).mode
    assert (mode == "full") == (stage == Stage.APPROVED)
    assert sum(isinstance(one, WrongStage) for one in done) == 1


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("cut", ["before", "after"])
async def test_an_approval_that_was_cut_off_is_finished_by_saying_it_again(
    pond: Pond, access: Access, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """Whoever heard no answer does not know whether it was taken: both ways lead to the same."""
    await use(pond, QUOTA)
    await pond.add("generate", 5)
    assert await go(pond) == 0
    await access.apply("acme", FORM, by="ann")
    run = pond.store.gateway.run

    async def cut_off(name: str, *args: Any, **how: Any) -> Any:
        if name != "set":
            return await run(name, *args, **how)
        if cut == "after":
            await run(name, *args, **how)
        raise StoreUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(pond.store.gateway, "run", cut_off)
        with pytest.raises(StoreUnavailable):
            await approve(access)
    stage = (await access.application("acme", 1)).stage
    assert stage == (Stage.APPROVED if cut == "after" else Stage.OPEN)
    assert ((await pond.store.org("acme")).mode == "full") == (stage == Stage.APPROVED)

    version = await approve(access)

    assert (await access.application("acme", 1)).stage == Stage.APPROVED
    assert (await pond.store.org("acme")).mode == "full"
    assert await approve(access) == version
    rows = [told(row) for row in await pond.store.records("acme", "audit", most=100)]
    assert sum(["application", "1", "stage", "open", "approved"] in row[1] for row in rows) == 1
    assert await go(pond) == 5


@pytest.mark.usefixtures("_acme")
async def test_an_org_that_was_switched_by_hand_is_approved_by_its_application_afterwards(
    pond: Pond, access: Access
) -> None:
    await access.apply("acme", FORM, by="ann")
    await pond.change(mode="full", quota="none")

    await approve(access)

    assert (await access.application("acme", 1)).stage == Stage.APPROVED


@pytest.mark.usefixtures("_acme")
async def test_an_approval_said_again_later_does_not_undo_what_came_after(
    pond: Pond, access: Access
) -> None:
    await access.apply("acme", FORM, by="ann")
    await approve(access)
    await access.to_limited("acme", LIMITED_TERMS, by="ops", why="not in production")

    await approve(access)

    assert (await pond.store.org("acme")).mode == "limited"


# ---------------------------------------------------------------- the desk


async def test_the_desk_has_what_waits_of_all_orgs_the_oldest_first_page_by_page(
    pond: Pond, access: Access
) -> None:
    for org in ("delta", "beta", "acme"):
        await create(pond, org)
        await access.apply(org, FORM, by="ann")
        await pond.jump(1)

    first = await access.desk(most=2)
    second = await access.desk(after=first.after or "", most=2)

    assert [one.org for one in first.entries] == ["delta", "beta"]
    assert [one.org for one in second.entries] == ["acme"]
    assert second.after is None


async def test_an_application_leaves_the_desk_while_it_is_asked_and_comes_back_to_its_place(
    pond: Pond, access: Access
) -> None:
    for org in ("acme", "beta"):
        await create(pond, org)
        await access.apply(org, FORM, by="ann")
        await pond.jump(1)
    await access.ask("acme", 1, "Whose mail?", by="rev")
    assert [one.org for one in (await access.desk()).entries] == ["beta"]
    assert [one.org for one in (await access.desk(Stage.ASKED)).entries] == ["acme"]

    await access.answer("acme", 1, "Ours.", by="ann")

    assert [one.org for one in (await access.desk()).entries] == ["acme", "beta"]
    assert (await access.desk(Stage.ASKED)).entries == ()


@pytest.mark.usefixtures("_acme")
@pytest.mark.parametrize("end", ["approve", "reject", "withdraw"])
@pytest.mark.parametrize("after", [[], ["ask"], ["ask", "answer"]])
async def test_what_is_decided_leaves_the_desk(access: Access, end: str, after: list[Step]) -> None:
    await access.apply("acme", FORM, by="ann")
    for step in after:
        await take(access, step)
    if end == "approve" and after == ["ask"]:
        await take(access, "answer")

    await take(access, end)

    assert (await access.desk()).entries == ()
    assert (await access.desk(Stage.ASKED)).entries == ()


# ---------------------------------------------------------------- suspension


@pytest.mark.usefixtures("_acme")
async def test_of_a_suspended_org_nothing_is_released_and_nothing_that_waits_is_lost(
    pond: Pond, access: Access
) -> None:
    for endpoint in Endpoint:
        await pond.add(endpoint, 5)

    await access.suspend("acme", by="ops", why="spam")

    for _ in range(3):
        assert await go(pond) == 0
        await pond.jump(60_000)
    assert [len(await pond.line(endpoint)) for endpoint in Endpoint] == [5, 5, 5]
    assert (await pond.store.org("acme")).suspended
    assert await latest(pond) == ("ops", [["org", "acme", "status", "active", "suspended"]], "spam")

    await access.lift("acme", by="ops", why="it was a mistake")

    assert await go(pond) == 15
    assert await latest(pond) == (
        "ops",
        [["org", "acme", "status", "suspended", "active"]],
        "it was a mistake",
    )


@pytest.mark.usefixtures("_acme")
async def test_calls_that_were_sent_before_a_suspension_end_and_are_charged(
    pond: Pond, access: Access
) -> None:
    [call] = await pond.run("j1", flow="generate")

    await access.suspend("acme", by="ops", why="spam")

    assert await pond.settle(call, used=70) == "settled"
    assert await pond.books() == (0, 0, 70)
    assert await pond.state("j1") == "succeeded"


@pytest.mark.usefixtures("_acme")
async def test_an_approval_does_not_lift_a_suspension(pond: Pond, access: Access) -> None:
    await pond.add("generate", 5)
    await access.apply("acme", FORM, by="ann")
    await access.suspend("acme", by="ops", why="spam")

    await approve(access)

    assert (await pond.store.org("acme")).suspended
    assert await go(pond) == 0
    await access.lift("acme", by="ops", why="it was a mistake")
    assert await go(pond) == 5


@pytest.mark.usefixtures("_acme")
async def test_the_suspension_of_one_org_holds_up_no_other(pond: Pond, access: Access) -> None:
    await pond.open(org="beta", flow="of-beta")
    await pond.add("generate", 5)
    await pond.add("of-beta", 5)
    await pond.beat("v", pool="beta")

    await access.suspend("acme", by="ops", why="spam")

    assert await go(pond) == 5
    assert await pond.line("of-beta") == []

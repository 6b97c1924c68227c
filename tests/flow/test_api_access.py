"""The access rules over HTTP, each row by its name: two modes, full access, suspension."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow.test_api_accounts import RIVER, Caller, Up, going_up, until
from millpond import Client
from millpond.client import BadRequest
from millpond.domain.account import CHECKLIST, GUIDELINES_VERSION
from millpond.producer.api.guidelines import GUIDELINES
from millpond.providers.catalogue import read_catalogue

ROOT = Path(__file__).parent.parent.parent
EMBED = {"endpoint": "embed", "text": "x"}
CLASSIFY = {
    "endpoint": "classify",
    "text": "good",
    "examples": [{"text": t, "label": w} for t, w in (("good", "yes"), ("bad", "no")) * 2],
}
#: A model that full access has and limited access has not.
NIGHTLY = {**RIVER, "model": "command-nightly"}
FORM = {
    "use_case": "sort our mail",
    "risks": "it may sort wrongly",
    "commitment": True,
    "guidelines": GUIDELINES_VERSION,
}
TICKED = dict.fromkeys(CHECKLIST, True)
COHERE = read_catalogue(None)["cohere"]
#: Too few characters for any call of generate.
NOTHING = 1
#: A change of access holds within a second; the rest is for whoever measures.
SOON_S = 1.5


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with going_up() as one:
        yield one


@pytest.fixture(scope="module")
def formal(up: Up) -> Caller:
    """An org that has not applied."""
    return up.org("formal")


def submit(caller: Caller, *jobs: Any) -> list[str]:
    told = caller.ok("POST", "/v1/jobs", list(jobs))["data"]
    return [one["id"] for one in told]


def job(caller: Caller, id: str, wait_s: int = 0) -> Any:
    return caller.ok("GET", f"/v1/jobs/{id}?wait={wait_s}")


def waits_for(caller: Caller, id: str) -> str:
    """What a job waits for; '' if it does not wait."""
    reason = job(caller, id)["reason"]
    return reason["why"] if reason else ""


def command_line(caller: Caller, *words: str, folder: Path, code: int = 0) -> str:
    """What the command line tells, to people and to programs, of whoever has the caller's key."""
    others = {name: text for name, text in os.environ.items() if not name.startswith("MILLPOND_")}
    told = subprocess.run(
        [sys.executable, "-m", "millpond", *words],
        cwd=folder,
        env=others | {"MILLPOND_URL": caller.url, "MILLPOND_API_KEY": caller.key or ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == code, told.stderr
    return told.stderr + told.stdout


def apply_and_approve(up: Up, caller: Caller, org: str) -> Any:
    number = caller.ok("POST", "/v1/access/application", FORM)["number"]
    approval = {"checklist": TICKED, "why": "fine"}
    return up.operator.ok("POST", f"/v1/access/{org}/{number}/approve", approval)


# ---- two access modes, per organisation


def test_every_new_org_is_limited_by_the_rules_rates_and_quota(up: Up) -> None:
    org = up.org("new")
    assert org.ok("GET", "/v1/access")["mode"] == "limited"
    assert up.operator.ok("GET", "/v1/orgs/new")["limits"] == {
        "generate": "60/60s,50000/1d",
        "embed": "500/60s,100000/1d",
        "classify": "500/60s,100000/1d",
    }
    assert org.ok("GET", "/v1/orgs/me")["quota"] == 500_000


def test_limited_access_is_for_testing_and_says_so(up: Up, formal: Caller, tmp_path: Path) -> None:
    for path in ("/v1/users/me", "/v1/jobs", "/v1/limits"):
        assert formal("GET", path).headers["Millpond-Access"] == "limited"
    page = up.caller(None)("GET", "/playground/access").body.decode()
    assert "limited mode, for tests and experiments. For production it applies for full" in page

    (tmp_path / "q.jsonl").write_text('{"prompt": "Name a river."}\n')
    assert "limited access: for testing" in command_line(
        formal, "run", "q.jsonl", "--dry-run", folder=tmp_path
    )
    told = command_line(formal, "run", "q.jsonl", "--url", up.url, folder=tmp_path)
    assert "limited access, for testing; `millpond access` tells the way to full access" in told


@pytest.mark.parametrize("mode", ["limited", "full"])
def test_the_ways_in_are_the_same_in_both_modes(up: Up, mode: str, tmp_path: Path) -> None:
    org = up.org(f"ways-{mode}")
    if mode == "full":
        apply_and_approve(up, org, f"ways-{mode}")
    assert org.key is not None

    # The page asks what it shows over HTTP, with the caller's key.
    assert up.caller(None)("GET", "/playground/access").status == 200
    assert org.ok("GET", "/v1/access")["mode"] == mode
    assert job(org, submit(org, RIVER)[0], 20)["state"] == "succeeded"
    with Client(up.url, org.key, timeout=20) as client:
        assert client.generate("Name a river.", params={"max_tokens": 5}).text
    assert command_line(
        org, "generate", "Name a river.", "--param", "max_tokens=5", folder=tmp_path
    )
    assert f": {mode} access" in command_line(org, "own", "show", folder=tmp_path)


def test_a_limited_org_asks_all_three_endpoints(up: Up) -> None:
    org = up.org("three")
    for id in submit(org, RIVER, EMBED, CLASSIFY):
        assert job(org, id, 20)["state"] == "succeeded"


def test_which_models_there_are_depends_on_the_mode(up: Up) -> None:
    org = up.org("models")
    refused = org("POST", "/v1/jobs", NIGHTLY)
    assert (refused.status, refused.pointers) == (422, ["/model"])
    assert "command-nightly" not in [one["id"] for one in org.ok("GET", "/v1/models")["data"]]

    apply_and_approve(up, org, "models")

    until(lambda: org("POST", "/v1/jobs", NIGHTLY).status == 202, SOON_S)
    assert "command-nightly" in [one["id"] for one in org.ok("GET", "/v1/models")["data"]]


#: Of `millpond run`, which a caller of the service does not use.
OF_RUNS = ("--", "MILLPOND_", "millpond models")


@pytest.mark.parametrize(
    ("model", "way_out", "of_runs"),
    [
        ("nope", ["POST /v1/models", "`millpond own add-model`"], "--model-unchecked"),
        (
            "command-nightly",
            ["POST /v1/access/application", "`millpond access apply`"],
            "With full access: --mode full",
        ),
    ],
)
def test_a_model_that_is_refused_is_told_with_the_way_out_of_whoever_asks(
    up: Up, formal: Caller, tmp_path: Path, model: str, way_out: list[str], of_runs: str
) -> None:
    [error] = formal("POST", "/v1/jobs", {**RIVER, "model": model}).json["errors"]
    assert formal.key is not None
    with Client(up.url, formal.key, timeout=20) as client, pytest.raises(BadRequest) as refused:
        client.generate("Name a river.", model=model)
    asked = ("generate", "Name a river.", "--model", model)
    told = command_line(formal, *asked, folder=tmp_path, code=1)
    for text in (error["detail"], str(refused.value), told):
        assert f"model '{model}' " in text
        assert [one for one in way_out if one not in text] == []
        assert [one for one in OF_RUNS if one in text] == []

    (tmp_path / "q.jsonl").write_text('{"prompt": "x"}\n')
    run = ("run", "q.jsonl", "--dry-run", "--model", model)
    assert of_runs in command_line(formal, *run, folder=tmp_path, code=2)


def test_a_fine_tuned_model_may_be_asked_by_its_own_org_alone(up: Up) -> None:
    org, other = up.org("tuners"), up.org("strangers")
    org.ok("POST", "/v1/models", {"id": "tuners-ft", "base": "command"})
    mine = {**RIVER, "model": "tuners-ft"}

    assert org("POST", "/v1/jobs", mine).status == 202
    refused = other("POST", "/v1/jobs", mine)
    assert (refused.status, refused.pointers) == (422, ["/model"])


def test_full_access_has_the_three_sizes_of_models_and_all_of_the_catalogue(up: Up) -> None:
    org = up.org("sizes")
    before = {one["id"] for one in org.ok("GET", "/v1/models")["data"]}
    apply_and_approve(up, org, "sizes")
    until(lambda: org("POST", "/v1/jobs", NIGHTLY).status == 202, SOON_S)

    models = org.ok("GET", "/v1/models")["data"]

    assert {one["id"] for one in models} == set(COHERE) > before
    assert {one["size"] for one in models} == {"small", "medium", "large"}
    asked = (
        {**RIVER, "model": "command-light-nightly"},
        {**EMBED, "model": "embed-english-light-v3.0"},
        {**EMBED, "model": "embed-v4.0"},
        {**CLASSIFY, "model": "embed-multilingual-v3.0"},
    )
    for id in submit(org, *asked):
        assert job(org, id, 20)["state"] == "succeeded"


def test_full_access_has_the_same_endpoints_at_raised_rates_and_no_quota(up: Up) -> None:
    org = up.org("raised")
    apply_and_approve(up, org, "raised")

    for id in submit(org, RIVER, EMBED, CLASSIFY):
        assert job(org, id, 20)["state"] == "succeeded"
    told = org.ok("GET", "/v1/limits")["endpoints"]
    rates = {endpoint: [one["limit"] for one in lane["limits"]] for endpoint, lane in told.items()}
    raised = ["10000/60s"]
    assert rates == {"generate": raised, "embed": raised, "classify": raised}
    assert org.ok("GET", "/v1/orgs/me")["quota"] is None


def test_a_fine_tuned_model_works_the_same_in_full_access(up: Up) -> None:
    org, other = up.org("tuners-full"), up.org("strangers-full")
    org.ok("POST", "/v1/models", {"id": "tuners-full-ft", "base": "command-nightly"})
    mine = {**RIVER, "model": "tuners-full-ft"}
    # It may be asked where its base may be, and that is for full access.
    refused = org("POST", "/v1/jobs", mine)
    assert (refused.status, refused.pointers) == (422, ["/model"])
    for caller, name in ((org, "tuners-full"), (other, "strangers-full")):
        apply_and_approve(up, caller, name)

    until(lambda: org("POST", "/v1/jobs", mine).status == 202, SOON_S)

    [id] = submit(org, mine)
    assert job(org, id, 20)["state"] == "succeeded"
    until(lambda: other("POST", "/v1/jobs", NIGHTLY).status == 202, SOON_S)
    refused = other("POST", "/v1/jobs", mine)
    assert (refused.status, refused.pointers) == (422, ["/model"])


# ---- counting


def test_characters_are_summed_over_all_users_of_the_org(up: Up) -> None:
    org = up.org("sum")
    other = up.user(org, "second")
    used = 0
    for caller in (org, other):
        [id] = submit(caller, RIVER)
        told = job(caller, id, 20)["result"]["characters"]
        used += told["input"] + told["output"]
    assert org.ok("GET", "/v1/orgs/me")["used"] == used > 0


def test_a_spent_quota_stops_generate_and_nothing_else(up: Up) -> None:
    org = up.org("spent", quota=NOTHING)
    other = up.user(org, "second")
    generate, embed, classify = submit(org, RIVER, EMBED, CLASSIFY)
    [theirs] = submit(other, RIVER)

    assert job(org, embed, 20)["state"] == "succeeded"
    assert job(org, classify, 20)["state"] == "succeeded"
    assert {waits_for(org, id) for id in (generate, theirs)} == {"quota"}
    for path in ("/v1/orgs/me", "/v1/limits", "/v1/usage", "/v1/access", "/v1/jobs"):
        assert other("GET", path).status == 200


def test_rates_are_one_sum_over_all_users_of_an_endpoint(up: Up) -> None:
    org = up.org("rates", limits={"embed": "2/60s"})
    other = up.user(org, "second")
    # Several texts: each of these is a call alone. Single texts could share one.
    texts = {"endpoint": "embed", "inputs": ["x", "y"]}
    first, second = submit(org, texts), submit(other, texts)
    for id in first + second:
        assert job(org, id, 20)["state"] == "succeeded"

    [third] = submit(other, texts)

    until(lambda: waits_for(other, third) == "limit")
    assert job(org, submit(org, CLASSIFY)[0], 20)["state"] == "succeeded"


def test_a_user_may_be_capped_and_the_others_go_on(up: Up) -> None:
    org = up.org("capped")
    other = up.user(org, "second")
    texts = {"endpoint": "embed", "inputs": ["x", "y"]}
    told = org.ok("PUT", "/v1/limits/per-user", {"limits": {"embed": "1/60s"}, "why": "fair"})
    [cap] = [one for one in told["endpoints"]["embed"]["limits"] if one["scope"] == "user"]
    assert (cap["limit"], cap["used"], cap["amount"]) == ("1/60s per user", 0, 1)

    [first], [second] = submit(org, texts), submit(other, texts)
    for id in (first, second):
        assert job(org, id, 20)["state"] == "succeeded"
    [third] = submit(other, texts)
    until(lambda: waits_for(other, third) == "limit")
    waiting = job(other, third)
    assert waiting["reason"]["limit"] == "1/60s per user"
    assert 0 < waiting["reason"]["next_release"]["in_s"] <= 60
    # A text that may ride along in nobody's call, of a user who has not had any.
    assert job(org, submit(org, CLASSIFY)[0], 20)["state"] == "succeeded"

    org.ok("PUT", "/v1/limits/per-user", {"limits": {"embed": None}})
    assert job(other, third, 20)["state"] == "succeeded"
    rows = org.ok("GET", "/v1/audit")["data"]
    assert ["fair", ["caps", "", '[[1,60000,"calls",false]]']] in [
        [row["why"], [change["field"], change["from"], change["to"]]]
        for row in rows
        for change in row["changes"]
    ]


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({}, "at least 1 item"),
        ({"embed": "20"}, "is no limit"),
        ({"embed": "20000tokens/60s"}, "counts calls"),
        ({"embed": "5@once"}, "counts calls of a window"),
        ({"embed": "5/60s,6/60s"}, "the same window"),
        ({"embedding": "5/60s"}, "embedding"),
    ],
)
def test_a_bad_cap_is_refused_and_named(up: Up, formal: Caller, limits: Any, says: str) -> None:
    refused = formal("PUT", "/v1/limits/per-user", {"limits": limits})
    assert refused.status == 422
    assert says in json.dumps(refused.json)


def test_a_member_caps_nobody(up: Up, formal: Caller) -> None:
    member = up.user(formal, "capless")
    assert member("PUT", "/v1/limits/per-user", {"limits": {"embed": "5/60s"}}).status == 403


def test_the_endpoint_is_there_again_as_soon_as_the_window_has_room(up: Up) -> None:
    org = up.org("window", limits={"generate": "1/2s"})
    began = time.monotonic()
    for id in submit(org, RIVER, RIVER):
        assert job(org, id, 20)["state"] == "succeeded"
    assert 2 <= time.monotonic() - began < 8


def test_the_window_slides_with_the_calls(up: Up) -> None:
    """Each call has two in the three seconds before it at most, whatever the clock shows."""
    org = up.org("slides", limits={"embed": "2/3s"})
    texts = {"endpoint": "embed", "inputs": ["x", "y"]}
    asked, answered = [], []
    for pause_s in (0, 1, 0, 0):
        time.sleep(pause_s)  # so that the first leaves the window before the second
        asked.append(time.monotonic())
        [id] = submit(org, texts)
        assert job(org, id, 20)["state"] == "succeeded"
        answered.append(time.monotonic())

    assert 3 <= answered[2] - asked[0] < 3 + SOON_S
    assert 3 <= answered[3] - asked[1] < 3 + SOON_S


@pytest.mark.parametrize(("limit", "window_s"), [("1/60s", 60), ("1/1d", 86_400)])
def test_a_minute_and_a_day_begin_with_the_call_and_not_with_the_calendar(
    up: Up, limit: str, window_s: int
) -> None:
    org = up.org(f"calendar-{window_s}", limits={"embed": limit})
    texts = {"endpoint": "embed", "inputs": ["x", "y"]}
    assert job(org, submit(org, texts)[0], 20)["state"] == "succeeded"

    [waiting] = submit(org, texts)

    until(lambda: waits_for(org, waiting) == "limit")
    assert window_s - 10 <= job(org, waiting)["reason"]["next_release"]["in_s"] <= window_s


# ---- getting full access


def test_approval_lifts_limits_and_quota_and_releases_what_waited(up: Up) -> None:
    org = up.org("grown", quota=NOTHING)
    waiting = submit(org, RIVER, RIVER)
    until(lambda: waits_for(org, waiting[0]) == "quota")

    approved = apply_and_approve(up, org, "grown")

    until(lambda: _released(org, waiting) == len(waiting), SOON_S)
    until(lambda: org("GET", "/v1/users/me").headers["Millpond-Access"] == "full", SOON_S)
    assert (approved["stage"], approved["decision"]["checklist"]) == ("approved", TICKED)
    for id in waiting:
        assert job(org, id, 10)["state"] == "succeeded"
    told = org.ok("GET", "/v1/limits")["endpoints"]["generate"]["limits"]
    assert [one["amount"] for one in told] == [10_000]
    me = org.ok("GET", "/v1/orgs/me")
    assert (me["mode"], me["quota"]) == ("full", None)
    again = org("POST", "/v1/access/application", FORM)
    assert (again.status, again.json["code"]) == (409, "has_full_access")


def test_a_reviewer_asks_back_rejects_and_the_org_may_apply_again(up: Up) -> None:
    org = up.org("asked")
    member = up.user(org, "writer")
    assert member.ok("POST", "/v1/access/application", FORM)["stage"] == "open"
    desk = up.operator.ok("GET", "/v1/access/desk?limit=1000")["data"]
    assert [one["number"] for one in desk if one["org"] == "asked"] == [1]
    waiting = member("POST", "/v1/access/application", {**FORM, "risks": "others"})
    assert (waiting.status, waiting.json["code"]) == (409, "already_applied")
    early = member("POST", "/v1/access/application/answer", {"text": "so"})
    assert (early.status, early.json["code"]) == (409, "wrong_stage")

    review = "/v1/access/asked/1"
    up.operator.ok("POST", f"{review}/ask", {"question": "Whose mail?"})
    asked = up.operator.ok("GET", "/v1/access/desk?stage=asked")["data"]
    assert [one["org"] for one in asked] == ["asked"]
    decided = up.operator("POST", f"{review}/approve", {"checklist": TICKED, "why": "fine"})
    assert (decided.status, decided.json["code"]) == (409, "wrong_stage")
    talk = member.ok("POST", "/v1/access/application/answer", {"text": "Ours."})["talk"]
    assert [(one["how"], one["text"]) for one in talk] == [
        ("ask", "Whose mail?"),
        ("answer", "Ours."),
    ]
    up.operator.ok("POST", f"{review}/reject", {"why": "too vague", "checklist": {}})

    access = member.ok("GET", "/v1/access")
    assert (access["mode"], access["application"]["stage"]) == ("limited", "rejected")
    assert access["application"]["decision"]["why"] == "too vague"
    assert access["application"]["decision"]["checklist"] is None
    assert member.ok("POST", "/v1/access/application", FORM)["number"] == 2
    withdrawn = member.ok("POST", "/v1/access/application/withdraw", {"why": "not yet"})
    assert withdrawn["stage"] == "withdrawn"
    assert [one["number"] for one in member.ok("GET", "/v1/access")["history"]] == [1]


def test_an_approval_needs_every_item_of_the_checklist_and_a_reason(up: Up) -> None:
    org = up.org("checked")
    org.ok("POST", "/v1/access/application", FORM)
    for body, pointer in (
        ({"checklist": {**TICKED, CHECKLIST[0]: False}, "why": "fine"}, "/checklist"),
        ({"checklist": TICKED}, "/why"),
        ({"checklist": {"A b": True}, "why": "fine"}, "/checklist"),
        ({"checklist": TICKED, "why": "fine", "limits": {"embed": "x"}}, "/limits/embed"),
    ):
        answer = up.operator("POST", "/v1/access/checked/1/approve", body)
        assert (answer.status, answer.pointers) == (422, [pointer])
    assert org.ok("GET", "/v1/access")["application"]["stage"] == "open"


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"commitment": False}, "/commitment"),
        ({"use_case": ""}, "/use_case"),
        ({"risks": " "}, "/risks"),
        ({"risks": "x" * 4_001}, "/risks"),
        ({"guidelines": "2020-01"}, "/guidelines"),
        ({"org": "demo"}, "/org"),
    ],
)
def test_the_form_is_whole_or_it_is_no_application(
    formal: Caller, changed: Any, pointer: str
) -> None:
    answer = formal("POST", "/v1/access/application", {**FORM, **changed})
    assert (answer.status, answer.pointers) == (422, [pointer])


def test_guidelines_are_accepted_by_themselves_in_their_present_version(up: Up) -> None:
    org = up.org("reader")
    old = org("POST", "/v1/access/guidelines", {"version": "2020-01"})
    assert (old.status, old.pointers) == (422, ["/version"])
    told = org.ok("POST", "/v1/access/guidelines", {"version": GUIDELINES_VERSION})
    assert (told["accepted"], told["accepted_by"]) == (GUIDELINES_VERSION, "admin")
    access = org.ok("GET", "/v1/access")
    assert (access["application"], access["text"]) == (None, list(GUIDELINES))
    none = org("POST", "/v1/access/application/withdraw")
    assert none.status == 404


# ---- back to limited, suspension


def test_back_in_limited_mode_what_was_used_counts_again(up: Up) -> None:
    org = up.org("back")
    apply_and_approve(up, org, "back")
    job(org, submit(org, RIVER)[0], 20)
    used = org.ok("GET", "/v1/orgs/me")["used"]
    assert used > 0

    told = up.operator.ok("POST", "/v1/orgs/back/to-limited", {"why": "unpaid", "quota": used})

    assert (told["mode"], told["quota"], told["used"]) == ("limited", used, used)
    assert told["limits"]["generate"] == "60/60s,50000/1d"
    [id] = submit(org, RIVER)
    until(lambda: waits_for(org, id) == "quota", SOON_S)
    until(lambda: org("GET", "/v1/users/me").headers["Millpond-Access"] == "limited", SOON_S)
    until(lambda: org("POST", "/v1/jobs", NIGHTLY).status == 422, SOON_S)
    # The org may apply again, and what waits goes once more.
    apply_and_approve(up, org, "back")
    until(lambda: _released(org, [id]) == 1, SOON_S)
    assert job(org, id, 10)["state"] == "succeeded"


def test_a_suspension_stops_releases_within_a_second_and_loses_nothing(up: Up) -> None:
    org = up.org("stopped", limits={"generate": "5/1s"})
    ids = submit(org, *[RIVER] * 25)
    until(lambda: _released(org, ids) >= 3)

    up.operator.ok("POST", "/v1/orgs/stopped/suspend", {"why": "abuse"})
    suspended_at = time.monotonic()
    until(lambda: org("POST", "/v1/jobs", RIVER).status == 403, SOON_S)
    time.sleep(max(0, suspended_at + 1 - time.monotonic()))
    released = _released(org, ids)
    refused = org("POST", "/v1/jobs", RIVER)
    assert (refused.status, refused.json["code"]) == (403, "suspended")
    # Longer than the limit's window: one that is not suspended would have had five more.
    time.sleep(2)
    assert _released(org, ids) == released < len(ids)
    assert org.ok("GET", "/v1/orgs/me")["suspended"] is True

    up.operator.ok("POST", "/v1/orgs/stopped/lift", {"why": "settled"})

    until(lambda: _released(org, ids) > released, SOON_S)
    until(lambda: org("POST", "/v1/jobs", EMBED).status == 202, SOON_S)
    until(lambda: _released(org, ids) == len(ids))
    assert {job(org, id, 10)["state"] for id in ids} == {"succeeded"}
    why = [row["why"] for row in up.operator.ok("GET", "/v1/orgs/stopped/audit")["data"]]
    assert why[:2] == ["settled", "abuse"]


def test_an_approval_does_not_lift_a_suspension(up: Up) -> None:
    org = up.org("both")
    org.ok("POST", "/v1/access/application", FORM)
    up.operator.ok("POST", "/v1/orgs/both/suspend", {"why": "abuse"})
    up.operator.ok("POST", "/v1/access/both/1/approve", {"checklist": TICKED, "why": "fine"})
    me = org.ok("GET", "/v1/orgs/me")
    assert (me["mode"], me["suspended"]) == ("full", True)
    assert org("POST", "/v1/jobs", RIVER).status == 403


def _released(org: Caller, ids: list[str]) -> int:
    """How many of these jobs wait no more."""
    queued = org.ok("GET", "/v1/jobs?state=queued&limit=1000")["data"]
    return len(ids) - len(queued)


# ---- the page


def test_the_page_asks_for_nothing_from_elsewhere_and_holds_no_script(up: Up) -> None:
    anybody = up.caller(None)
    page = anybody("GET", "/playground/access")
    text = page.body.decode()
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "unsafe" not in policy
    assert not re.search(r"https?://|\son\w+=|style=|<style|<script(?! type=\"module\" src=)", text)
    assert 'id="key" type="password"' in text
    assert "<noscript>" in text
    for path in re.findall(r'(?:src|href)="([^"]*)"', text):
        assert anybody("GET", f"/playground/{path}").status == 200

    script = anybody("GET", "/playground/access.js")
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
    told = script.body.decode()
    assert not re.search(r"https?://|innerHTML|eval|localStorage|sessionStorage|cookie", told)
    # What the script takes by its id is on the page.
    assert {f'id="{id}"' for id in re.findall(r'at\("(\w+)"\)', told)} <= set(
        re.findall(r'id="\w+"', text)
    )


#: A page's elements, as far as the script knows them: each form is sent as a person would.
BROWSER = """
const [page, key] = process.argv.slice(1);
const elements = new Map();
const element = (id) => ({
  id, value: "", textContent: "", hidden: id !== "who", checked: false, children: [], sent: null,
  addEventListener(_, listener) { this.sent = listener; },
  replaceChildren(...children) { this.children = children; },
});
globalThis.document = {
  getElementById(id) {
    if (!elements.has(id)) elements.set(id, element(id));
    return elements.get(id);
  },
  createElement: () => element(""),
};
const ask = globalThis.fetch;
globalThis.fetch = (path, options) => ask(new URL(path, page), options);
const at = (id) => document.getElementById(id);
const send = async (id) => {
  await at(id).sent({ preventDefault() {}, submitter: {} });
  const shown = ["application", "answer", "withdraw"].filter((one) => !at(one).hidden);
  console.log(JSON.stringify([at("told").textContent, at("stage").textContent, shown]));
};
const script = await (await ask(new URL("access.js", page))).text();
await import("data:text/javascript," + encodeURIComponent(script));
at("key").value = key;
await send("who");
at("use_case").value = "mail";
await send("application");
at("risks").value = "some";
at("commitment").checked = true;
await send("application");
await send("withdraw");
at("key").value = "wrong";
await send("who");
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_of_the_page_shows_the_state_and_sends_the_forms(up: Up) -> None:
    key = up.org("browser").key
    assert key is not None
    told = subprocess.run(
        ["node", "--input-type=module", "-e", BROWSER, f"{up.url}/playground/access", key],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    first, incomplete, applied, withdrawn, wrong = map(json.loads, told.stdout.splitlines())
    assert first == ["", "none", ["application"]]
    assert "/risks: " in incomplete[0]
    assert "/commitment: " in incomplete[0]
    assert applied == ["Sent. A reviewer will look at it.", "open", ["withdraw"]]
    assert withdrawn == ["Withdrawn.", "withdrawn", ["application"]]
    assert wrong[0].startswith("Send a key that holds")


def test_the_guidelines_are_the_same_wherever_they_stand(up: Up) -> None:
    page = up.caller(None)("GET", "/playground/access").body.decode()
    document = (ROOT / "docs" / "guidelines.md").read_text()
    assert f"Version **{GUIDELINES_VERSION}**" in document
    assert re.findall(r"^\d+\. (.*)$", document, re.MULTILINE) == list(GUIDELINES)
    assert re.findall(r"<li>(.*)</li>", page) == list(GUIDELINES)
    assert GUIDELINES_VERSION in page

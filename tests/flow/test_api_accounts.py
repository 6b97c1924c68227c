"""Accounts over HTTP: `millpond up` in an empty folder, three orgs, and who may do what to whom."""

import asyncio
import base64
import http.client
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from millpond.domain.account import Role
from millpond.domain.limit import LIMITED
from millpond.producer.api import users
from millpond.producer.http.listener import serve
from millpond.producer.http.table import EVENT_STREAM, Route, Who
from millpond.producer.main import Service
from millpond.producer.waiting import Waiting
from millpond.settings import Settings
from millpond.store.api_keys import ApiKeys
from millpond.store.directory import Directory
from millpond.store.gateway import Gateway
from millpond.store.key_text import Kind, make_key_text
from millpond.store.sealing import read_master_keys
from millpond.store.singles import Singles
from millpond.store.store import Store

DEADLINE_S = 20
#: A key that is good no more is believed for 5 s; the rest is for whoever measures.
KEY_GOES_S = 5.5

RIVER = {"endpoint": "generate", "prompt": "Name a river.", "params": {"max_tokens": 5}}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def pointers(self) -> list[str]:
        return [one["pointer"] for one in self.json.get("errors", [])]

    def without(self, id: str) -> tuple[int, str]:
        """What came, but for the id that was asked for and that of the request."""
        text = re.sub(r'"request_id":"[^"]*"', "", self.body.decode())
        return self.status, text.replace(id, "…")


@dataclass(frozen=True)
class Caller:
    """Somebody who has a key, or none."""

    url: str
    key: str | None

    def __call__(self, method: str, path: str, body: Any = None) -> Answer:
        """One request on a connection of its own. Of a stream of events the head is read."""
        headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        sent = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            sent = json.dumps(body)
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=DEADLINE_S)
        try:
            connection.request(method, path, sent, headers)
            reply = connection.getresponse()
            is_stream = (reply.headers.get_content_type() == EVENT_STREAM) and reply.status == 200
            return Answer(reply.status, dict(reply.headers), b"" if is_stream else reply.read())
        finally:
            connection.close()

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """What is told by a reply that must be good."""
        answer = self(method, path, body)
        assert 200 <= answer.status < 300, (method, path, answer.status, answer.body)
        return answer.json if answer.body else None


@dataclass(frozen=True)
class Up:
    """A process tree that serves."""

    url: str
    admin_url: str
    operator: Caller

    def caller(self, key: str | None) -> Caller:
        return Caller(self.url, key)

    def org(self, id: str, **more: Any) -> Caller:
        """A new org; its first admin, whose id is `admin`."""
        asked = {"id": id, "name": id.title(), "admin": {"id": "admin", "name": "Ann"}, **more}
        return self.caller(self.operator.ok("POST", "/v1/orgs", asked)["key"]["key"])

    def user(self, admin: Caller, id: str, role: str = "member") -> Caller:
        """A new user of an admin's org."""
        admin.ok("POST", "/v1/users", {"id": id, "name": id.title(), "role": role})
        made = admin.ok("POST", "/v1/keys", {"name": f"of {id}", "user": id})
        return self.caller(made["key"])


@contextmanager
def going_up() -> Iterator[Up]:
    with tempfile.TemporaryDirectory(prefix="millpond-api-") as folder:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "millpond", "up", "--json", "--data-dir", folder),
                *("--port", "0", "--operator-port", "0"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            operator = Caller(told["admin_url"], told["admin_key"])
            yield Up(told["url"], told["admin_url"], operator)
            log = Path(folder, "log").read_text(errors="replace")
            assert "request_failed" not in log
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with going_up() as one:
        yield one


def until(true: Callable[[], object], seconds: float = DEADLINE_S) -> float:
    """Look until something is true; how long that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() < began + seconds, f"it did not happen in {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


# ---- who may do what: generated from the tables of routes


MASTERS = read_master_keys(Settings(master_key=SecretStr(base64.b64encode(b"m" * 32).decode())))


def service(store: Store, **settings: Any) -> Service:
    """The API in this process, without anybody who works."""
    return Service(Settings(**settings), store, Waiting(Singles(store.gateway)), MASTERS)


def tables() -> tuple[list[Route], list[Route]]:
    """The routes of users and of operators."""
    nowhere = service(Store(Gateway(Redis.from_url("unix:///nowhere"), "t")))
    return nowhere.user_routes(), nowhere.operator_routes()


USERS, OPERATORS = tables()
WITH_KEY = [route for route in (*USERS, *OPERATORS) if route.who is not Who.ANYBODY]
#: Bodies that are right, so that what is asked for is looked for.
BODIES = {"change_user": {"suspended": True}}
#: What a suspended org may write.
ALWAYS = {"revoke_key", "cancel_job", "delete_job"}


def name(route: Route) -> str:
    return f"{'operator ' if route.who is Who.OPERATOR else ''}{route.method} {route.path}"


def each(routes: list[Route]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", routes, ids=name)


@dataclass(frozen=True)
class Orgs:
    """Two that have nothing to do with each other, and one that is suspended."""

    acme: Caller
    acme_member: Caller
    beta: Caller
    gone: Caller
    gone_member: Caller
    #: Of acme, by the collection that it is in.
    ids: dict[str, str]


@pytest.fixture(scope="module")
def orgs(up: Up) -> Orgs:
    acme, beta, gone = up.org("acme"), up.org("beta"), up.org("gone")
    member, gone_member = up.user(acme, "abe"), up.user(gone, "gil")
    acme.ok("POST", "/v1/models", {"id": "acme/ft:1", "base": "command"})
    ids = {
        "jobs": acme.ok("POST", "/v1/jobs", RIVER)["id"],
        "users": "abe",
        "keys": member.ok("GET", "/v1/keys")["data"][0]["id"],
        "models": "acme/ft:1",
    }
    up.operator.ok("POST", "/v1/orgs/gone/suspend", {"why": "spam"})
    until(lambda: gone("POST", "/v1/users", {}).status == 403, 1.5)
    return Orgs(acme, member, beta, gone, gone_member, ids)


def ask(caller: Caller, route: Route, id: str = "nobody") -> Answer:
    path = re.sub(r"{\w+}", quote(id, safe=""), route.path)
    body = BODIES.get(route.operation, {}) if route.has_body else None
    return caller(route.method, path, body)


def listener_of(up: Up, route: Route) -> str:
    return up.admin_url if route.who is Who.OPERATOR else up.url


def test_only_pages_that_hold_nothing_are_for_anybody() -> None:
    assert {route.path for route in (*USERS, *OPERATORS) if route.who is Who.ANYBODY} == {
        "/playground/access",
        "/playground/access.js",
        "/playground/access.css",
    }
    assert {route.who for route in OPERATORS} == {Who.OPERATOR}
    assert Who.OPERATOR not in {route.who for route in USERS}


@each(WITH_KEY)
def test_without_a_good_key_nothing_is_told(up: Up, route: Route) -> None:
    url = listener_of(up, route)
    kind = Kind.OPERATOR if route.who is Who.OPERATOR else Kind.USER
    none = ask(Caller(url, None), route)
    unknown = ask(Caller(url, make_key_text(kind)[1]), route)

    assert none.status == 401
    assert none.headers["WWW-Authenticate"] == "Bearer"
    assert none.without("-") == unknown.without("-")


@each(WITH_KEY)
def test_a_key_is_of_no_use_at_the_other_listener(up: Up, orgs: Orgs, route: Route) -> None:
    of_operators = route.who is Who.OPERATOR
    key = orgs.acme.key if of_operators else up.operator.key

    assert ask(Caller(listener_of(up, route), key), route).status == 403


@each([route for route in USERS if route.who is Who.ADMIN])
def test_what_is_for_admins_is_for_no_member(orgs: Orgs, route: Route) -> None:
    answer = ask(orgs.acme_member, route)
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert answer.headers["Millpond-Access"] == "limited"


@each([route for route in USERS if route.who is Who.USER])
def test_what_is_for_users_is_for_members_and_admins(orgs: Orgs, route: Route) -> None:
    for caller in (orgs.acme, orgs.acme_member):
        answer = ask(caller, route)
        assert answer.status not in (401, 403)
        assert answer.headers["Millpond-Access"] == "limited"


@each([route for route in USERS if "{" in route.path])
def test_what_is_another_orgs_is_as_if_it_were_not_there(orgs: Orgs, route: Route) -> None:
    collection = route.path.split("/")[2]
    id = orgs.ids.get(collection)
    if id is None:  # a new one: the first thing that acme has of it
        listed = orgs.acme("GET", f"/v1/{collection}")
        rows = listed.json["data"] if listed.status == 200 else []
        if not rows:
            pytest.skip(f"acme has no {collection}: make one in `orgs`")
        id = str(rows[0]["id"])
    missing = id[:-1] + ("x" if id[-1] != "x" else "y")

    foreign, none = ask(orgs.beta, route, id), ask(orgs.beta, route, missing)

    assert none.status == 404
    assert foreign.without(id) == none.without(missing)


@each([route for route in OPERATORS if "{" in route.path and "{key}" not in route.path])
def test_an_org_that_is_not_there_is_not_found(up: Up, route: Route) -> None:
    answer = ask(up.operator, route)
    assert answer.status in (404, 422)
    if not route.has_body:
        assert answer.status == 404


@each([route for route in USERS if route.who is not Who.ANYBODY])
def test_a_suspended_org_reads_everything_and_writes_nothing(orgs: Orgs, route: Route) -> None:
    for caller in (orgs.gone, *([] if route.who is Who.ADMIN else [orgs.gone_member])):
        answer = ask(caller, route)
        if route.method == "GET" or route.operation in ALWAYS:
            assert answer.status in (200, 404)
        else:
            assert (answer.status, answer.json["code"]) == (403, "suspended")
        assert answer.headers["Millpond-Access"] == "limited"


def test_the_mode_of_one_caller_is_not_told_to_the_next_on_a_connection(up: Up, orgs: Orgs) -> None:
    connection = http.client.HTTPConnection(urlsplit(up.url).netloc, timeout=DEADLINE_S)
    told = []
    for key in (orgs.acme.key, None, orgs.acme.key):
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        connection.request("GET", "/v1/users/me", headers=headers)
        reply = connection.getresponse()
        reply.read()
        told.append((reply.status, reply.headers["Millpond-Access"]))
    connection.close()
    assert told == [(200, "limited"), (401, None), (200, "limited")]


# ---- orgs and users


def test_an_org_is_told_how_it_stands(orgs: Orgs) -> None:
    told = orgs.acme_member.ok("GET", "/v1/orgs/me")
    assert (told["id"], told["name"], told["mode"]) == ("acme", "Acme", "limited")
    assert (told["suspended"], told["quota"], told["application"]) == (False, 500_000, None)
    assert told["guidelines"]["accepted"] is None
    assert told["guidelines"]["current"]


def test_whoever_asks_is_told_who_it_is(orgs: Orgs) -> None:
    me = orgs.acme_member.ok("GET", "/v1/users/me")
    assert (me["org"], me["id"], me["role"]) == ("acme", "abe", "member")
    assert me["key"] == orgs.ids["keys"]


def test_users_are_made_changed_listed_and_removed(up: Up) -> None:
    admin = up.org("people")
    for id in ("u1", "u2", "u3"):
        made = admin.ok("POST", "/v1/users", {"id": id, "name": id})
        assert (made["role"], made["by"]) == ("member", "admin")
    changed = admin.ok("PATCH", "/v1/users/u1", {"role": "admin", "suspended": True, "why": "ill"})
    assert (changed["role"], changed["suspended"]) == ("admin", True)
    assert admin.ok("PATCH", "/v1/users/u1", {"suspended": False})["suspended"] is False
    assert admin("DELETE", "/v1/users/u3").status == 204
    assert admin("DELETE", "/v1/users/u3").status == 404

    first = admin.ok("GET", "/v1/users?limit=2")
    rest = admin.ok("GET", f"/v1/users?limit=2&cursor={first['next_cursor']}")
    assert [one["id"] for one in first["data"] + rest["data"]] == ["admin", "u1", "u2"]

    rows = admin.ok("GET", "/v1/audit")["data"]
    why = [row["why"] for row in rows if row["why"]]
    assert why == ["ill", "ill"]
    roles = [one for row in rows for one in row["changes"] if one["field"] == "role"]
    assert {"what": "user", "id": "u1", "field": "role", "from": "member", "to": "admin"} in roles


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "pointer"),
    [
        ("POST", "/v1/users", {"id": "abe", "name": "A"}, 409, "user_known", None),
        ("POST", "/v1/users", {"id": "a b", "name": "A"}, 422, "invalid", "/id"),
        ("POST", "/v1/users", {"id": "me", "name": "A"}, 422, "invalid", "/id"),
        ("POST", "/v1/users", {"id": "ab", "name": "a\nb"}, 422, "invalid", "/name"),
        ("POST", "/v1/users", {"id": "ab", "name": "A", "role": "boss"}, 422, "invalid", "/role"),
        ("PATCH", "/v1/users/abe", {"role": "operator"}, 422, "invalid", "/role"),
        ("POST", "/v1/users", {"id": "ab", "name": "A", "org": "beta"}, 422, "invalid", "/org"),
        ("PATCH", "/v1/users/abe", {}, 422, "invalid", ""),
        ("PATCH", "/v1/users/abe", {"suspended": 1}, 422, "invalid", "/suspended"),
        ("PATCH", "/v1/users/admin", {"role": "member"}, 409, "last_admin", None),
        ("PATCH", "/v1/users/admin", {"suspended": True}, 409, "conflict", None),
        ("DELETE", "/v1/users/admin", None, 409, "last_admin", None),
        ("DELETE", "/v1/users/admin?content=true", None, 409, "conflict", None),
        ("DELETE", "/v1/users/abe?content=true&cursor=eA", None, 422, "invalid", "/cursor"),
        ("DELETE", "/v1/users/nobody?content=true", None, 404, "unknown_user", None),
        ("GET", "/v1/audit?cursor=eA", None, 422, "invalid", "/cursor"),
        ("GET", "/v1/keys?user=nobody", None, 404, "unknown_user", None),
        ("POST", "/v1/keys", {"name": "k", "user": "nobody"}, 404, "unknown_user", None),
        ("POST", "/v1/keys", {"name": "k", "expires_in_s": 0}, 422, "invalid", "/expires_in_s"),
        ("DELETE", "/v1/keys/nokey", None, 404, "unknown_key", None),
        ("POST", "/v1/models", {"id": "command", "base": "command"}, 422, "invalid", "/id"),
        ("POST", "/v1/models", {"id": "mine", "base": "none"}, 422, "invalid", "/base"),
        ("DELETE", "/v1/models/command", None, 404, "unknown_part", None),
        ("PUT", "/v1/provider-key", {"key": "a b"}, 422, "invalid", "/key"),
        ("DELETE", "/v1/provider-key", None, 404, "no_key", None),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(
    orgs: Orgs, method: str, path: str, body: Any, status: int, code: str, pointer: str | None
) -> None:
    answer = orgs.acme(method, path, body)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.pointers == ([] if pointer is None else [pointer])


def test_a_user_goes_with_what_its_jobs_say(up: Up) -> None:
    admin = up.org("leaving")
    user = up.user(admin, "u")
    embed = {"endpoint": "embed", "text": "x"}
    # Of one moment there are more than a page of them.
    gone = [one["id"] for one in user.ok("POST", "/v1/jobs", [embed] * 250)["data"]]
    stays = admin.ok("POST", "/v1/jobs", embed)["id"]
    until(lambda: user.ok("GET", f"/v1/jobs/{gone[0]}")["state"] == "succeeded")

    told = admin.ok("DELETE", "/v1/users/u?content=true")

    assert told == {"erased": 250, "next_cursor": None}
    until(lambda: [one["id"] for one in admin.ok("GET", "/v1/jobs?limit=1000")["data"]] == [stays])
    assert {admin("GET", f"/v1/jobs/{id}").status for id in gone[::50]} == {404}
    assert admin("DELETE", "/v1/users/u?content=true").status == 404


async def test_erasing_that_takes_long_goes_on_from_its_cursor(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, api_keys = Directory(store), ApiKeys(store.gateway, MASTERS)
    await directory.create_org("acme", "A", limits=LIMITED, quota=None, pool="http", by="t")
    keys = []
    for id, role in (("ann", Role.ADMIN), ("bob", Role.MEMBER)):
        await directory.create_user("acme", id, id, role, by="t")
        keys.append((await api_keys.make("acme", id, "k", by="t")).text)
    monkeypatch.setattr(users, "ERASE_MS", 0)

    async with serve(service(store).users(), port=0) as listener:
        admin, user = (Caller(f"http://127.0.0.1:{listener.port}", key) for key in keys)
        for caller, count in ((user, 150), (admin, 150), (user, 300)):
            jobs = [{"endpoint": "embed", "text": "x"}] * count
            await asyncio.to_thread(caller.ok, "POST", "/v1/jobs", jobs)
        erased, cursors, cursor = 0, 0, ""
        while cursor is not None:
            path = f"/v1/users/bob?content=true{cursor and '&cursor=' + cursor}"
            told = await asyncio.to_thread(admin.ok, "DELETE", path)
            erased, cursor, cursors = erased + told["erased"], told["next_cursor"], cursors + 1
        left = await asyncio.to_thread(admin.ok, "GET", "/v1/jobs?limit=1000")

    assert (erased, cursors > 1) == (450, True)
    assert [one["user"] for one in left["data"]] == ["ann"] * 150


# ---- keys


def test_a_key_is_told_once_and_known_by_its_id(up: Up, orgs: Orgs) -> None:
    made = orgs.acme_member.ok("POST", "/v1/keys", {"name": "laptop", "expires_in_s": 3_600})
    listed = orgs.acme_member.ok("GET", "/v1/keys")["data"]

    [one] = [one for one in listed if one["id"] == made["id"]]
    assert (one["name"], one["user"], one["state"]) == ("laptop", "abe", "good")
    assert one["expires_at"] == made["expires_at"] is not None
    assert made["key"] not in json.dumps(listed)
    assert up.caller(made["key"]).ok("GET", "/v1/users/me")["id"] == "abe"
    assert made["key"] not in json.dumps(orgs.acme.ok("GET", "/v1/audit?limit=1000"))


def test_members_look_after_their_own_keys_and_admins_after_all(orgs: Orgs) -> None:
    admins = orgs.acme.ok("GET", "/v1/keys")["data"][0]["id"]
    member = orgs.acme_member

    assert member("GET", "/v1/keys?user=admin").status == 403
    assert member("POST", "/v1/keys", {"name": "k", "user": "admin"}).status == 403
    assert member("DELETE", f"/v1/keys/{admins}").status == 404
    assert orgs.acme.ok("GET", "/v1/keys?user=abe")["data"]
    spare = member.ok("POST", "/v1/keys", {"name": "spare"})["id"]
    assert member("DELETE", f"/v1/keys/{spare}").status == 204
    states = {one["id"]: one["state"] for one in member.ok("GET", "/v1/keys")["data"]}
    assert states[spare] == "revoked"


def test_nobody_makes_or_sees_keys_of_another_orgs_users(orgs: Orgs) -> None:
    """To beta, acme's user is as unknown as one that nobody has."""
    for method, path, body in (
        ("GET", "/v1/keys?user={}", None),
        ("POST", "/v1/keys", {"name": "k", "user": "{}"}),
    ):
        told = []
        for user in ("abe", "abx"):
            sent = body and {key: text.format(user) for key, text in body.items()}
            told.append(orgs.beta(method, path.format(user), sent).without(user))
        assert told[0] == told[1]
        assert told[0][0] == 404


def test_a_revoked_key_a_suspended_and_a_removed_user_are_out_in_five_seconds(up: Up) -> None:
    admin = up.org("out")
    users = {id: up.user(admin, id) for id in ("revoked", "suspended", "removed")}
    key = users["revoked"].ok("GET", "/v1/users/me")["key"]
    for user in users.values():
        user.ok("GET", "/v1/orgs/me")  # it is believed from now on

    began = time.monotonic()
    admin.ok("DELETE", f"/v1/keys/{key}")
    admin.ok("PATCH", "/v1/users/suspended", {"suspended": True, "why": "away"})
    admin.ok("DELETE", "/v1/users/removed")
    for user in users.values():
        until(lambda user=user: user("GET", "/v1/orgs/me").status == 401)  # type: ignore[misc]
    assert time.monotonic() - began < KEY_GOES_S

    answer = admin("POST", "/v1/keys", {"name": "k", "user": "suspended"})
    assert (answer.status, answer.json["code"]) == (409, "user_suspended")
    admin.ok("PATCH", "/v1/users/suspended", {"suspended": False})
    until(lambda: users["suspended"]("GET", "/v1/orgs/me").status == 200)
    assert users["revoked"]("GET", "/v1/orgs/me").status == 401


# ---- fine-tuned models, the provider's key


def test_a_fine_tuned_model_is_one_orgs_own(up: Up) -> None:
    admin, other = up.org("tuned"), up.org("untuned")
    mine = {"id": "tuned/a:1", "base": "command"}
    admin.ok("POST", "/v1/models", mine)

    assert mine["id"] in [one["id"] for one in admin.ok("GET", "/v1/models")["data"]]
    assert mine["id"] not in [one["id"] for one in other.ok("GET", "/v1/models")["data"]]
    taken = other("POST", "/v1/models", mine)
    assert (taken.status, taken.json["code"]) == (409, "model_taken")
    assert admin("DELETE", "/v1/models/tuned%2Fa:1").status == 204
    other.ok("POST", "/v1/models", mine)


def test_the_key_at_the_provider_is_kept_and_never_told(up: Up) -> None:
    admin, other = up.org("sealed"), up.org("other")
    secret = "sk-canary-5a1e"

    kept = admin("PUT", "/v1/provider-key", {"key": secret})
    assert kept.status == 200
    assert secret not in kept.body.decode()
    taken = other("PUT", "/v1/provider-key", {"key": secret})
    assert (taken.status, taken.json["code"]) == (409, "key_taken")
    assert "sealed" not in taken.body.decode()
    assert secret not in json.dumps(admin.ok("GET", "/v1/audit"))
    assert admin("GET", "/v1/provider-key").status == 405
    assert admin("DELETE", "/v1/provider-key").status == 204
    other.ok("PUT", "/v1/provider-key", {"key": secret})


def test_lanes_that_a_missing_key_stopped_go_on_with_a_new_one(up: Up) -> None:
    admin = up.org("rekeyed")
    admin.ok("PUT", "/v1/provider-key", {"key": "first"})
    admin.ok("DELETE", "/v1/provider-key")
    job = admin.ok("POST", "/v1/jobs", RIVER)["id"]
    until(lambda: "key" in json.dumps(admin.ok("GET", f"/v1/jobs/{job}")["reason"]))

    resumed = admin.ok("PUT", "/v1/provider-key", {"key": "second"})["resumed"]

    assert resumed == ["rekeyed.classify", "rekeyed.embed", "rekeyed.generate"]
    assert admin.ok("GET", f"/v1/jobs/{job}?wait=10")["state"] == "succeeded"


# ---- operators


def test_an_org_is_made_with_limits_quota_and_a_first_admin(up: Up) -> None:
    made = up.operator.ok(
        "POST",
        "/v1/orgs",
        {
            "id": "made",
            "name": "Made",
            "limits": {"generate": "5/1s,20@once"},
            "quota": None,
            "admin": {"id": "bea", "name": "Bea"},
            "why": "asked by mail",
        },
    )
    assert (made["org"]["mode"], made["org"]["quota"]) == ("limited", None)
    assert (made["admin"]["id"], made["admin"]["role"]) == ("bea", "admin")
    assert up.caller(made["key"]["key"]).ok("GET", "/v1/users/me")["id"] == "bea"
    assert up.operator.ok("GET", "/v1/orgs/made")["limits"] == {
        "generate": "5/1s,20@once",
        "embed": "500/60s,100000/1d",
        "classify": "500/60s,100000/1d",
    }
    rows = up.operator.ok("GET", "/v1/orgs/made/audit")["data"]
    assert {(row["by"], row["why"]) for row in rows} == {("operator you", "asked by mail")}


async def test_of_a_provider_whose_limits_nobody_knows_they_must_be_named(store: Store) -> None:
    made = await ApiKeys(store.gateway, MASTERS).make_operator("olga", by="t")
    app = service(store, provider="openai").operators()
    async with serve(app, port=0) as listener:
        operator = Caller(f"http://127.0.0.1:{listener.port}", made.text)
        asked: dict[str, Any] = {"id": "acme", "name": "A", "limits": {"generate": "5/1s"}}
        refused = await asyncio.to_thread(operator, "POST", "/v1/orgs", asked)
        asked["limits"] |= {"embed": "6/1s", "classify": "7/1s"}
        await asyncio.to_thread(operator.ok, "POST", "/v1/orgs", asked)
        limits = {"why": "unpaid", "limits": {"embed": "1/1s"}}
        path = "/v1/orgs/acme/to-limited"
        told = await asyncio.to_thread(operator.ok, "POST", path, limits)

    assert (refused.status, refused.pointers) == (422, ["/limits"])
    # Those that nobody names stay as they are.
    assert told["limits"] == {"generate": "5/1s", "embed": "1/1s", "classify": "7/1s"}


def test_an_org_without_an_admin_is_given_one(up: Up) -> None:
    made = up.operator.ok("POST", "/v1/orgs", {"id": "bare", "name": "Bare"})
    assert (made["admin"], made["key"], made["org"]["quota"]) == (None, None, 500_000)
    up.operator.ok("POST", "/v1/orgs/bare/users", {"id": "cy", "name": "Cy"})
    key = up.operator.ok("POST", "/v1/orgs/bare/keys", {"user": "cy", "name": "first"})["key"]
    assert up.caller(key).ok("GET", "/v1/users/me")["role"] == "admin"


def test_orgs_are_listed_in_pages(up: Up, orgs: Orgs) -> None:
    found, cursor = [], ""
    while True:
        page = up.operator.ok("GET", f"/v1/orgs?limit=2{cursor}")
        found += [one["id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == sorted(found)
    assert {"acme", "beta", "demo", "gone"} <= set(found)


def test_limits_quota_and_weights_change_in_one_step(up: Up, orgs: Orgs) -> None:
    changed = up.operator.ok(
        "PATCH",
        "/v1/orgs/beta/limits",
        {
            "limits": {"generate": "60/60s,50000/1d", "embed": "7/1s"},
            "quota": 123,
            "weights": {"admin": 2.5},
            "why": "a larger plan",
        },
    )
    assert (changed["quota"], changed["weights"]) == (123, {"admin": 2.5})
    assert changed["limits"]["embed"] == "7/1s"
    row = up.operator.ok("GET", "/v1/orgs/beta/audit?limit=1")["data"][0]
    assert row["why"] == "a larger plan"
    assert {one["field"] for one in row["changes"]} == {"quota", "admin", "limits"}
    assert up.operator.ok("PATCH", "/v1/orgs/beta/limits", {"quota": None})["quota"] is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "pointer"),
    [
        ("POST", "/v1/orgs", {"id": "acme", "name": "A"}, 409, "org_known", None),
        ("POST", "/v1/orgs", {"id": "A", "name": "A"}, 422, "invalid", "/id"),
        ("POST", "/v1/orgs", {"id": "new", "name": "A", "quota": -1}, 422, "invalid", "/quota"),
        ("POST", "/v1/orgs", {"id": "new", "name": "A", "limits": {"embed": "60"}}, 422, "invalid",
         "/limits/embed"),
        ("PATCH", "/v1/orgs/acme/limits", {"why": "x"}, 422, "invalid", ""),
        ("PATCH", "/v1/orgs/acme/limits", {"limits": {"embed": "1/1s,2/1s"}}, 422, "invalid",
         "/limits/embed"),
        ("PATCH", "/v1/orgs/acme/limits", {"limits": {"embed": "1/1s;generate=1/1s"}}, 422,
         "invalid", "/limits/embed"),
        ("PATCH", "/v1/orgs/acme/limits", {"weights": {"abe": 0}}, 422, "invalid", "/weights/abe"),
        ("PATCH", "/v1/orgs/none/limits", {"quota": 1}, 404, "unknown_part", None),
        ("POST", "/v1/orgs/acme/suspend", {}, 422, "invalid", "/why"),
        ("POST", "/v1/orgs/acme/lift", {"why": " "}, 422, "invalid", "/why"),
        ("POST", "/v1/orgs/none/suspend", {"why": "x"}, 404, "unknown_part", None),
        ("POST", "/v1/orgs/none/to-limited", {"why": "x"}, 404, "unknown_part", None),
        ("POST", "/v1/orgs/acme/users", {"id": "abe", "name": "A"}, 409, "user_known", None),
        ("POST", "/v1/orgs/acme/keys", {"user": "none", "name": "k"}, 404, "unknown_user", None),
        ("GET", "/v1/orgs/none", None, 404, "unknown_part", None),
        ("GET", "/v1/orgs/none/ledger", None, 404, "unknown_part", None),
        ("GET", "/v1/orgs/acme/audit?cursor=eA", None, 422, "invalid", "/cursor"),
        ("GET", "/v1/access/acme/1", None, 404, "unknown_part", None),
        ("GET", "/v1/access/acme/one", None, 404, "unknown_part", None),
        ("DELETE", "/v1/operators/nokey", None, 404, "unknown_key", None),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong_to_operators_too(
    up: Up,
    orgs: Orgs,
    method: str,
    path: str,
    body: Any,
    status: int,
    code: str,
    pointer: str | None,
) -> None:
    answer = up.operator(method, path, body)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.pointers == ([] if pointer is None else [pointer])


def test_what_calls_used_is_in_the_ledger(up: Up) -> None:
    admin = up.org("booked")
    job = admin.ok("POST", "/v1/jobs", RIVER)["id"]
    admin.ok("GET", f"/v1/jobs/{job}?wait=20")

    [row] = up.operator.ok("GET", "/v1/orgs/booked/ledger")["data"]
    assert row["outcome"] == "known"
    assert row["used"] == row["characters"] == admin.ok("GET", "/v1/orgs/me")["used"] > 0


def test_operators_have_keys_of_their_own_and_one_is_always_left(up: Up) -> None:
    [first] = up.operator.ok("GET", "/v1/operators")["data"]
    last = up.operator("DELETE", f"/v1/operators/{first['id']}")
    assert (last.status, last.json["code"]) == (409, "last_operator")

    made = up.operator.ok("POST", "/v1/operators", {"name": "Olga", "why": "on call"})
    olga = Caller(up.admin_url, made["key"])
    assert len(olga.ok("GET", "/v1/operators")["data"]) == 2
    assert up.operator("DELETE", f"/v1/operators/{made['id']}").status == 204
    # A user's key is none of an operator's.
    user_key = up.org("third").ok("GET", "/v1/users/me")["key"]
    assert up.operator("DELETE", f"/v1/operators/{user_key}").status == 404

    rows = up.operator.ok("GET", "/v1/audit")["data"]
    assert [row["why"] for row in rows if row["why"]] == ["on call"]
    assert made["key"] not in json.dumps(rows)
    until(lambda: olga("GET", "/v1/operators").status == 401, KEY_GOES_S)

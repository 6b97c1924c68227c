"""A toy API with every kind of parameter, and ways to ask it over real HTTP."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

from aiohttp import ClientSession, web
from pydantic import Field

from millpond.domain.account import Identity, Role
from millpond.errors import Refused, StoreUnavailable, UnknownPart
from millpond.producer.http.app import HttpSettings, build
from millpond.producer.http.asked import chunks
from millpond.producer.http.listener import Listener, serve
from millpond.producer.http.pages import Page, PageQuery, bad_cursor, cursor_of
from millpond.producer.http.problems import LimitShown, Problem
from millpond.producer.http.sse import Event, stream
from millpond.producer.http.strict_json import JsonObject
from millpond.producer.http.table import EVENT_STREAM, Call, Model, Name, Reply, Route, Who

KEYS = {
    "member": Identity(key="k1", role=Role.MEMBER, org="acme", user="ann"),
    "admin": Identity(key="k2", role=Role.ADMIN, org="acme", user="bob"),
    "operator": Identity(key="k3", role=Role.OPERATOR, name="olga"),
}


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Duck(Model):
    kind: Literal["duck"]
    name: Name
    note: str = ""
    age: Annotated[int, Field(ge=0, le=200)] = 0
    weight: float | None = None
    colour: Colour = Colour.RED
    metadata: JsonObject = Field(default_factory=dict)
    young: list["Duck"] = Field(default_factory=list)


class Goose(Model):
    kind: Literal["goose"]
    honks: bool


Bird = Annotated[Duck | Goose, Field(discriminator="kind")]


class Seen(Model):
    id: str
    key: str | None = None
    bird: Duck | Goose | None = None
    many: int = 1


class Search(PageQuery):
    colour: Colour | None = None
    tame: bool | None = None
    old: Annotated[int, Field(ge=0)] | None = None


@dataclass
class Toy:
    """What the toy's handlers did, and what holds them back."""

    began: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    ended: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked_keys: list[str] = field(default_factory=list)
    ready: str | None = None

    async def authenticate(self, token: str) -> Identity | None:
        self.asked_keys.append(token)
        if token == "away":
            raise StoreUnavailable("redis://10.0.0.7 did not answer")
        return KEYS.get(token)

    async def check(self) -> str | None:
        return self.ready

    async def make(self, call: Call) -> Reply:
        bird: Duck | Goose = call.body
        seen = Seen(id="1", key=call.idempotency_key, bird=bird)
        return Reply(seen, status=201, headers={"Location": call.link("/v1/birds/1")})

    async def make_many(self, call: Call) -> Seen:
        return Seen(id="many", many=len(call.body) if isinstance(call.body, list) else 1)

    async def find(self, call: Call) -> Page[Seen]:
        query: Search = call.query
        start = 0
        if query.cursor:
            if not (place := re.fullmatch(r"at:([0-9]{1,9})", query.cursor)):
                raise bad_cursor()
            start = int(place[1])
        seen = [Seen(id=str(number)) for number in range(start, start + min(query.limit, 5))]
        return Page[Seen](data=seen, next_cursor=cursor_of(f"at:{start + 5}"))

    async def show(self, call: Call) -> Seen:
        match call.path["id"]:
            case "none":
                raise UnknownPart("bird", "none")
            case "refused":
                raise Refused("a rule forbids it")
            case "broken":
                raise RuntimeError("secret: 10.0.0.7")
            case "away":
                raise StoreUnavailable("redis://10.0.0.7 did not answer")
            case "limited":
                limit = LimitShown("minute", "calls", 60, 60, "2026-01-01T00:00:00Z")
                raise Problem("quota-exhausted", "60 of 60", retry_after_s=1.2, limit=limit)
            case other:
                return Seen(id=other)

    async def remove(self, call: Call) -> Reply:
        return Reply(status=204)

    async def wait(self, call: Call) -> Seen:
        self.began.put_nowait(call.request_id)
        try:
            await self.go.wait()
        finally:
            self.ended.put_nowait(call.request_id)
        return Seen(id="waited")

    async def upload(self, call: Call) -> Seen:
        size = 0
        async for part in chunks(call, idle_s=0.3):
            size += len(part)
        return Seen(id="upload", many=size)

    async def follow(self, call: Call) -> web.StreamResponse:
        return await stream(call, self._events, ping_s=0.05)

    async def _events(self, last: str | None) -> AsyncIterator[Event]:
        number = int(last or 0)
        try:
            while number < 3 or not self.go.is_set():
                number += 1
                yield Event(f"number {number}\nof many", id=str(number), event="count")
                if number >= 3:
                    self.began.put_nowait("all sent")
                    await self.go.wait()
        finally:
            self.ended.put_nowait("stream")

    async def text(self, call: Call) -> Reply:
        return Reply("a,b\n", headers={"Content-Disposition": "attachment"})

    async def rule(self, call: Call) -> Seen:
        return Seen(id=call.caller.name)

    async def manage(self, call: Call) -> Seen:
        return Seen(id=call.caller.user)

    def routes(self) -> list[Route]:
        user, admin = Who.USER, Who.ADMIN
        seen: Mapping[int, Any] = {200: Seen}
        return [
            Route(
                "POST",
                "/v1/birds",
                self.make,
                who=user,
                summary="Make a bird",
                body=Bird,
                replies={201: Seen},
                idempotent=True,
                body_most=65_536,
            ),
            Route(
                "POST",
                "/v1/flocks",
                self.make_many,
                who=user,
                summary="Make one bird, or several",
                body=Bird | list[Bird],
                replies=seen,
            ),
            Route(
                "GET",
                "/v1/birds",
                self.find,
                who=user,
                summary="Find birds",
                query=Search,
                replies={200: Page[Seen]},
            ),
            Route("GET", "/v1/birds/{id}", self.show, who=user, summary="A bird", replies=seen),
            Route(
                "DELETE",
                "/v1/birds/{id}",
                self.remove,
                who=admin,
                summary="Let a bird go",
                replies={204: None},
            ),
            Route("GET", "/v1/wait", self.wait, who=user, summary="Wait", replies=seen),
            Route(
                "POST",
                "/v1/upload",
                self.upload,
                who=user,
                summary="Upload",
                reads_itself=True,
                takes=("application/jsonl", "application/x-ndjson"),
                encodings=("gzip",),
                body_most=100_000,
                replies=seen,
            ),
            Route(
                "GET",
                "/v1/follow",
                self.follow,
                who=user,
                summary="Follow",
                reply_type=EVENT_STREAM,
            ),
            Route("GET", "/v1/text", self.text, who=user, summary="Text", reply_type="text/csv"),
            Route("GET", "/v1/admin", self.manage, who=admin, summary="Manage", replies=seen),
            Route(
                "POST",
                "/v1/touch",
                self.manage,
                who=user,
                summary="Touch",
                replies=seen,
                name="touch",
            ),
            Route("GET", "/v1/rule", self.rule, who=Who.OPERATOR, summary="Rule", replies=seen),
        ]


@dataclass
class Asked:
    """The toy, listening."""

    toy: Toy
    listener: Listener
    client: ClientSession
    base: str

    def bearer(self, key: str = "member") -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    async def ask(
        self, method: str, path: str, *, key: str | None = "member", **more: Any
    ) -> "Answer":
        """One request; with `key` None without a key."""
        headers = {**(self.bearer(key) if key else {}), **more.pop("headers", {})}
        asked = self.client.request(method, self.base + path, headers=headers, **more)
        async with asked as reply:
            body = await reply.read()
            return Answer(reply.status, dict(reply.headers), body)

    async def raw(self, sent: bytes, *, close: bool = False, wait_s: float = 5.0) -> bytes:
        """Everything that comes back for these bytes, until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        try:
            writer.write(sent)
            if close:
                writer.write_eof()
            async with asyncio.timeout(wait_s):
                return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def pointers(self) -> list[str]:
        return [error["pointer"] for error in self.json.get("errors", [])]


@asynccontextmanager
async def toy(settings: HttpSettings | None = None, **more: Any) -> AsyncIterator[Asked]:
    """The toy API on a port of its own."""
    made = Toy()
    settings = settings or HttpSettings(header_s=0.3, body_s=0.3, linger_s=0.1, grace_s=2.0)
    app = build(made.routes(), made.authenticate, settings, checks={"pond": made.check}, **more)
    async with serve(app) as listener, ClientSession() as client:
        base = f"http://127.0.0.1:{listener.port}{settings.path_prefix}"
        yield Asked(made, listener, client, base)


def request_lines(events: list[Any]) -> list[Any]:
    """The lines of requests among captured events."""
    return [event for event in events if event["event"] == "request_ended"]

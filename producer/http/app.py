"""The application: who may call which route, and what its handler is given.

    app = build(routes, authenticate, settings)
    async with serve(app, port=8080) as listener: ...

Routes for users and routes for operators can be two applications, each with a listener.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel
from structlog.contextvars import bind_contextvars

from millpond.domain.account import Identity, Role
from millpond.producer.http import asked
from millpond.producer.http.address import Trust
from millpond.producer.http.drain import DRAIN, Drain
from millpond.producer.http.own_routes import Check, own_routes
from millpond.producer.http.problems import FAULTS, Faults, Problem
from millpond.producer.http.rim import METERS, REQUEST_ID, Meters, middleware, on_prepare
from millpond.producer.http.table import EVENT_STREAM, Call, Reply, Route, Who

Authenticate = Callable[[str], Awaitable[Identity | None]]
#: Asked before anything of the body is read; raises a Problem (429, say) to refuse.
Gate = Callable[[web.Request, Route, Identity | None], Awaitable[None]]

_TOKEN = re.compile(r"[!-~]{1,512}")
_MAY: dict[Who, frozenset[Role]] = {
    Who.USER: frozenset({Role.MEMBER, Role.ADMIN}),
    Who.ADMIN: frozenset({Role.ADMIN}),
    Who.OPERATOR: frozenset({Role.OPERATOR}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How an application listens. Times are seconds."""

    path_prefix: str = ""  #: /millpond: all paths are below it
    trust: Trust = field(default_factory=Trust)
    header_s: float = 10.0  #: until the head of a request is there
    body_s: float = 30.0  #: until its body is there
    write_s: float = 60.0  #: until the client has taken a reply
    keepalive_s: float = 75.0
    linger_s: float = 2.0  #: for the rest of a request that was refused already
    grace_s: float = 10.0  #: for requests that run when the server stops
    drain_s: float = 0.0  #: between /readyz's 503 and the end of accepting
    connections_per_address: int = 256
    line_most: int = 8_190
    headers_most: int = 100


SETTINGS = web.AppKey("settings", HttpSettings)


def build(
    routes: Iterable[Route],
    authenticate: Authenticate,
    settings: HttpSettings | None = None,
    *,
    title: str = "millpond",
    version: str = "0",
    checks: Mapping[str, Check] | None = None,
    meters: Meters | None = None,
    shows_metrics: bool = True,
    faults: Faults | None = None,
    gate: Gate | None = None,
) -> web.Application:
    """The aiohttp application of some routes. `checks` are what /readyz asks; `faults` are added to
    the table of errors and win over it."""
    settings = settings or HttpSettings()
    if settings.path_prefix and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", settings.path_prefix):
        raise ValueError(f"path_prefix must be like /millpond, not {settings.path_prefix!r}")
    rim = middleware(
        trust=settings.trust,
        path_prefix=settings.path_prefix,
        most=settings.connections_per_address,
        faults={**FAULTS, **(faults or {})},
    )
    app = web.Application(middlewares=[rim])
    app[SETTINGS], app[DRAIN], app[METERS] = settings, Drain(), meters or Meters()
    app.on_response_prepare.append(on_prepare)

    async def end_streams(app: web.Application) -> None:
        app[DRAIN].stopping.set()

    app.on_shutdown.append(end_streams)
    table = list(routes)
    table += own_routes(
        table, checks or {}, title=title, version=version, shows_metrics=shows_metrics
    )
    door = _Door(authenticate, gate, settings.body_s)
    _add(app, table, door, settings.path_prefix)
    return app


def _add(app: web.Application, table: list[Route], door: "_Door", prefix: str) -> None:
    methods: dict[str, set[str]] = {}
    for route in table:
        names = {route.method, "HEAD"} if route.method == "GET" else {route.method}
        methods.setdefault(route.path, {"OPTIONS"}).update(names)
        for name in names:
            app.router.add_route(
                name, prefix + route.path, door.handler(route), expect_handler=_expected_later
            )
    for path, names in methods.items():
        app.router.add_route(
            "OPTIONS", prefix + path, _options(names), expect_handler=_expected_later
        )


def _options(methods: set[str]) -> Callable[[web.Request], Awaitable[web.Response]]:
    allow = ", ".join(sorted(methods))

    async def options(_: web.Request) -> web.Response:
        return web.Response(status=204, headers={"Allow": allow})

    return options


async def _expected_later(_: web.Request) -> None:
    """100 Continue is said when the body is wanted."""


class _Door:
    """From a request to its handler, and back."""

    def __init__(self, authenticate: Authenticate, gate: Gate | None, body_s: float) -> None:
        self._authenticate, self._gate, self._body_s = authenticate, gate, body_s

    def handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """What aiohttp calls for one row of the table."""

        async def handle(request: web.Request) -> web.StreamResponse:
            path = asked.path_of(request)
            identity = await self._identity(request, route)
            if self._gate is not None:
                await self._gate(request, route, identity)
            if request.method == "HEAD" and route.reply_type == EVENT_STREAM:
                return web.Response(content_type=EVENT_STREAM)
            call = Call(
                request=request,
                route=route,
                identity=identity,
                path=path,
                query=asked.query_of(request, route),
                idempotency_key=asked.idempotency_key_of(request, route),
                body=await asked.body_of(request, route, body_s=self._body_s),
                request_id=request[REQUEST_ID],
            )
            return response_of(await route.handler(call), route)

        return handle

    async def _identity(self, request: web.Request, route: Route) -> Identity | None:
        if route.who is Who.ANYBODY:
            return None
        identity = await self._known(request)
        if identity is None:
            raise Problem("unauthorized", headers={"WWW-Authenticate": "Bearer"})
        bind_contextvars(org=identity.org, user=identity.user or identity.name)
        if identity.role not in _MAY[route.who]:
            raise Problem("forbidden", f"it wants a key of another kind: {route.who}")
        return identity

    async def _known(self, request: web.Request) -> Identity | None:
        told = request.headers.getall("Authorization", ())
        scheme, _, token = told[0].partition(" ") if len(told) == 1 else ("", "", "")
        token = token.strip(" ")
        if scheme.lower() != "bearer" or not _TOKEN.fullmatch(token):
            return None
        return await self._authenticate(token)


def response_of(reply: Reply | BaseModel | web.StreamResponse, route: Route) -> web.StreamResponse:
    """What a handler returned, as aiohttp sends it."""
    if isinstance(reply, web.StreamResponse):
        return reply
    if isinstance(reply, BaseModel):
        reply = Reply(reply)
    if reply.body is None:
        return web.Response(status=reply.status, headers=reply.headers)
    headers = {"Content-Type": route.reply_type, **reply.headers}
    return web.Response(body=_bytes(reply.body), status=reply.status, headers=headers)


def _bytes(body: Any) -> bytes:
    match body:
        case bytes():
            return body
        case str():
            return body.encode()
        case BaseModel():
            return body.__pydantic_serializer__.to_json(body, by_alias=True)
        case _:
            return orjson.dumps(body, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"a reply cannot hold {type(value).__name__}")

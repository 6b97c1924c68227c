"""A route is one row of data: dispatch, validation and the OpenAPI document are made from it.

Route("POST", "/v1/jobs", submit, who=Who.USER, summary="Submit a job", body=NewJob,
      replies={201: Job}, idempotent=True)

async def submit(call: Call) -> Reply:
    job: NewJob = call.body
    ...
    return Reply(Job(...), status=201, headers={"Location": call.link("/v1/jobs/1")})
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter

from millpond.domain.account import Identity
from millpond.producer.http.address import base_url
from millpond.producer.http.drain import DRAIN

MIB = 2**20
JSON = "application/json"
EVENT_STREAM = "text/event-stream"

#: A name or an id: short, and without control characters (a text may have them, and NUL).
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\u0000-\u001f\u007f]*$")
]


class Model(BaseModel):
    """What requests and replies are made of: strict, frozen, no field that is not named."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Who(StrEnum):
    """Whose key a route wants."""

    ANYBODY = "anybody"
    USER = "user"
    ADMIN = "admin"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that is more than a model with 200. A str or bytes goes out as it is."""

    body: BaseModel | list[Any] | dict[str, Any] | str | bytes | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that was checked."""

    request: web.Request
    route: "Route"
    identity: Identity | None  #: None for Who.ANYBODY only
    path: Mapping[str, str]
    query: Any  #: an instance of the route's `query`
    body: Any  #: a value of the route's `body`
    idempotency_key: str | None
    request_id: str

    @property
    def caller(self) -> Identity:
        """Who asks, on a route that wants a key."""
        assert self.identity is not None, "a route for anybody has no caller"
        return self.identity

    @property
    def stopping(self) -> asyncio.Event:
        """Set when the server shuts down: a handler that waits long should end then."""
        return self.request.app[DRAIN].stopping

    def link(self, path: str) -> str:
        """A path of this API as the client must ask for it: scheme, host and prefix included."""
        return base_url(self.request) + path


Handler = Callable[[Call], Awaitable[Reply | BaseModel | web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class _Options:
    who: Who
    summary: str
    tags: tuple[str, ...] = ()
    query: type[BaseModel] | None = None
    body: Any = None  #: a model, or whatever a TypeAdapter takes
    body_optional: bool = False  #: without a body, `call.body` is None
    replies: Mapping[int, type[BaseModel] | None] = field(default_factory=lambda: {200: None})
    reply_type: str = JSON  #: content type of what is not a problem
    body_most: int = MIB
    idempotent: bool = False  #: whether an Idempotency-Key is taken
    problems: tuple[int, ...] = ()  #: statuses of problems beyond those that follow from the row
    reads_itself: bool = False  #: the handler reads the body: `async for part in chunks(call)`
    takes: tuple[str, ...] = (JSON,)  #: content types of the body
    encodings: tuple[str, ...] = ()  #: values of Content-Encoding that the handler undoes itself
    described: bool = True  #: whether it is in the OpenAPI document
    name: str = ""  #: operationId; the handler's name if empty


@dataclass(frozen=True)
class _Where:
    method: str
    path: str
    handler: Handler


@dataclass(frozen=True)
class Route(_Options, _Where):
    """One row: `Route(method, path, handler, who=…, summary=…, …)`."""

    def __post_init__(self) -> None:
        for model in (self.query, self.body):
            if isinstance(model, type) and issubclass(model, BaseModel):
                config = model.model_config
                if not config.get("strict") or config.get("extra") != "forbid":
                    raise TypeError(f"{model.__name__} must be strict and forbid extra fields")

    @property
    def operation(self) -> str:
        return self.name or self.handler.__name__

    @property
    def has_body(self) -> bool:
        return self.body is not None or self.reads_itself

    @cached_property
    def body_adapter(self) -> TypeAdapter[Any]:
        """Built once: what reads the body."""
        return TypeAdapter(self.body)

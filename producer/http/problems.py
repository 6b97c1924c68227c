"""What went wrong, as problem+json (RFC 9457), and which error becomes which problem."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from millpond.errors import MillpondError, Refused, Unavailable, UnknownFlow, UnknownPart

PROBLEM_JSON = "application/problem+json"
ERRORS_MOST = 100
RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of problem: its status, and what people are told of it."""

    status: int
    title: str
    meaning: str


#: All of them. `type` is the place in the documentation: PREFIX/docs/problems#CODE.
KINDS: dict[str, Kind] = {
    "bad-request": Kind(400, "Bad request", "What was sent is not HTTP/1.1 that can be read."),
    "upgrade-refused": Kind(400, "No upgrade", "This server speaks HTTP/1.1 only: drop Upgrade."),
    "unauthorized": Kind(401, "No valid key", "Send a key that holds: Authorization: Bearer KEY."),
    "forbidden": Kind(403, "Not permitted", "The key is valid, but not for this."),
    "access-pending": Kind(403, "Access pending", "The org has not been approved yet."),
    "limited-mode": Kind(403, "Limited mode", "The org may read, and submit nothing new."),
    "suspended": Kind(403, "Suspended", "The org is suspended; what is done can be read."),
    "not-found": Kind(404, "Not found", "There is nothing here, or nothing for this key."),
    "method-not-allowed": Kind(405, "Method not allowed", "Allow says which methods there are."),
    "timeout": Kind(408, "Too slow", "The request did not arrive in the time given to it."),
    "conflict": Kind(409, "Conflict", "It contradicts how things stand, or is under way already."),
    "too-large": Kind(413, "Too large", "The body is larger than this route takes."),
    "uri-too-long": Kind(414, "URI too long", "The path with its query is too long."),
    "unsupported-media": Kind(415, "Unsupported media", "Not a content type or encoding it takes."),
    "expectation-failed": Kind(417, "Expectation failed", "Expect may say 100-continue only."),
    "invalid": Kind(422, "Invalid request", "`errors` names each field and what is wrong."),
    "refused": Kind(422, "Refused", "A rule forbids it; sending it again will not help."),
    "too-many-requests": Kind(429, "Too many requests", "Wait as long as Retry-After says."),
    "backlog": Kind(429, "Too much waits", "Ask again when Retry-After says."),
    "quota-exhausted": Kind(429, "Quota exhausted", "`limit` says which, and when it resets."),
    "headers-too-large": Kind(431, "Headers too large", "A line or the sum of them is too long."),
    "internal": Kind(500, "Internal error", "Our mistake. The request id finds it in our logs."),
    "unavailable": Kind(503, "Unavailable", "Nothing was changed; the same may succeed later."),
    "draining": Kind(503, "Shutting down", "This server takes nothing new; ask again."),
}
_BY_STATUS = {kind.status: code for code, kind in reversed(KINDS.items())}


@dataclass(frozen=True, slots=True)
class Wrong:
    """One field and what is wrong with it. `where` is query or header if it is not the body."""

    pointer: str
    detail: str
    where: str | None = None

    def shown(self) -> dict[str, str]:
        """As it is sent."""
        shown = {"pointer": self.pointer, "detail": self.detail}
        return shown if self.where is None else shown | {"in": self.where}


@dataclass(frozen=True, slots=True)
class LimitShown:
    """The limit that was met."""

    name: str
    unit: str
    used: int
    limit: int
    resets_at: str | None = None


class Problem(Exception):
    """Raised anywhere below a handler; the client gets it as problem+json."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: list[Wrong] | tuple[Wrong, ...] = (),
        retry_after_s: float | None = None,
        limit: LimitShown | None = None,
        headers: Mapping[str, str] | None = None,
        error_code: str | None = None,
    ) -> None:
        self.kind = KINDS[code]
        self.code, self.detail = code, detail or self.kind.meaning
        super().__init__(f"{code}: {self.detail}")
        self.errors, self.retry_after_s, self.limit = list(errors), retry_after_s, limit
        self.headers, self.error_code = dict(headers or {}), error_code

    @property
    def status(self) -> int:
        return self.kind.status

    def shown(self, request_id: str, prefix: str = "") -> dict[str, Any]:
        """The document that is sent. `prefix`: what the client's paths begin with."""
        shown: dict[str, Any] = {
            "type": f"{prefix}/docs/problems#{self.code}",
            "title": self.kind.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.error_code or self.code,
            "request_id": request_id,
        }
        if self.errors:
            shown["errors"] = [wrong.shown() for wrong in self.errors[:ERRORS_MOST]]
        if self.retry_after_s is not None:
            shown["retry_after_s"] = math.ceil(self.retry_after_s)
        if self.limit is not None:
            shown["limit"] = self.limit
        return shown

    def response(self, request_id: str, prefix: str = "") -> web.Response:
        """The reply, with Retry-After in whole seconds if it is known."""
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(math.ceil(self.retry_after_s))
        body = orjson.dumps(self.shown(request_id, prefix))
        reply = web.Response(
            body=body, status=self.status, headers=headers, content_type=PROBLEM_JSON
        )
        if self.status in (400, 408, 413):  # what is left of the request is not worth reading
            reply.force_close()
        return reply


def invalid(pointer: str, detail: str, *, where: str | None = None) -> Problem:
    """422, naming one field."""
    return Problem("invalid", errors=[Wrong(pointer, detail, where)])


def of_status(status: int, detail: str = "") -> Problem:
    """The problem for a status that aiohttp chose."""
    code = _BY_STATUS.get(status) or ("internal" if status >= 500 else "bad-request")
    return Problem(code, detail)


#: An error class and the code of its problem, or a function that makes the problem.
Faults = Mapping[type[Exception], "str | Callable[[Any], Problem]"]

FAULTS: Faults = {
    Refused: "refused",
    UnknownPart: "not-found",
    UnknownFlow: "not-found",
    Unavailable: "unavailable",
}


def problem_of(error: Exception, faults: Faults) -> Problem | None:
    """The problem of the nearest ancestor in the table; None for an error nobody expected."""
    if isinstance(error, Problem):
        return error
    for ancestor in type(error).__mro__:
        found = faults.get(ancestor)
        if found is None:
            continue
        if callable(found):
            return found(error)
        code = error.code if isinstance(error, MillpondError) else None
        if KINDS[found].status == 503:  # its text may name hosts
            return Problem(found, retry_after_s=RETRY_AFTER_S, error_code=code)
        return Problem(found, str(error), error_code=code)
    return None

"""Everything the client raises on purpose.

ClientError
├── ApiError                what the server answered: status, code, detail, request_id, …
│   ├── BadRequest          400, 415, 422: mend the request
│   ├── Unauthorized        401
│   ├── Forbidden           403
│   │   └── Suspended
│   ├── NotFound            404
│   ├── Conflict            409
│   ├── TooLarge            413
│   ├── TooManyRequests     429: retry_after_s says when
│   │   └── Backlog         too much waits already
│   └── ServerError         5xx
├── ConnectionFailed        no reply, also when asked again
├── ClientClosed            by the program itself
├── JobFailed               it ended without an answer: failed, cancelled or expired
└── JobTimeout              it has not ended yet: wait(error.job_id) goes on waiting
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millpond.errors import MillpondError

if TYPE_CHECKING:
    from millpond.client.replies import Job

_SHOWN_MOST = 5


class ClientError(MillpondError):
    """The base. `job_id`: of the job that it is about, if that was taken in."""

    code = "client_error"
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field of a request and what is wrong with it. `where`: body, query or header."""

    pointer: str
    detail: str
    where: str = "body"


@dataclass(frozen=True, slots=True)
class LimitMet:
    """The limit that a request met."""

    name: str
    unit: str
    used: int | None = None
    limit: int | None = None
    resets_at: str | None = None


class ApiError(ClientError):
    """The server answered, and not with what was wanted."""

    repeated = False  #: whether it was asked before, and that reply was lost

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
        limit: LimitMet | None = None,
    ) -> None:
        self.status, self.code, self.title, self.detail = status, code, title, detail
        self.errors, self.request_id = tuple(errors), request_id
        self.retry_after_s, self.limit = retry_after_s, limit
        super().__init__(self._message())

    def _message(self) -> str:
        said = self.detail or self.title
        if self.errors:
            shown = [f"{one.pointer}: {one.detail}" for one in self.errors[:_SHOWN_MOST]]
            more = len(self.errors) - len(shown)
            said = f"{self.title}: " + "; ".join(shown) + (f"; and {more} more" if more else "")
        if self.retry_after_s is not None:
            said += f" (again in {self.retry_after_s:g} s)"
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{said} [{self.status} {self.code}{request}]"


class BadRequest(ApiError):
    """The request breaks a rule; sending it again unchanged will not help."""


class Unauthorized(ApiError):
    """The key is missing, wrong, revoked or too old."""


class Forbidden(ApiError):
    """The key is valid, but not for this."""


class Suspended(Forbidden):
    """The org, or the user, is suspended: what is done can be read."""


class NotFound(ApiError):
    """There is nothing there, or nothing for this key."""


class Conflict(ApiError):
    """It contradicts how things stand."""


class TooLarge(ApiError):
    """The request has too many bytes."""


class TooManyRequests(ApiError):
    """Later; `retry_after_s` says when."""


class Backlog(TooManyRequests):
    """Too much waits already: there is room when `retry_after_s` says."""


class ServerError(ApiError):
    """The server could not do it now."""


class ConnectionFailed(ClientError):
    """No reply came. A submission may have been taken in all the same: with the same
    `idempotency_key` it is the same job."""

    code = "connection_failed"

    def __init__(self, message: str, *, idempotency_key: str | None = None) -> None:
        super().__init__(message)
        self.idempotency_key = idempotency_key


class ClientClosed(ClientError):
    """The client was closed, before or meanwhile."""

    code = "client_closed"

    def __init__(self, message: str = "this client was closed: make a new one") -> None:
        super().__init__(message)


class JobFailed(ClientError):
    """A job ended without an answer. `code` says why; `job.state` is failed, cancelled or
    expired."""

    def __init__(self, job: "Job", code: str, message: str) -> None:
        self.job, self.job_id, self.code, self.message = job, job.id, code, message
        super().__init__(f"job {job.id} {_how(job.state)}: {message} [{code}]")


class JobTimeout(ClientError):
    """Jobs have not ended in the time given. Unless they are `cancelled`, they go on."""

    code = "job_timeout"

    def __init__(self, job_ids: Sequence[str], timeout_s: float, *, cancelled: bool = False):
        self.job_ids, self.timeout_s, self.cancelled = tuple(job_ids), timeout_s, cancelled
        self.job_id: str = self.job_ids[0]
        more = f" and {len(job_ids) - 1} more" if len(job_ids) > 1 else ""
        way = "it was cancelled" if cancelled else "it goes on: wait(error.job_id) waits again"
        super().__init__(f"job {self.job_id}{more} has not ended in {timeout_s:g} s; {way}")


def _how(state: str) -> str:
    return {"cancelled": "was cancelled", "expired": "expired"}.get(state, "failed")


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    415: BadRequest,
    422: BadRequest,
    429: TooManyRequests,
}
#: Kinds of problem that have a class of their own, by the last part of `type`.
_BY_KIND: dict[tuple[int, str], type[ApiError]] = {
    (403, "suspended"): Suspended,
    (429, "backlog"): Backlog,
}


def api_error(
    status: int,
    problem: Mapping[str, Any],
    *,
    reason: str,
    request_id: str | None,
    retry_after_s: float | None,
) -> ApiError:
    """The error for a reply; `problem` is its problem+json, empty if it is none."""
    kind = str(problem.get("type", "")).rpartition("#")[2]
    code = str(problem.get("code") or kind or f"http_{status}")
    usual = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    chosen = _BY_KIND.get((status, kind)) or _BY_KIND.get((status, code)) or usual
    if retry_after_s is None and isinstance(problem.get("retry_after_s"), int | float):
        retry_after_s = max(0.0, float(problem["retry_after_s"]))
    return chosen(
        status,
        code,
        str(problem.get("title") or reason or f"HTTP {status}"),
        str(problem.get("detail") or ""),
        errors=_fields(problem.get("errors")),
        request_id=str(problem.get("request_id") or request_id or "") or None,
        retry_after_s=retry_after_s,
        limit=_limit(problem.get("limit")),
    )


def _fields(told: Any) -> list[FieldError]:
    rows = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    return [
        FieldError(
            str(one.get("pointer", "")), str(one.get("detail", "")), str(one.get("in", "body"))
        )
        for one in rows
    ]


def _limit(told: Any) -> LimitMet | None:
    if not isinstance(told, dict):
        return None
    return LimitMet(
        str(told.get("name", "")),
        str(told.get("unit", "")),
        told.get("used"),
        told.get("limit"),
        told.get("resets_at"),
    )

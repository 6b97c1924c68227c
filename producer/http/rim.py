"""Around every request: its id, what goes wrong in it, its reply's headers, its line in the log.

A reply leaves by one of two doors. Those of the application pass `middleware` and `on_prepare`;
those that aiohttp makes of what is no HTTP pass the listener, which uses `dress` itself.
"""

import asyncio
import re

import structlog
import uuid_utils
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Histogram
from structlog.contextvars import bind_contextvars

from millpond import tracing
from millpond.producer.http.address import ORIGIN, Trust, origin_of
from millpond.producer.http.asked import target_is_sound
from millpond.producer.http.drain import DRAIN
from millpond.producer.http.problems import Faults, Problem, of_status, problem_of

log = structlog.get_logger()

REQUEST_ID = web.RequestKey("request_id", str)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLIENT_LEFT = 499
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Meters:
    """What is measured of requests. Applications that share a registry share one of these."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._seconds = Histogram(
            "millpond_http_request_duration_seconds",
            "From the head of a request to the end of its reply.",
            ("method", "route", "code"),
            registry=self.registry,
            buckets=(
                0.001,
                0.0025,
                0.005,
                0.01,
                0.025,
                0.05,
                0.1,
                0.25,
                0.5,
                1,
                2.5,
                5,
                10,
                30,
                60,
            ),
        )

        self._rejections = Counter(
            "millpond_rejections",
            "Requests that were refused, by the code of the problem.",
            ("reason",),
            registry=self.registry,
        )

    def rejected(self, reason: str) -> None:
        """One request that was refused."""
        self._rejections.labels(reason).inc()

    def ended(self, method: str, route: str, code: int, seconds: float) -> None:
        """One request."""
        self._seconds.labels(method if method in _METHODS else "other", route, code).observe(
            seconds
        )


METERS = web.AppKey("meters", Meters)


def middleware(*, trust: Trust, path_prefix: str, most: int, faults: Faults) -> Middleware:
    """The outermost one: nothing but a reply or a cancellation leaves it."""

    @web.middleware
    async def rim(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = request[REQUEST_ID] = request_id_of(request)
        origin = request[ORIGIN] = origin_of(request, trust, path_prefix)
        bind_contextvars(request_id=request_id, client=origin.address)
        drain, started = request.app[DRAIN], asyncio.get_running_loop().time()
        many = drain.begin(origin.address)
        try:
            if origin.forwarded and many > most:
                raise Problem("too-many-requests", f"{most} at once is the most", retry_after_s=1)
            _refuse_what_is_no_plain_request(request)
            return await handler(request)
        except web.HTTPException as error:
            return _of_aiohttp(error, request_id, origin.prefix)
        except asyncio.CancelledError:
            took = asyncio.get_running_loop().time() - started
            ended(request, status=_CLIENT_LEFT, size=0, seconds=took)
            raise
        except Exception as error:
            if _has_begun(request):
                log.exception("reply_broken_off", exc_info=error)
                raise ConnectionResetError("the reply had begun") from None
            problem = problem_of(error, faults)
            if problem is None:
                log.exception("request_failed", exc_info=error)
                problem = Problem("internal")
            else:
                request.app[METERS].rejected(problem.error_code or problem.code)
            return problem.response(request_id, origin.prefix)
        finally:
            drain.end(origin.address)

    tracer = tracing.begin()
    if tracer is None:
        return rim

    @web.middleware
    async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
        method = request.method if request.method in _METHODS else "_OTHER"
        with tracing.requested(tracer, method, _route_of(request), request.headers) as span:
            response = await rim(request, handler)
            tracing.replied(span, response.status)
            return response

    return traced


def _refuse_what_is_no_plain_request(request: web.Request) -> None:
    if request.version < (1, 0):
        raise Problem("bad-request")
    if "Upgrade" in request.headers:
        raise Problem("upgrade-refused")
    if request.headers.get("Expect", "100-continue").lower() != "100-continue":
        raise Problem("expectation-failed")
    if not target_is_sound(request):
        raise Problem("not-found")


def _of_aiohttp(error: web.HTTPException, request_id: str, prefix: str) -> web.StreamResponse:
    if error.status < 400:
        return error
    problem = of_status(error.status)
    if isinstance(error, web.HTTPMethodNotAllowed):
        problem.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    return problem.response(request_id, prefix)


def _has_begun(request: web.Request) -> bool:
    return bool(request.writer.output_size)


def request_id_of(request: web.BaseRequest) -> str:
    """The client's own, if it is one; else a new one."""
    told = request.headers.get("X-Request-ID", "")
    return told if _REQUEST_ID.fullmatch(told) else str(uuid_utils.uuid7())


def dress(response: web.StreamResponse, request_id: str) -> None:
    """The headers that every reply has."""
    headers = response.headers
    headers["X-Request-ID"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers.setdefault("Cache-Control", "no-store")
    headers.popall("Server", None)
    if response.content_type == "text/html":
        headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """For the application's `on_response_prepare`: streams get their headers too."""
    dress(response, request.get(REQUEST_ID) or request_id_of(request))


def _route_of(request: web.BaseRequest) -> str:
    match_info = request._match_info if isinstance(request, web.Request) else None
    if match_info is None or match_info.route.resource is None:
        return "unmatched"
    return match_info.route.resource.canonical


def ended(request: web.BaseRequest, *, status: int, size: int, seconds: float) -> None:
    """The line of a request in the log, and its place in the histogram."""
    route = _route_of(request)
    if isinstance(request, web.Request) and request._match_info is not None:
        request.app[METERS].ended(request.method, route, status, seconds)
    log.info(
        "request_ended",
        method=request.method if request.method in _METHODS else "other",
        route=route,
        status=status,
        duration_ms=round(seconds * 1_000, 1),
        bytes=size,
    )


class Lines(AbstractAccessLogger):
    """aiohttp's access log, as our events."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """A reply went out."""
        ended(request, status=response.status, size=max(response.body_length, 0), seconds=time)

"""Routes that every application has: its health, its metrics, its description."""

import base64
import hashlib
import html
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from millpond.producer.http import openapi
from millpond.producer.http.problems import KINDS
from millpond.producer.http.rim import METERS
from millpond.producer.http.table import JSON, Call, Handler, Model, Reply, Route, Who

#: Returns if all is well; raises or returns a sentence if not. A sentence is shown to anybody.
Check = Callable[[], Awaitable[str | None]]

log = structlog.get_logger()


class Health(Model):
    """Whether the process is there."""

    status: str


class Readiness(Model):
    """Whether it can work; `failed` names each check that says no, and why."""

    status: str
    failed: dict[str, str] = Field(default_factory=dict)


def own_routes(
    routes: list[Route],
    checks: Mapping[str, Check],
    *,
    title: str,
    version: str,
    shows_metrics: bool,
) -> list[Route]:
    """The routes, which describe `routes` and themselves."""

    async def healthz(_: Call) -> Health:
        return Health(status="ok")

    async def readyz(call: Call) -> Reply:
        if call.stopping.is_set():
            failed = {"draining": "the server is shutting down"}
        else:
            failed = await _failed(checks)
        status = "unready" if failed else "ready"
        return Reply(Readiness(status=status, failed=failed), status=503 if failed else 200)

    async def metrics(call: Call) -> Reply:
        text = generate_latest(call.request.app[METERS].registry)
        return Reply(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi_json(_: Call) -> Reply:
        return Reply(document)

    ready = {200: Readiness, 503: Readiness}
    told = ("health",)
    own = [
        _own("/healthz", healthz, "Whether the process is there", tags=told, replies={200: Health}),
        _own("/readyz", readyz, "Whether it can work", tags=told, replies=ready),
        _own("/openapi.json", openapi_json, "This document", described=False),
        _own("/docs", _docs, "The API, to be tried", reply_type="text/html", described=False),
        _own("/docs/problems", _problems, "Problems", reply_type="text/html", described=False),
    ]
    if shows_metrics:
        summary = "Metrics for Prometheus"
        own.append(_own("/metrics", metrics, summary, tags=told, reply_type="text/plain"))
    document = openapi.document([*routes, *own], title=title, version=version)
    return own


def _own(
    path: str,
    handler: Handler,
    summary: str,
    *,
    tags: tuple[str, ...] = (),
    replies: Mapping[int, type[BaseModel] | None] | None = None,
    reply_type: str = JSON,
    described: bool = True,
) -> Route:
    return Route(
        "GET",
        path,
        handler,
        who=Who.ANYBODY,
        summary=summary,
        tags=tags,
        replies=replies or {200: None},
        reply_type=reply_type,
        described=described,
    )


async def _failed(checks: Mapping[str, Check]) -> dict[str, str]:
    failed: dict[str, str] = {}
    for name, check in checks.items():
        try:
            said = await check()
        except Exception as error:
            log.warning("check_failed", check=name, error=type(error).__name__)
            said = f"it could not be checked: {type(error).__name__}"
        if said:
            failed[name] = said
    return failed


async def _docs(_: Call) -> Reply:
    page, policy = _swagger()
    return _page(page, policy)


async def _problems(_: Call) -> Reply:
    rows = "".join(
        f'<dt id="{code}">{kind.status} {html.escape(kind.title)} ({code})</dt>'
        f"<dd>{html.escape(kind.meaning)}</dd>"
        for code, kind in KINDS.items()
    )
    page = (
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Problems</title><dl>{rows}</dl>"
    )
    return _page(page.encode(), "default-src 'none'; frame-ancestors 'none'")


def _page(page: bytes, policy: str) -> Reply:
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "Cache-Control": "no-cache",
    }
    return Reply(page, headers=headers)


@cache
def _swagger() -> tuple[bytes, str]:
    """Swagger's page, which has all that it needs inside, and a policy that lets only that run.

    Imported when it is first asked for: it reads megabytes.
    """
    from offapi import OpenAPITemplate

    page = OpenAPITemplate.SWAGGER.value.format(spec_url="openapi.json")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return page.encode(), policy

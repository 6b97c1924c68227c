"""The producer: the HTTP API for users, and beside it that for operators.

client ── /v1/jobs ──▶ Intake ── submit.lua ──▶ store
client ◀─ ?wait=60 ─── Waiting ◀──── done ───── store
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import orjson
import structlog
from aiohttp import web

from millpond import __version__
from millpond.domain.account import Identity
from millpond.errors import Refused
from millpond.producer.api.access import AccessRoutes, OrgStates, tell_mode
from millpond.producer.api.account_faults import ACCOUNT_FAULTS
from millpond.producer.api.api_keys import KeyRoutes
from millpond.producer.api.audit import OperatorAuditRoutes, OrgAuditRoutes, OwnAuditRoutes
from millpond.producer.api.desk import DeskRoutes
from millpond.producer.api.guidelines import page_routes
from millpond.producer.api.jobs import Jobs
from millpond.producer.api.lanes import Lanes, backlog
from millpond.producer.api.ledger import LedgerRoutes
from millpond.producer.api.limits import LimitRoutes
from millpond.producer.api.look import Look
from millpond.producer.api.operators import OperatorRoutes
from millpond.producer.api.org_users import OrgUserRoutes
from millpond.producer.api.orgs import OrgRoutes
from millpond.producer.api.own_models import ModelRoutes
from millpond.producer.api.own_org import OwnOrgRoutes
from millpond.producer.api.provider_key import ProviderKeyRoutes
from millpond.producer.api.purge import PurgeRoutes
from millpond.producer.api.still import StillGood
from millpond.producer.api.terms import ModeTerms
from millpond.producer.api.users import UserRoutes
from millpond.producer.http.address import Trust
from millpond.producer.http.app import Authenticate, Gate, HttpSettings, build
from millpond.producer.http.asked import idempotency_key_of
from millpond.producer.http.listener import Listener, serve
from millpond.producer.http.problems import Faults, Problem, Wrong, invalid
from millpond.producer.http.rim import Meters
from millpond.producer.http.table import Route
from millpond.producer.intake import BadJob, Intake, Known
from millpond.producer.meters import StoreMeters
from millpond.producer.waiting import Waiting
from millpond.providers.catalogue import read_catalogue
from millpond.providers.profile import PROFILES, ProviderName, adapter
from millpond.settings import PREFIX, Settings
from millpond.store.api_keys import ApiKeys, KeyChecker
from millpond.store.gateway import Gateway, connect
from millpond.store.patience import hello_until
from millpond.store.sealing import MasterKeys, read_master_keys
from millpond.store.singles import Bounds, Full, KeyReused, NotEnded, Singles, Suspended
from millpond.store.store import Store
from millpond.store.vault import Vault

log = structlog.get_logger()

#: The scheduler says each second that it lives.
_SCHEDULER_SILENT_MS = 5_000
#: Connections to the store; requests take turns on them.
CONNECTIONS_MOST = 50


def _bad_job(bad: BadJob) -> Problem:
    return invalid(bad.pointer, str(bad))


def _key_reused(reused: KeyReused) -> Problem:
    where = Wrong("/Idempotency-Key", str(reused), "header")
    return Problem("invalid", errors=[where], error_code=reused.code)


FAULTS: Faults = {
    **ACCOUNT_FAULTS,
    BadJob: _bad_job,
    Full: backlog,
    KeyReused: _key_reused,
    NotEnded: "conflict",
    Suspended: "suspended",
}


async def main(settings: Settings, ready: Path | None = None) -> None:
    """Serve until told to stop. `ready`: a file that is written once it can be asked."""
    if settings.redis_url is None:
        raise Refused("a producer needs MILLPOND_REDIS_URL")
    masters = read_master_keys(settings)
    async with AsyncExitStack() as exits:
        redis = await exits.enter_async_context(
            connect(settings.redis_url, connections_most=CONNECTIONS_MOST)
        )
        blocking = await exits.enter_async_context(connect(settings.redis_url, blocking=True))
        store = Store(Gateway(redis, settings.partition))
        waiting = Waiting(Singles(Gateway(blocking, settings.partition)))
        service = Service(settings, store, waiting, masters)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await hello_until(stop, store, ephemeral=settings.ephemeral)
        if stop.is_set():
            return
        told = {
            "url": await _serve(exits, settings, "listen", service.users()),
            "operator_url": await _serve(exits, settings, "operator_listen", service.operators()),
        }
        if ready is not None:
            _write(ready, orjson.dumps(told))
        log.info("producer_started", **told)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(waiting.run_until(stop), name="waiting")
            tasks.create_task(service.meters.run_until(stop), name="meters")
            await stop.wait()


class Service:
    """The two applications, and what they share."""

    def __init__(
        self, settings: Settings, store: Store, waiting: Waiting, masters: MasterKeys | None
    ) -> None:
        """Raises NoMasterKey."""
        profile = PROFILES[ProviderName(settings.provider)]
        models = read_catalogue(settings.models).get(profile.wire)
        self._known = Known(profile, adapter(profile.wire), models)
        self._bounds = Bounds(
            settings.waiting_bytes_per_org,
            settings.waiting_bytes,
            settings.kept_bytes_per_org,
            settings.kept_bytes,
        )
        self._lanes = Lanes(store, self._bounds, drain_most_s=settings.drain_most_s)
        self._settings, self._store = settings, store
        self._simulated = settings.provider == "simulator"
        self._waiting = waiting
        self._api_keys = ApiKeys(store.gateway, masters)
        self._vault = Vault(store.gateway, masters)
        self._checker = KeyChecker(self._api_keys)
        self._still = StillGood(self._checker.identity)
        self._states = OrgStates(store)
        self._intake = Intake(store, self._known, self._bounds)
        self._meters = Meters()
        self.meters = StoreMeters(store, self._meters.registry)

    def user_routes(self) -> list[Route]:
        store, known, lanes, still = self._store, self._known, self._lanes, self._still
        simulated = self._simulated
        return [
            *Jobs(store, self._intake, self._waiting, lanes, still, simulated=simulated).routes(),
            *LimitRoutes(store, lanes).routes(),
            *Look(store, known, still).routes(),
            *OwnOrgRoutes(store).routes(),
            *UserRoutes(store).routes(),
            *OwnAuditRoutes(store).routes(),
            *KeyRoutes(store, self._api_keys).routes(),
            *ModelRoutes(store, known.models).routes(),
            *ProviderKeyRoutes(store, self._vault).routes(),
            *AccessRoutes(store).routes(),
            *page_routes(),
        ]

    def operator_routes(self) -> list[Route]:
        store, api_keys = self._store, self._api_keys
        terms = ModeTerms(self._known.profile)
        return [
            *OrgRoutes(store, api_keys, terms).routes(),
            *OrgUserRoutes(store, api_keys).routes(),
            *OrgAuditRoutes(store).routes(),
            *LedgerRoutes(store).routes(),
            *PurgeRoutes(store).routes(),
            *DeskRoutes(store, terms).routes(),
            *OperatorAuditRoutes(store).routes(),
            *OperatorRoutes(store, api_keys).routes(),
        ]

    def users(self) -> web.Application:
        identity = self._states.noting(self._checker.identity)
        # What is measured is of all orgs: it is told to operators alone.
        app = self._build(self.user_routes(), identity, gate=self._gate, shows_metrics=False)
        app.on_response_prepare.append(tell_mode)
        return app

    def operators(self) -> web.Application:
        return self._build(self.operator_routes(), self._checker.identity)

    async def _gate(self, request: web.Request, route: Route, who: Identity | None) -> None:
        """Nothing is read of what would be refused anyway, or for which there is no room. What was
        taken in before gets the same answer, however things stand now."""
        submits = who is not None and route.operation == "submit_jobs"
        if who is not None and submits:
            key = idempotency_key_of(request, route)
            if key is not None and await self._intake.knows(who, key):
                return
        await self._states.refuse_writes(route, who)
        if who is not None and submits:
            await self._lanes.room_for(who.org, request.content_length or 0)

    async def _server(self) -> str | None:
        await self._store.hello()
        return None

    async def _scheduler(self) -> str | None:
        silent_ms = await self._store.scheduler_silent_ms()
        if silent_ms is None or silent_ms > _SCHEDULER_SILENT_MS:
            return "no scheduler has been seen lately"
        return None

    def _build(
        self,
        routes: Sequence[Route],
        identity: Authenticate,
        *,
        gate: Gate | None = None,
        shows_metrics: bool = True,
    ) -> web.Application:
        return build(
            routes,
            identity,
            _http(self._settings),
            version=__version__,
            checks={"server": self._server, "scheduler": self._scheduler},
            meters=self._meters,
            shows_metrics=shows_metrics,
            faults=FAULTS,
            gate=gate,
        )


def _http(settings: Settings) -> HttpSettings:
    try:
        networks = [ip_network(one.strip()) for one in settings.trusted_proxies.split(",") if one]
    except ValueError as error:
        raise Refused(f"MILLPOND_TRUSTED_PROXIES: {error}") from None
    return HttpSettings(
        path_prefix=settings.path_prefix,
        trust=Trust(tuple(networks)),
        connections_per_address=settings.connections_per_address,
    )


async def _serve(
    exits: AsyncExitStack, settings: Settings, setting: str, app: web.Application
) -> str:
    """Listen as a setting says; where it can be asked."""
    address: str = getattr(settings, setting)
    where: dict[str, Any]
    if address.startswith("unix:"):
        where = {"path": address.removeprefix("unix:")}
    else:
        host, _, port = address.rpartition(":")
        where = {"host": host.strip("[]") or None, "port": int(port)}
    try:
        listener: Listener = await exits.enter_async_context(serve(app, **where))
    except OSError as error:
        raise Refused(
            f"cannot listen at {address}: {_reason(error)}; "
            f"name another with {PREFIX}{setting.upper()}"
        ) from None
    if "path" in where:
        return address
    host = address.rpartition(":")[0] or "127.0.0.1"
    return f"http://{host}:{listener.port}{settings.path_prefix}"


def _reason(error: OSError) -> str:
    """asyncio tells the address once more, and the reason after that."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)  # of the name of a host


def _write(ready: Path, text: bytes) -> None:
    half = ready.with_name(ready.name + ".half")
    half.write_bytes(text)
    half.replace(ready)

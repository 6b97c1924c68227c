"""What `millpond doctor` looks at. A check tells one line; what fails or is doubtful has a way out.

python  settings  server  durable  clock  layout  master key  ports  disk  service
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from millpond.cli_service import UP, NoKey, NoService, Place, find
from millpond.errors import MillpondError
from millpond.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

PYTHON_LEAST = (3, 11)
SERVER_LEAST = 7
#: Of its clock against ours: leases and deadlines rest on the server's alone, logs on both.
CLOCK_WARN_S, CLOCK_FAIL_S = 2.0, 60.0
DISK_WARN, DISK_FAIL = 2**30, 100 * 2**20
_ASK_S = 5.0


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and found; `way_out` of what is not well."""

    name: str
    state: State
    told: str
    way_out: str = ""


def ok(name: str, told: str) -> Check:
    return Check(name, State.OK, told)


def warn(name: str, told: str, way_out: str) -> Check:
    return Check(name, State.WARN, told, way_out)


def fail(name: str, told: str, way_out: str) -> Check:
    return Check(name, State.FAIL, told, way_out)


async def examine(place: Place, unknown: list[str]) -> AsyncIterator[Check]:
    """Every check, one after the other. `unknown`: names of the environment that are no
    settings."""
    yield python()
    settings, check = read_settings(unknown)
    yield check
    if settings is None:
        return
    if settings.redis_url is None:
        async for check in embedded():
            yield check
    else:
        async for check in named(settings):
            yield check
    yield master_key(settings, place)
    for name, address in (("port", settings.listen), ("op. port", settings.operator_listen)):
        yield await port(name, address)
    yield disk(Path())
    yield await service(place)


# ------------------------------------------------------------ this machine


def python(version: tuple[int, int, int] | None = None) -> Check:
    found = version or sys.version_info[:3]
    text = ".".join(map(str, found))
    if found[:2] < PYTHON_LEAST:
        return fail("python", text, f"use {'.'.join(map(str, PYTHON_LEAST))} or newer")
    return ok("python", text)


def read_settings(unknown: list[str]) -> tuple[Settings | None, Check]:
    from pydantic import ValidationError

    try:
        settings = Settings()
    except ValidationError as error:
        names = sorted({f"MILLPOND_{str(one['loc'][0]).upper()}" for one in error.errors()})
        told = f"{', '.join(names)}: cannot be used"
        return None, fail("settings", told, "`millpond config show` says what is wrong")
    if unknown:
        return settings, fail("settings", f"{', '.join(unknown)}: no such setting", "unset it")
    return settings, ok("settings", "all can be used")


def disk(folder: Path) -> Check:
    import shutil

    free = shutil.disk_usage(folder).free
    told = f"{free / 2**30:,.1f} GiB free in {folder.resolve()}"
    if free < DISK_FAIL:
        return fail("disk", told, "make room: the books cannot be kept on a full disk")
    if free < DISK_WARN:
        return warn("disk", told, "make room, or name another --data-dir")
    return ok("disk", told)


async def port(name: str, address: str) -> Check:
    """Whether an address can be listened on, or we are who listens there."""
    if address.startswith("unix:"):
        return ok(name, address)
    host, _, number = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if await asyncio.to_thread(_is_free, host, int(number)):
        return ok(name, f"{address} is free")
    if await _is_ours(host, int(number)):
        return ok(name, f"{address} is in use, by millpond")
    option = "MILLPOND_LISTEN" if name == "port" else "MILLPOND_OPERATOR_LISTEN"
    way_out = f"stop what listens there, or set {option} (millpond up: --port, --operator-port)"
    return fail(name, f"{address} is in use by another program, or not of this machine", way_out)


def _is_free(host: str, number: int) -> bool:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, number))
            one.listen()
        except OSError:
            return False
    return True


async def _is_ours(host: str, number: int) -> bool:
    """Every listener of ours says how it is to anybody."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{near}]:{number}" if ":" in near else f"http://{near}:{number}"
    told = await _ask(f"{url}/healthz")
    return told is not None and told[0] == 200 and told[1].get("status") == "ok"


async def _ask(url: str) -> tuple[int, dict[str, object]] | None:
    """Status and JSON; None: whoever is there, if anybody is, does not speak so."""
    import aiohttp

    with suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASK_S)) as session,
            session.get(url, allow_redirects=False) as reply,
        ):
            told = await reply.json()
            return reply.status, told if isinstance(told, dict) else {}
    return None


def master_key(settings: Settings, place: Place) -> Check:
    """The one that the settings name, else that of the folder of `millpond up`."""
    from millpond.run.seeds import MASTER
    from millpond.store.sealing import read_master_keys

    name = "master key"
    here = (place.data_dir or UP) / MASTER
    in_folder = settings.master_key is None and settings.master_key_file is None and here.exists()
    if in_folder:
        settings = settings.model_copy(update={"master_key_file": here})
    try:
        found = read_master_keys(settings)
    except MillpondError as error:
        return fail(name, str(error), "chmod 600 it, or make one: openssl rand -base64 32")
    if found is None:
        return warn(
            name,
            "none",
            "a deployment needs one (MILLPOND_MASTER_KEY_FILE); `millpond up` makes its own",
        )
    where = str(here) if in_folder else "MILLPOND_MASTER_KEY_FILE"
    return ok(name, where if settings.master_key_file else "MILLPOND_MASTER_KEY")


# ------------------------------------------------------------ the server


async def embedded() -> AsyncIterator[Check]:
    """It is found, and can be started: in a folder of its own, which goes again."""
    import tempfile

    from millpond.embedded.server import EmbeddedServer, find_server
    from millpond.store.gateway import connect

    try:
        program = find_server()
        with tempfile.TemporaryDirectory(prefix="millpond-doctor-") as folder:
            server = EmbeddedServer(Path(folder))
            try:
                await server.start()
                async with connect(server.url) as redis:
                    version = await _version(redis)
            finally:
                await server.stop()
    except (MillpondError, OSError) as error:
        way_out = "or name one that runs already: MILLPOND_REDIS_URL=redis://HOST:PORT"
        yield fail("server", f"the embedded one cannot be started: {error}", way_out)
        return
    yield ok("server", f"embedded, {version}, was started and stopped: {program}")


async def named(settings: Settings) -> AsyncIterator[Check]:
    """The server that MILLPOND_REDIS_URL names. Nothing is written to it."""
    from redis.exceptions import RedisError

    from millpond.store.durable import WAY_OUT, NotDurable, check_durable
    from millpond.store.gateway import connect

    assert settings.redis_url is not None
    try:
        async with connect(settings.redis_url) as redis:
            version = await _version(redis)
            digits = version.rpartition(" ")[2].partition(".")[0]
            if not digits.isdigit() or int(digits) < SERVER_LEAST:
                yield fail("server", version, f"use Redis or Valkey {SERVER_LEAST} or newer")
                return
            yield ok("server", f"{version}, at MILLPOND_REDIS_URL")
            try:
                await check_durable(redis)
                yield ok("durable", "it keeps what it is told, and throws nothing away")
            except NotDurable as error:
                told = str(error).removesuffix(f". {WAY_OUT}")
                if settings.ephemeral:
                    yield warn("durable", told, "MILLPOND_EPHEMERAL says that it may")
                else:
                    yield fail("durable", told, WAY_OUT)
            yield await clock(redis)
            yield await layout(redis, settings.partition)
    except (MillpondError, RedisError, OSError) as error:
        yield fail("server", f"no answer: {error}", "is it up, and MILLPOND_REDIS_URL right?")


async def _version(redis: "Redis") -> str:
    told = await redis.info("server")
    if "valkey_version" in told:
        return f"Valkey {told['valkey_version']}"
    return f"Redis {told.get('redis_version', '?')}"


async def clock(redis: "Redis") -> Check:
    before = time.time()
    seconds, micros = await redis.time()
    after = time.time()
    theirs = seconds + micros / 1_000_000
    apart = abs(theirs - (before + after) / 2)
    told = f"the server's is {apart:.1f} s from ours"
    way_out = "let NTP keep both; limits rest on the server's, which is kept from stepping"
    if apart > CLOCK_FAIL_S:
        return fail("clock", told, way_out)
    if apart > CLOCK_WARN_S:
        return warn("clock", told, way_out)
    return ok("clock", told)


async def layout(redis: "Redis", partition: str) -> Check:
    from millpond.store import keys
    from millpond.store.gateway import LAYOUT

    pipe = redis.pipeline(transaction=False)  # (its methods are typed, those of the client are not)
    pipe.hget(keys.prefix(partition) + "m", "layout")
    [found] = await pipe.execute()
    if found is None:
        return ok("layout", "the server holds nothing of ours yet")
    if found.decode() != LAYOUT:
        return fail(
            "layout",
            f"the server's data has layout {found.decode()}, this program knows {LAYOUT}",
            "use the version of millpond that wrote it, or another server",
        )
    return ok("layout", LAYOUT)


# ------------------------------------------------------------ the service


async def service(place: Place) -> Check:
    """Reachable and ready, if one is named or runs here; and whether it takes the key."""
    try:
        access = find(place)
    except NoService as error:
        return warn("service", "none is named and none runs here", str(error).rpartition(": ")[2])
    except NoKey as error:
        return fail("service", *_apart(str(error)))
    except MillpondError as error:
        return fail("service", str(error), "mend MILLPOND_URL or --url")
    told = await _ask(f"{access.url}/readyz")
    if told is None:
        return fail("service", f"{access.url} does not answer", "is it up, and the address right?")
    status, ready = told
    if status != 200:
        failed = ready.get("failed")
        why = "; ".join(f"{k}: {v}" for k, v in failed.items()) if isinstance(failed, dict) else ""
        return fail("service", f"{access.url} is not ready: {why or status}", "see its log")
    return await _with_key(place, access.url)


async def _with_key(place: Place, url: str) -> Check:
    from millpond.cli_service import ask_once, told_here

    try:
        me = await ask_once(place, "/v1/users/me")
    except MillpondError as error:
        return fail("service", f"{url} is ready, but: {told_here(error)}", "use another key")
    return ok("service", f"{url} is ready; the key is of {me['id']}, {me['role']} of {me['org']}")


def _apart(text: str) -> tuple[str, str]:
    """What is wrong, and the way out behind the last colon."""
    told, _, way_out = text.rpartition(": ")
    return told, way_out

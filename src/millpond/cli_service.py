"""The service, asked over HTTP: which one is meant, with which key, and how its errors end.

    --url, MILLPOND_URL            --api-key-file, MILLPOND_API_KEY           of users
    MILLPOND_OPERATOR_URL          --operator-key-file, MILLPOND_OPERATOR_KEY    of operators

without either, url and keys of the `millpond up` that runs in `./.millpond/up`.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from urllib.parse import quote

import typer

from millpond.cli_tell import Told, note
from millpond.errors import MillpondError

if TYPE_CHECKING:
    from millpond.client.access import Access
    from millpond.client.transport import Transport

Result = TypeVar("Result")

UP = Path(".millpond/up")
#: Environment variables of the service's callers that are no settings of its processes.
VARIABLES = {
    "MILLPOND_URL": "Callers: the service's address.",
    "MILLPOND_API_KEY": "Callers: a user's key.",
    "MILLPOND_OPERATOR_URL": "Callers: the address of its operators' API.",
    "MILLPOND_OPERATOR_KEY": "Callers: an operator's key.",
}
NO_SERVER, LATER, NOT_PERMITTED = 69, 75, 77

_KEY_BYTES_MOST = 4_096
_PAGE_MOST = 100
_TIMEOUT_S = 30.0
_RETRIES = 2
#: At the machine itself: nobody else listens to what is sent there.
_NEAR = frozenset({"127.0.0.1", "::1", "localhost", "0.0.0.0", "::"})

Url = Annotated[
    str | None,
    typer.Option(help="The service. [default: MILLPOND_URL, else `millpond up` here]"),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--api-key-file", help="File with the key. [default: MILLPOND_API_KEY]"),
]
OperatorUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The operators' API. [default: MILLPOND_OPERATOR_URL, else `millpond up` here]",
    ),
]
OperatorKeyFile = Annotated[
    Path | None,
    typer.Option("--operator-key-file", help="File with the key. [default: MILLPOND_OPERATOR_KEY]"),
]
UpDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Of a `millpond up`, for its url and keys. [default: .millpond/up]"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, an object a line.")]


class Side(StrEnum):
    """Who asks."""

    USER = "user"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class _Names:
    url: str
    key: str
    key_option: str
    begins: str
    of_up: str  #: the url, in producer.ready
    key_of_up: str  #: in credentials.json


_NAMES = {
    Side.USER: _Names(
        "MILLPOND_URL", "MILLPOND_API_KEY", "--api-key-file", "mpk_", "url", "api_key"
    ),
    Side.OPERATOR: _Names(
        "MILLPOND_OPERATOR_URL",
        "MILLPOND_OPERATOR_KEY",
        "--operator-key-file",
        "mpo_",
        "operator_url",
        "operator_key",
    ),
}


class NoService(MillpondError):
    """Nobody said which service is meant, and none runs here."""

    code = "no_service"


class NoKey(MillpondError):
    """There is no key, or none that could be one of the service's."""

    code = "no_key"


@dataclass(frozen=True, slots=True)
class Place:
    """Which service, as the options of a command name it."""

    url: str | None = None
    key_file: Path | None = None
    data_dir: Path | None = None
    side: Side = Side.USER


@dataclass(frozen=True, slots=True)
class _Up:
    """A `millpond up` that is alive."""

    url: str
    key: str = field(repr=False)


# ------------------------------------------------------------ which service


def find(place: Place) -> "Access":
    """The service that is meant. Raises NoService or NoKey, which say the way out.

    An option goes before a variable, and a variable before what runs in the folder; but a folder
    that was named goes before variables. A key goes to a folder's address only if that is of this
    machine: who unpacks a folder does not send keys away.
    """
    from millpond.client.access import read_access

    names = _NAMES[place.side]
    if place.url is not None and place.data_dir is not None:
        raise NoService("name the service once: --url or --data-dir")
    named = place.data_dir is not None
    url = place.url or (None if named else os.environ.get(names.url))
    key = _key(place, names, from_environment=not named)
    if not url:
        up = read_up(place.data_dir or UP, place.side)
        if up is None:
            raise NoService(_nothing_here(place.data_dir or UP, names))
        if key is not None and not _is_near(up.url):
            raise NoService(f"the service here is {up.url}: name it with --url to send it this key")
        url, key = up.url, key or up.key
    if key is None:
        raise NoKey(
            f"no key for {url}: set {names.key}, or name a file that holds it with "
            f"{names.key_option}"
        )
    return read_access(url, key)


def is_meant(place: Place) -> bool:
    """Whether somebody named a service, or one runs in the folder."""
    names = _NAMES[place.side]
    url = place.url or (None if place.data_dir is not None else os.environ.get(names.url))
    return bool(url) or _is_alive(place.data_dir or UP)


def _nothing_here(folder: Path, names: _Names) -> str:
    return (
        f"no service is named, and no `millpond up` runs in {folder}: start one in this folder, or "
        f"set {names.url} and {names.key}"
    )


def _key(place: Place, names: _Names, *, from_environment: bool) -> str | None:
    if place.key_file is not None:
        try:
            text = place.key_file.read_text()[:_KEY_BYTES_MOST].strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise NoKey(f"{place.key_file} cannot be read: {why}") from None
        where = str(place.key_file)
    else:
        text = os.environ.get(names.key, "").strip() if from_environment else ""
        where = names.key
        if not text:
            return None
    if not text.startswith(names.begins) or not text.isascii() or len(text.split()) != 1:
        raise NoKey(
            f"{where} holds no key of a millpond's {place.side}, which begins with {names.begins}: "
            "is it of the provider, or of somebody else?"
        )
    return text


def read_up(folder: Path, side: Side) -> _Up | None:
    """The `millpond up` that runs in a folder; None: none does."""
    import orjson

    names = _NAMES[side]
    if not _is_alive(folder):
        return None
    try:
        credentials = (folder / "credentials.json").open("rb")
        with credentials:
            found = os.fstat(credentials.fileno())
            if found.st_uid != os.getuid() or found.st_mode & 0o077:
                raise NoKey(
                    f"{folder / 'credentials.json'} can be read by others, or is not yours: "
                    f"chmod 600 it, and make new keys if they may have been seen"
                )
            key = orjson.loads(credentials.read())[names.key_of_up]
        url = orjson.loads((folder / "producer.ready").read_bytes())[names.of_up]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is just starting, or ending
    return _Up(str(url), str(key))


def _is_alive(folder: Path) -> bool:
    """Whether a process holds the folder: what one that died has left is not believed."""
    import fcntl

    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_near(url: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(url).hostname in _NEAR


# ------------------------------------------------------------ asking it


class Service:
    """The service, for one command."""

    def __init__(self, access: "Access", transport: "Transport") -> None:
        self.access = access
        self.transport = transport

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, Any] | None = None,
        key: str | None = None,
        safe: bool = False,
        hold_s: float = 0.0,
    ) -> Any:
        """What it replies. `safe`: said twice it does nothing twice. Raises ClientError."""
        import asyncio

        import orjson

        from millpond.client.transport import Request
        from millpond.client.waits import Patience

        request = Request(
            method=method,
            path=path,
            query={k: str(v) for k, v in (query or {}).items() if v is not None},
            body=None if body is None else orjson.dumps(body),
            key=key,
            safe=safe,
            hold_s=hold_s,
        )
        now = asyncio.get_running_loop().time()
        patience = Patience(now + _TIMEOUT_S + hold_s, _RETRIES)
        return (await self.transport.ask(request, patience)).told

    async def get(self, path: str, **query: Any) -> Any:
        return await self.ask("GET", path, query=query)

    async def post(self, path: str, body: Any = None, *, safe: bool = False) -> Any:
        return await self.ask("POST", path, body=body, safe=safe)

    async def rows(self, path: str, *, most: int, **query: Any) -> AsyncIterator[Told]:
        """The first so many of a list, page by page."""
        cursor: str | None = None
        while most > 0:
            page = await self.get(path, **query, limit=min(most, _PAGE_MOST), cursor=cursor)
            for one in page["data"][:most]:
                yield one
            most -= len(page["data"])
            cursor = page.get("next_cursor")
            if cursor is None:
                return


def path_of(*parts: str | int) -> str:
    """A path of the API; the parts may hold any characters."""
    return "/v1/" + "/".join(quote(str(part), safe="") for part in parts)


def talk(place: Place, work: Callable[[Service], Awaitable[int | None]]) -> NoReturn:
    """Run a command against the service, and end with its code; errors become messages."""
    import asyncio

    try:
        code = asyncio.run(_talk(place, work))
    except MillpondError as error:
        end(error, place.side)
    raise typer.Exit(code or 0)


async def _talk(place: Place, work: Callable[[Service], Awaitable[int | None]]) -> int | None:
    from millpond.client.transport import Transport

    access = find(place)
    transport = Transport(access, reply_timeout=_TIMEOUT_S)
    try:
        return await work(Service(access, transport))
    finally:
        await transport.close()


async def ask_once(place: Place, path: str) -> Told:
    """What the service tells of one thing."""
    told: Told = {}

    async def work(service: Service) -> None:
        told.update(await service.get(path))

    await _talk(place, work)
    return told


def end(error: MillpondError, side: Side = Side.USER) -> NoReturn:
    """Tell an error, and end with its code."""
    note(f"millpond: {told_here(error, side)}")
    raise typer.Exit(exit_code(error)) from None


def told_here(error: MillpondError, side: Side = Side.USER) -> str:
    """An error in the words of the command line: where a key is from, not how HTTP carries it."""
    from millpond.client.errors import Unauthorized

    if not isinstance(error, Unauthorized):
        return str(error)
    names = _NAMES[side]
    request = f", request {error.request_id}" if error.request_id else ""
    return (
        f"the key is mistyped, revoked or too old: set {names.key}, or name a file that holds a "
        f"good one with {names.key_option} [{error.status} {error.code}{request}]"
    )


def exit_code(error: MillpondError) -> int:
    from millpond.client.errors import ApiError, ConnectionFailed, JobTimeout

    match error:
        case NoService() | ConnectionFailed():
            return NO_SERVER
        case NoKey():
            return NOT_PERMITTED
        case JobTimeout():
            return LATER
        case ApiError(status=401 | 403):
            return NOT_PERMITTED
        case ApiError(status=429):
            return LATER
        case ApiError(status=502 | 503 | 504):
            return NO_SERVER
    return 1

"""From a request to a `Call`: path, query, headers and body, each read strictly or refused."""

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, unquote_to_bytes

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestPayloadError
from pydantic import ValidationError

from millpond.producer.http.places import wrongs
from millpond.producer.http.problems import Problem, Wrong, invalid
from millpond.producer.http.strict_json import read
from millpond.producer.http.table import Call, Route

PATH_PARAMETER_MOST = 200
QUERY_PARAMETERS_MOST = 100
IDEMPOTENCY_KEY = "Idempotency-Key"

_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_KEY = re.compile(r'"([!#-~]{1,255})"|([!#-~]{1,255})')


def target_is_sound(request: web.Request) -> bool:
    """Whether the path is ASCII, well escaped, and means UTF-8 without control characters."""
    path = request.raw_path.partition("?")[0]
    if not path.isascii() or _BAD_PERCENT.search(path):
        return False
    try:
        return _CONTROL.search(unquote_to_bytes(path).decode()) is None
    except UnicodeDecodeError:
        return False


def path_of(request: web.Request) -> dict[str, str]:
    """The parameters in the path. One that can be nobody's name is a path that is not there."""
    path = dict(request.match_info)
    if any(not 0 < len(value) <= PATH_PARAMETER_MOST for value in path.values()):
        raise Problem("not-found")
    return path


def query_of(request: web.Request, route: Route) -> object:
    """The query string as the route's model; each name once."""
    query = request.raw_path.partition("?")[2]
    if not query and route.query is None:
        return None
    found: dict[str, str] = {}
    for name, value in _pairs(query):
        if name in found:
            raise invalid(f"/{name}", "it is there twice", where="query")
        found[name] = value
    if route.query is None:
        nobody = [Wrong(f"/{name}", "there is no such parameter", "query") for name in found]
        raise Problem("invalid", errors=nobody)
    try:
        return route.query.model_validate_strings(found, strict=True)
    except ValidationError as error:
        raise Problem("invalid", errors=wrongs(error, found, where="query")) from None


def _pairs(query: str) -> list[tuple[str, str]]:
    if not query.isascii() or _BAD_PERCENT.search(query):
        raise invalid("", "it is not well escaped", where="query")
    try:
        return parse_qsl(
            query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_PARAMETERS_MOST
        )
    except UnicodeDecodeError:
        raise invalid("", "it is not UTF-8", where="query") from None
    except ValueError:
        raise invalid("", f"more than {QUERY_PARAMETERS_MOST} of them", where="query") from None


def idempotency_key_of(request: web.Request, route: Route) -> str | None:
    """The key, with or without the quotes that the draft wants; None if the route takes none."""
    told = request.headers.getall(IDEMPOTENCY_KEY, ()) if route.idempotent else ()
    if not told:
        return None
    match = _KEY.fullmatch(told[0]) if len(told) == 1 else None
    if match is None:
        detail = "one, of 1 to 255 printable ASCII characters without spaces"
        raise invalid(f"/{IDEMPOTENCY_KEY}", detail, where="header")
    return match[1] or match[2]


async def body_of(request: web.Request, route: Route, *, body_s: float) -> object:
    """The body as the route's model; None if the handler reads it itself."""
    if not route.has_body:
        await _no_body(request, body_s)
        return None
    if route.body_optional and not request.can_read_body:
        return None
    _refuse_other_media(request, route)
    _refuse_too_large(request, route.body_most)
    await _continue(request)
    if route.reads_itself:
        return None
    body = await _read(request, route.body_most, body_s)
    if route.body_optional and not body:
        return None
    return read(body, route.body_adapter)


async def chunks(call: Call, *, idle_s: float = 30.0) -> AsyncIterator[bytes]:
    """The body of a route that `reads_itself`, as it comes: `body_most` bytes at most, and never
    a wait of more than `idle_s`."""
    left, content = call.route.body_most, call.request.content
    while True:
        chunk = await _within(idle_s, content)
        if not chunk:
            return
        left -= len(chunk)
        if left < 0:
            raise _too_large(call.route.body_most)
        yield chunk


async def _read(request: web.Request, most: int, body_s: float) -> bytes:
    loop, parts, size = asyncio.get_running_loop(), list[bytes](), 0
    until = loop.time() + body_s
    while chunk := await _within(until - loop.time(), request.content):
        size += len(chunk)
        if size > most:
            raise _too_large(most)
        parts.append(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _within(seconds: float, content: StreamReader) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await content.readany()
    except TimeoutError:
        raise Problem("timeout", "the body did not arrive in time") from None
    except (RequestPayloadError, web.HTTPBadRequest) as error:
        raise Problem("bad-request", f"the body cannot be read: {error}") from None


async def _no_body(request: web.Request, body_s: float) -> None:
    """`{}` is forgiven: many clients send it with every POST."""
    if not request.can_read_body:
        return
    _refuse_too_large(request, 1_024)
    await _continue(request)
    if (await _read(request, 1_024, body_s)).strip() not in (b"", b"{}"):
        raise invalid("", "this route takes no body")


def _refuse_other_media(request: web.Request, route: Route) -> None:
    encodings = [one.strip().lower() for one in request.headers.getall("Content-Encoding", ())]
    if encodings not in ([], ["identity"]) and not (
        len(encodings) == 1 and encodings[0] in route.encodings
    ):
        raise Problem("unsupported-media", "this route takes no Content-Encoding")
    told = request.headers.getall("Content-Type", ())
    if len(told) != 1 or request.content_type not in route.takes or not _charset_is_utf8(request):
        raise Problem("unsupported-media", f"Content-Type must be {' or '.join(route.takes)}")


def _charset_is_utf8(request: web.Request) -> bool:
    return (request.charset or "utf-8").lower() in ("utf-8", "utf8", "us-ascii")


def _refuse_too_large(request: web.Request, most: int) -> None:
    if (request.content_length or 0) > most:
        raise _too_large(most)


def _too_large(most: int) -> Problem:
    return Problem("too-large", f"this route takes {most} bytes at most")


async def _continue(request: web.Request) -> None:
    """Say that the body is welcome, to a client that asked before it sends it."""
    if request.headers.get("Expect") and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # what follows is still the first of the reply

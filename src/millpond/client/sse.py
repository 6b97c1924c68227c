"""Server-sent events, read: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

_MOST = 8 * 1024 * 1024  # bytes of one event


class TooLong(ValueError):
    """An event has more bytes than any of ours."""


@dataclass(slots=True)
class Message:
    """An event as it was sent; `retry_ms` if it says how long to wait before coming again."""

    data: str = ""
    event: str = "message"
    id: str | None = None
    retry_ms: int | None = None


async def messages(chunks: AsyncIterable[bytes]) -> AsyncIterator[Message]:
    """The events of a stream; what is not ended by an empty line when it breaks off is none. A
    message without data only says `retry` or `id`."""
    told, data, size = Message(), list[str](), 0
    async for line in _lines(chunks):
        size += len(line)
        if size > _MOST:
            raise TooLong(f"an event of more than {_MOST} bytes")
        if not line:
            told.data = "\n".join(data)
            if data or told.retry_ms is not None or told.id is not None:
                yield told
            told, data, size = Message(), [], 0
            continue
        name, _, value = line.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            told.event = value or "message"
        elif name == "id" and "\0" not in value:
            told.id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            told.retry_ms = int(value[:9])


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Lines end with CR LF, LF or CR."""
    rest, begun = b"", False
    async for chunk in chunks:
        rest += chunk
        if not begun and len(rest) >= 3:
            rest, begun = rest.removeprefix(b"\xef\xbb\xbf"), True
        if len(rest) > _MOST:
            raise TooLong(f"a line of more than {_MOST} bytes")
        held = rest.endswith(b"\r")  # whose LF may come yet
        if held:
            rest = rest[:-1]
        *whole, rest = rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest += b"\r" if held else b""
        for line in whole:
            yield line

"""The store's gateway over a blocking connection: a script costs what the server needs for it.

Nothing is ever waited for, so a coroutine of the store runs to its end at once, without a loop.
"""

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import ResponseError

from conftest import PARTITION
from millpond.store import keys
from millpond.store.gateway import SCRIPTS, Argument, Gateway, Time
from millpond.store.store import Row

T = TypeVar("T")
Dump = dict[str, Any]

PREFIX = keys.prefix(PARTITION)

_DUMP = """
local read = {string = {'GET'}, hash = {'HGETALL'}, list = {'LRANGE', 0, -1}, set = {'SMEMBERS'},
  zset = {'ZRANGE', 0, -1, 'WITHSCORES'}, stream = {'XRANGE', '-', '+'}}
local all = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind = redis.call('TYPE', key).ok
  local how = read[kind]
  all[#all + 1] = {key, kind, redis.call(how[1], key, unpack(how, 2))}
end
return all
"""


def plain(kind: bytes, value: Any) -> Any:
    if kind == b"string":
        return value
    if kind == b"stream":
        return [(id.decode(), _pairs(fields)) for id, fields in value]
    if kind == b"hash":
        return _pairs(value)
    texts = [one.decode() for one in value]
    if kind == b"zset":
        return {member: float(at) for member, at in zip(texts[::2], texts[1::2], strict=True)}
    return sorted(texts) if kind == b"set" else texts


def _pairs(fields: list[bytes]) -> dict[str, str]:
    texts = [one.decode() for one in fields]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def at_once(work: Coroutine[Any, Any, T]) -> T:
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("it waits for something")


class Server:
    """One connection, on which several stores speak in turn."""

    def __init__(self, url: str) -> None:
        self.redis = Redis.from_url(url)
        self._connection = self.redis.connection_pool.get_connection()
        self._parsed: dict[bytes, tuple[Any, Any]] = {}
        for script in SCRIPTS.values():
            self.command("SCRIPT", "LOAD", script.text)
        self._dump: bytes = self.command("SCRIPT", "LOAD", _DUMP)

    def close(self) -> None:
        self.redis.connection_pool.release(self._connection)
        self.redis.close()

    def send(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        return [self._reply() for _ in commands]

    def _reply(self) -> Any:
        try:
            return self._connection.read_response()
        except ResponseError as error:
            return error

    def command(self, *args: Argument) -> Any:
        [reply] = self.send([args])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def dump(self) -> Dump:
        """All keys of the partition without its prefix, as plain values; strings stay bytes. What
        is as it was is the same object as in the last dump."""
        found = {}
        parsed: dict[bytes, tuple[Any, Any]] = {}
        for key, kind, value in self.command("EVALSHA", self._dump, 0, PREFIX):
            known = self._parsed.get(key)
            if known is None or known[0] != value:
                known = (value, plain(kind, value))
            parsed[key] = known
            found[key.decode()[len(PREFIX) :]] = known[1]
        self._parsed = parsed
        return found

    def rows(self, flow: str) -> list[Row]:
        found = self.command("XRANGE", f"{PREFIX}f:{flow}:out", "-", "+")
        return [Row(id, fields) for id, fields in plain(b"stream", found)]


class Direct(Gateway):
    def __init__(self, server: Server, time: Time) -> None:
        super().__init__(None, PARTITION, time=time)  # type: ignore[arg-type]
        self._server = server

    async def _send(
        self, calls: Sequence[tuple[str, Sequence[Argument]]], quiet: str | None
    ) -> list[Any]:
        return self._server.send(
            [
                ("EVALSHA", SCRIPTS[name].sha, 1, self._prefix, *self._envelope(quiet), *args)
                for name, args in calls
            ]
        )

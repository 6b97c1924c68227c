"""Whether a server may hold the books: it keeps what it was told, and throws none of it away.

Asked of a server that was named, before anything is written to it. The embedded one is started so
that it passes. What follows from a server that forgets is in docs/decisions/0010.
"""

from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from millpond.errors import Refused, StoreUnavailable

WAY_OUT = (
    "Put into its redis.conf: appendonly yes, appendfsync everysec, maxmemory-policy noeviction. "
    "Or use it all the same, if its books may be lost: --ephemeral, or MILLPOND_EPHEMERAL=true"
)


class NotDurable(Refused):
    """The server may lose what it is told, and nobody said that it may."""

    code = "not_durable"


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a server keeps its data. `save` is its rule for snapshots, None if it does not tell;
    `maxmemory` 0 is no limit."""

    append_only: bool
    save: str | None
    maxmemory: int
    policy: str


async def check_durable(redis: Redis) -> None:
    """Raises NotDurable for a server that keeps nothing on disk, or evicts."""
    wrong = faults(await _read(redis))
    if wrong:
        raise NotDurable(f"the server at MILLPOND_REDIS_URL {'; and it '.join(wrong)}. {WAY_OUT}")


def faults(keeping: Keeping) -> list[str]:
    """What is wrong with it and what that risks, as ends of a sentence that begins with it."""
    found = []
    if not keeping.append_only and not keeping.save:
        # A server that does not tell its rule (managed ones refuse CONFIG) is taken to have none.
        # INFO has hints, but none to rest the books on: rdb_last_save_time is the time of the
        # start where nothing was ever saved, and rdb_saves counts copies for replicas and backups
        # of once a day as well.
        what = (
            "has no append-only file and does not tell whether it makes snapshots"
            if keeping.save is None
            else "keeps nothing on disk"
        )
        found.append(
            f"{what}: after a restart, calls that were made would be forgotten, and the limits and "
            "the quota used a second time"
        )
    if keeping.maxmemory > 0 and keeping.policy != "noeviction":
        found.append(
            f"throws keys away when its memory is full (maxmemory-policy {keeping.policy}): jobs, "
            "and calls that limits and quota rest on, would vanish one by one"
        )
    return found


async def _read(redis: Redis) -> Keeping:
    try:
        persistence = await redis.info("persistence")
        memory = await redis.info("memory")
        append_only = bool(persistence.get("aof_enabled"))
        return Keeping(
            append_only,
            None if append_only else await _save(redis),
            int(memory.get("maxmemory", 0)),
            str(memory.get("maxmemory_policy", "noeviction")),
        )
    except ResponseError as error:
        raise NotDurable(
            f"the server at MILLPOND_REDIS_URL does not tell how it keeps its data ({error}): "
            "allow this user the command INFO"
        ) from None
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"the server does not answer: {error}") from error


async def _save(redis: Redis) -> str | None:
    try:
        found: dict[str, str] = await redis.config_get("save")
    except ResponseError:  # no such command, or not for this user
        return None
    return found.get("save")

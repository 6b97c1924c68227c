"""Reading what no script tells: several records in one round trip, and lists page by page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from millpond.errors import Refused, StoreUnavailable

T = TypeVar("T")

#: Entries of a page, at most.
PAGE_MOST = 1_000


class BadValue(Refused):
    """A text, a name or an id that is not what such a thing can be."""

    code = "bad_value"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list. `after`: what to ask for the next part with; None: this was the last."""

    entries: tuple[T, ...]
    after: str | None


def refuse(fault: str | None) -> None:
    """Raises BadValue if something is wrong."""
    if fault is not None:
        raise BadValue(fault)


def page_size(most: int) -> int:
    refuse(None if 1 <= most <= PAGE_MOST else f"a page has 1 to {PAGE_MOST:,} entries")
    return most


async def read_all(pipe: Pipeline) -> list[Any]:
    """The answers to all commands of a pipeline. Raises StoreUnavailable."""
    try:
        answers: list[Any] = await pipe.execute()
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"the server does not answer: {error}") from error
    return answers


def texts(told: Mapping[bytes, bytes]) -> dict[str, str]:
    """A record's fields."""
    return {name.decode(): value.decode() for name, value in told.items()}

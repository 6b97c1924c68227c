"""Jobs that nobody wants any more, and those that died."""

import re
import secrets
from collections.abc import Iterator, Sequence

import orjson

from millpond.errors import Refused
from millpond.operate.commands import Asked
from millpond.operate.reach import org_of
from millpond.standing.moments import Clock, Told, for_people
from millpond.store.store import DeadLetter

_LINE_OF_A_RUN = re.compile(r"r[0-9a-f]{12}\.[0-9]+")
#: Jobs of one script.
_CANCEL_MOST = 200
_WORDS = {
    "cancelled": "cancelled",
    "cancelling": "is running: it is cut at its worker's next heartbeat, if it shares no call",
    "ended": "had ended before",
    "unknown": "is not known: it has ended and left, has not been fed yet, or never was",
}
#: Some of the jobs are not known.
_NOT_ALL = 3


async def cancel(asked: Asked, jobs: Sequence[str]) -> int:
    words: list[str] = []
    async with asked.store() as (store, _):
        for start in range(0, len(jobs), _CANCEL_MOST):
            words += await store.cancel(jobs[start : start + _CANCEL_MOST])
    rows = [{"job": job, "state": word} for job, word in zip(jobs, words, strict=True)]
    asked.tell(rows, (f"{row['job']} {_WORDS[row['state']]}" for row in rows))
    return _NOT_ALL if "unknown" in words else 0


async def list_dead(asked: Asked, org: str | None, *, most: int) -> int:
    async with asked.store() as (store, clock):
        letters = await store.dead(await org_of(store, org), most=most)
    rows = [_row(letter, clock) for letter in letters]
    asked.tell(rows, _lines(rows))
    return 0


async def replay(asked: Asked, org: str | None, job: str, new: str | None) -> int:
    if _LINE_OF_A_RUN.fullmatch(job):
        raise Refused(
            f"{job} is a line of a run, and stands in its errors file: ask that again, "
            "millpond run FILE.errors.jsonl"
        )
    async with asked.store() as (store, _):
        name = new or f"{job}.{secrets.token_hex(3)}"
        await store.replay(await org_of(store, org), job, name)
    asked.tell({"job": name, "replays": job}, iter([f"{job} is asked again as {name}"]))
    return 0


def _row(letter: DeadLetter, clock: Clock) -> Told:
    return {
        "job": letter.job,
        "flow": letter.flow,
        "died": clock.at(letter.at_ms),
        "attempts": letter.attempts,
        "failures": letter.failures,
        "call": letter.call,
        "errors": [orjson.loads(error)["error"] for error in letter.errors],
    }


def _lines(rows: list[Told]) -> Iterator[str]:
    if not rows:
        yield "no job has died"
    for row in rows:
        died = for_people(row["died"])
        yield f"{row['job']} of {row['flow']}: {died}, {row['attempts']} attempts"
        for error in row["errors"]:
            yield f"    {error['code']}: {error['message']}"

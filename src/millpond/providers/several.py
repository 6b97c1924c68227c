"""Jobs with several texts: each is one of a pack to the provider; to the job all are one answer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from millpond.domain.request import Ask, Common, Need
from millpond.providers.adapter import Adapter
from millpond.providers.outcome import Answered, JobFailed, Outcome, Rejected, Result


def need_of(adapter: Adapter, common: Common, ask: Ask) -> Need:
    """What a job may use, all its texts together. Raises BadParameter."""
    needs = [adapter.need(common, one) for one in ask.each()]
    return Need(
        sum(one.characters for one in needs),
        sum(one.tokens for one in needs),
        sum(one.base for one in needs),
    )


def apart(asks: Sequence[Ask]) -> list[Ask]:
    """An ask for each text of a call."""
    return [one for ask in asks for one in ask.each()]


def together(asks: Sequence[Ask], outcome: Outcome) -> Outcome:
    """The outcome of a call, by its jobs, from that by its texts."""
    if not any(ask.more for ask in asks):
        return outcome
    match outcome:
        case Answered(results, used, tokens):
            parts = list(_parts(asks))
            return Answered(
                tuple(_one(results[part]) for part in parts),
                tuple(sum(used[part]) for part in parts),
                tokens,
            )
        case Rejected(index=int(index)):
            places = (n for n, part in enumerate(_parts(asks)) if part.start <= index < part.stop)
            return replace(outcome, index=next(places, None))
        case other:
            return other


def _parts(asks: Sequence[Ask]) -> Iterator[slice]:
    """Which of a call's texts are each job's."""
    start = 0
    for ask in asks:
        stop = start + 1 + len(ask.more)
        yield slice(start, stop)
        start = stop


def _one(results: Sequence[Result | JobFailed]) -> Result | JobFailed:
    if len(results) == 1:
        return results[0]
    told: list[Result] = []
    for result in results:
        if isinstance(result, JobFailed):
            return result
        told.append(result)
    shared = ("model", "characters")
    return {
        "results": [{k: v for k, v in one.items() if k not in shared} for one in told],
        "model": told[0]["model"],
        "characters": {
            way: sum(one["characters"][way] for one in told) for way in ("input", "output")
        },
    }

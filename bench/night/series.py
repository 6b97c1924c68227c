"""What the simulator's journal says of a night: curves by the second, and counts."""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from bench.night.field import Night

STRANGER = "stranger"
#: The chats of so many seconds make one point of their curve; fewer than so many make none.
CHATS_S = 20
CHATS_LEAST = 5
#: Chats that come while the prompts end are nobody's failure.
LAST_CHATS_S = 1.0

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Curves:
    """Each has a value a second from the first call on. Chats: the 95th of 100 waits, in s."""

    answers: list[int]
    refused: list[int]
    chat_p95_s: list[float | None]


@dataclass(frozen=True)
class Came:
    """What a client's night came to. `twice`: calls for a prompt that had been admitted before;
    `end_s`: when the last answer came; `chats_never` were not answered, and waited to the end."""

    answered: int
    lost: int
    twice: int
    refused: int
    refused_chats: int
    end_s: float
    chats: int
    chats_never: int
    chat_p50_s: float
    chat_p95_s: float
    chat_most_s: float
    stranger_got: int
    curves: Curves


def read_calls(journal: Path) -> list[dict[str, Any]]:
    """The calls that have arrived and ended; a line that is being written is left out."""
    text = journal.read_bytes() if journal.exists() else b""
    rows = [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
    return [row for row in rows if row.get("at_ms") is not None]


def what_came(
    rows: Sequence[Row], night: Night, first_ms: float, is_chat: Callable[[str], int | None]
) -> Came:
    """`first_ms`: unix time of the first call."""
    ours = [row for row in rows if row["attempt"] != STRANGER]
    numbers = [is_chat(row["attempt"] or "") for row in ours]
    bulk = [row for row, number in zip(ours, numbers, strict=True) if number is None]
    refused = [row for row in ours if row["refused_by"] is not None]

    answers_ms = _first((row["body_sha256"], row["headers_ms"]) for row in bulk if _good(row))
    end_ms = max(answers_ms.values(), default=first_ms)
    admitted = Counter(row["body_sha256"] for row in bulk if row["refused_by"] is None)

    came_ms = _first(
        (number, row["at_ms"])
        for row, number in zip(ours, numbers, strict=True)
        if number is not None and _good(row)
    )
    asked = [
        (number, at_s)
        for number, at_s in enumerate(night.chats_s)
        if first_ms + (at_s + LAST_CHATS_S) * 1_000 <= end_ms
    ]
    waits = [
        (at_s, max(0.0, (came_ms.get(number, end_ms) - first_ms) / 1_000 - at_s))
        for number, at_s in asked
    ]
    seconds = ceil((end_ms - first_ms) / 1_000)
    return Came(
        answered=len(answers_ms),
        lost=night.prompts - len(answers_ms),
        twice=sum(admitted.values()) - len(admitted),
        refused=len(refused),
        refused_chats=len(refused) - sum(row["refused_by"] is not None for row in bulk),
        end_s=round((end_ms - first_ms) / 1_000, 2),
        chats=len(waits),
        chats_never=sum(number not in came_ms for number, _ in asked),
        chat_p50_s=_share_below([wait for _, wait in waits], 0.5),
        chat_p95_s=_share_below([wait for _, wait in waits], 0.95),
        chat_most_s=_share_below([wait for _, wait in waits], 1),
        stranger_got=sum(row["attempt"] == STRANGER and _good(row) for row in rows),
        curves=Curves(
            answers=_by_second(answers_ms.values(), first_ms, seconds),
            refused=_by_second((row["at_ms"] for row in refused), first_ms, seconds),
            chat_p95_s=[_sliding(waits, second) for second in range(seconds + 1)],
        ),
    )


def _good(row: Row) -> bool:
    """The client has its answer."""
    return row["status"] == 200 and bool(row["answered"])


def _first(moments: Iterable[tuple[Any, float]]) -> dict[Any, float]:
    """For each the earliest."""
    first: dict[Any, float] = {}
    for what, at_ms in moments:
        first[what] = min(at_ms, first.get(what, at_ms))
    return first


def _by_second(moments_ms: Iterable[float], first_ms: float, seconds: int) -> list[int]:
    """How many there were by each second."""
    in_order = sorted(moments_ms)
    return [bisect_right(in_order, first_ms + second * 1_000) for second in range(seconds + 1)]


def _sliding(waits: Sequence[tuple[float, float]], second: int) -> float | None:
    among = [wait for at_s, wait in waits if second - CHATS_S < at_s <= second]
    return _share_below(among, 0.95) if len(among) >= CHATS_LEAST else None


def _share_below(values: Sequence[float], share: float) -> float:
    """The least of them that so large a share does not exceed."""
    return round(sorted(values)[max(0, ceil(share * len(values)) - 1)], 3) if values else 0.0

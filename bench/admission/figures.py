"""What a run came to, and what is wanted of it."""

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig import Simulator

#: None: the run was too short to say.
Figures = dict[str, float | None]


@dataclass(frozen=True)
class Place:
    """Where a run may work, and the seed of all that is drawn for it."""

    folder: Path
    seed: int

    @property
    def chance(self) -> random.Random:
        return random.Random(self.seed)

    def inside(self, name: str) -> "Place":
        """A folder in it, for one of several things that are run side by side."""
        folder = self.folder / name
        folder.mkdir()
        return Place(folder, self.seed)


@dataclass(frozen=True)
class Want:
    """A bound for a figure: `Want(">=", 0.98)`."""

    how: str
    bound: float

    def holds(self, value: float | None) -> bool:
        if value is None:
            return False
        return value >= self.bound if self.how == ">=" else value <= self.bound

    def worst(self, values: list[float]) -> float:
        return min(values) if self.how == ">=" else max(values)

    def __str__(self) -> str:
        return f"{self.how} {self.bound:,g}" if self.bound else "0"


NONE = Want("<=", 0)


def at_least(bound: float) -> Want:
    return Want(">=", bound)


def at_most(bound: float) -> Want:
    return Want("<=", bound)


@dataclass(frozen=True)
class Row:
    """One line of the table: what is run, and what is wanted of its figures.

    `real`: at the provider's own scale, so once is enough. `alone`: it is about what the machine
    can do, so nothing may run beside it.
    """

    name: str
    what: str
    run: Callable[[Place], Figures]
    wants: Mapping[str, Want]
    seconds: int
    real: bool = False
    alone: bool = False


def judged(provider: Simulator, *, total: int | None = None, by: str | None = None) -> Figures:
    """What the simulator's own journal says of the one account in it."""
    options = (*(("--total", str(total)) if total else ()), *(("--limit", by) if by else ()))
    report: dict[str, Any] = provider.report(*options)
    return {
        "refused": sum(report["refused"].values()),
        "admitted": report["admitted"],
        "duplicates": report["duplicates"],
        "sustained": rounded(report["sustained"]),
        "sustained_of_ideal": ratio(report["sustained"], report["sustained_ideal"]),
        "sustained_of_bound": ratio(report["sustained"], report["bound"]),
        "drain_s": rounded(report["drain"]),
        "drain_of_ideal": ratio(report["drain"], report["drain_ideal"]),
    }


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def ratio(value: float | None, of: float | None) -> float | None:
    return round(value / of, 4) if value is not None and of else None


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def share_below(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[math.ceil(len(values) * share) - 1]


def write(line: Mapping[str, Any]) -> str:
    return json.dumps(line)

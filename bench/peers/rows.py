"""What a run came to: a row of figures, and a table of many."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.peers.field import MILLPOND, PEERS, SCENARIOS


@dataclass(frozen=True)
class Row:
    """`lost` calls were never answered; `finished`: all processes ended by themselves in time."""

    peer: str
    scenario: str
    seed: int
    finished: bool
    refused: int
    lost: int
    sustained: float | None
    sustained_ideal: float | None
    drain: float | None
    drain_ideal: float | None

    @property
    def drain_of_ideal(self) -> float | None:
        if self.drain is None or not self.drain_ideal:
            return None
        return self.drain / self.drain_ideal


def answered(journal: Path) -> int:
    """How many different requests got their answer, by the simulator's books."""
    bodies = set()
    for line in journal.read_text().splitlines():
        call = json.loads(line)
        if call.get("status") == 200 and call["answered"]:
            bodies.add(call["body_sha256"])
    return len(bodies)


def read(path: Path) -> list[Row]:
    return [Row(**json.loads(line)) for line in path.read_text().splitlines() if line[:1] == "{"]


def table(rows: Sequence[Row]) -> str:
    """A table a scenario, the peers as in the field; of several seeds, the median of the shares."""
    lines: list[str] = []
    for name, scenario in SCENARIOS.items():
        of_scenario = [row for row in rows if row.scenario == name]
        if not of_scenario:
            continue
        lines += [
            f"**{name}**: {scenario.calls} calls, {scenario.amount}/{scenario.window_s}s,"
            f" `{scenario.weather}`",
            "",
            "| client | refused | sustained (ideal) | drain / ideal | lost |",
            "|---|---|---|---|---|",
        ]
        for peer in (MILLPOND, *PEERS):
            of_peer = sorted((row for row in of_scenario if row.peer == peer), key=_seed)
            if of_peer:
                lines.append(_line(peer, of_peer))
        lines.append("")
    return "\n".join(lines)


def _seed(row: Row) -> int:
    return row.seed


def _line(peer: str, rows: Sequence[Row]) -> str:
    title = PEERS[peer].title if peer in PEERS else MILLPOND
    cells = [
        title,
        " / ".join(str(row.refused) for row in rows),
        f"{_median((row.sustained for row in rows), '{:.3f}')}"
        f" ({_median((row.sustained_ideal for row in rows), '{:.3f}')})",
        _median((row.drain_of_ideal for row in rows), "{:.2f}"),
        " / ".join(f"{row.lost}{'' if row.finished else ' (time up)'}" for row in rows),
    ]
    return f"| {' | '.join(cells)} |"


def _median(values: Iterable[float | None], form: str) -> str:
    """A run that did not come to its end has no figure, and then there is no median."""
    found = list(values)
    known = [value for value in found if value is not None]
    return form.format(median(known)) if known and len(known) == len(found) else "-"

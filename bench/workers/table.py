"""What runs came to, for people: a markdown table a row, and what is wanted beside it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.admission.figures import Figures
from bench.workers.field import COMPETITORS, MILLPOND, ROWS, Row, Want

_COLUMNS = {
    "calls_s": "calls/s",
    "cpu_us": "worker, µs a call",
    "jobs_s": "jobs/s",
    "client_us": "client, µs a job",
    "server_us": "server, µs",
    "scheduler_us": "scheduler, µs",
    "share": "share of the slots",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "most_ms": "longest, ms",
    "twice": "called twice",
}
_FORMS = {"share": "{:.3f}", "p50_ms": "{:.2f}", "p99_ms": "{:.2f}", "most_ms": "{:.2f}"}


@dataclass(frozen=True)
class Run:
    row: str
    who: str
    round: int
    loop: str
    calls: int
    #: Of the machine before the run: how many processes wanted to run, in the last minute.
    load: float
    figures: Figures = field(default_factory=dict)
    error: str = ""


def markdown(runs: Sequence[Run]) -> str:
    return "\n".join(
        line
        for name, row in ROWS.items()
        if any(run.row == name for run in runs)
        for line in _of_row(name, row, [run for run in runs if run.row == name])
    )


def _of_row(name: str, row: Row, runs: Sequence[Run]) -> list[str]:
    good = [run for run in runs if not run.error]
    columns = [one for one in _COLUMNS if any(run.figures.get(one) is not None for run in good)]
    rounds = len({run.round for run in runs})
    loads = [run.load for run in runs]
    lines = [
        f"**{name}**: {row.what}; {runs[0].calls:,} a run; medians of {rounds}; load"
        f" {min(loads):.1f} to {max(loads):.1f}",
        "",
        f"| who | loop | {' | '.join(_COLUMNS[one] for one in columns)} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for who in row.who:
        of_who = [run for run in good if run.who == who]
        failed = sum(run.who == who and bool(run.error) for run in runs)
        if of_who or failed:
            cells = [_cell(one, [run.figures.get(one) for run in of_who]) for one in columns]
            told = f"{COMPETITORS[who].title}{f' ({failed} failed)' if failed else ''}"
            loop = of_who[0].loop if of_who else ""
            lines.append(f"| {told} | {loop} | {' | '.join(cells)} |")
    return [*lines, "", "| wanted | is | |", "|---|---|---|", *_wants(row, good), ""]


def _cell(column: str, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return _FORMS.get(column, "{:,.0f}").format(median(known)) if known else ""


def _wants(row: Row, runs: Sequence[Run]) -> list[str]:
    by_round: dict[int, dict[str, Figures]] = defaultdict(dict)
    for run in runs:
        by_round[run.round][run.who] = run.figures
    lines = []
    for want in row.wants:
        found = [value for one in by_round.values() if (value := _value(want, one)) is not None]
        what = f"{_COLUMNS[want.figure]}{_over(want)} {want.how} {want.bound:g}"
        if found:
            middle = median(found)
            spread = f" ({min(found):.2f} to {max(found):.2f})" if len(found) > 1 else ""
            judged = "" if want.holds(middle) else "**missed**"
            lines.append(f"| {what} | {middle:.3f}{spread} | {judged} |")
        else:
            lines.append(f"| {what} | - | not measured |")
    return lines


def _value(want: Want, figures: dict[str, Figures]) -> float | None:
    """Of one round. Of several others, the best one counts."""
    ours = figures.get(MILLPOND, {}).get(want.figure)
    if ours is None or not want.of:
        return ours
    theirs = [value for one in want.of if (value := figures.get(one, {}).get(want.figure))]
    if not theirs:
        return None
    return ours / (max(theirs) if want.how == ">=" else min(theirs))


def _over(want: Want) -> str:
    if not want.of:
        return ""
    names = [COMPETITORS[one].title for one in want.of]
    return f" / {names[0] if len(names) == 1 else 'best acknowledging peer'}"

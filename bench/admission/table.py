"""What runs came to, for people: a markdown table, of each row and figure the worst run."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from bench.admission.figures import Row, Want, median
from bench.admission.rows import ROWS

_BY_NAME = {row.name: row for row in ROWS}


def markdown(lines: Iterable[str]) -> str:
    """Of figures that something is wanted of, the median and the worst; of others the median."""
    runs: dict[str, list[dict[str, float | None]]] = defaultdict(list)
    broken: dict[str, int] = defaultdict(int)
    for line in filter(None, map(str.strip, lines)):
        told = json.loads(line)
        if "figures" in told:
            runs[told["row"]].append(told["figures"])
        else:
            broken[told["row"]] += 1
    out = ["| row | runs | wanted: median (worst) | besides |", "|---|---|---|---|"]
    for row in ROWS:
        if row.name not in runs and row.name not in broken:
            continue
        wanted, besides = _cells(row, runs[row.name])
        count = str(len(runs[row.name])) + (
            f", {broken[row.name]} broke" if broken[row.name] else ""
        )
        out.append(f"| {row.name}: {row.what} | {count} | {wanted} | {besides} |")
    return "\n".join(out)


def _cells(row: Row, runs: Sequence[dict[str, float | None]]) -> tuple[str, str]:
    wanted = [
        _judged(name, want, [run.get(name) for run in runs]) for name, want in row.wants.items()
    ]
    names = dict.fromkeys(name for run in runs for name in run if name not in row.wants)
    besides = []
    for name in names:
        values = [value for run in runs if (value := run.get(name)) is not None]
        if values:
            besides.append(f"{name} {median(values):,g}")
    return "<br>".join(wanted), ", ".join(besides)


def _judged(name: str, want: Want, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return f"{name}: **nothing to say** (wanted {want})"
    worst = want.worst(known)
    good = len(known) == len(values) and want.holds(worst)
    told = f"{median(known):,g} ({worst:,g})" if len(known) > 1 else f"{worst:,g}"
    return f"{name} {told} {'' if good else '**misses** '}[{want}]"


def missed(line: str) -> list[str]:
    """What one run has missed; nothing if it was good."""
    told = json.loads(line)
    if "figures" not in told:
        return [str(told["error"])[:300]]
    figures = told["figures"]
    wants = _BY_NAME[told["row"]].wants
    return [
        f"{name} {figures.get(name)} (wanted {want})"
        for name, want in wants.items()
        if not want.holds(figures.get(name))
    ]


def contents(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        wants = ", ".join(f"{name} {want}" for name, want in row.wants.items())
        how = " (once)" * row.real + " (alone)" * row.alone
        lines.append(f"{row.name:<16} {row.seconds:>4} s{how}  {row.what}: {wants or 'told only'}")
    return "\n".join(lines)

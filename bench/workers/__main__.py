"""Workers beside each other: CPU of a call, calls a second, latency of an idle system, accept.

Each run has a provider, a server and a worker process of its own, and its jobs are in line before
the worker starts. A round runs each competitor once; a JSON line a run comes on stdout.

    python -m bench.workers                                    all rows, three rounds
    python -m bench.workers --row steady --only millpond --only bare --rounds 1 --table
    python -m bench.workers --runs FILE --table                a table of lines printed before
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

from bench.admission.figures import Figures
from bench.workers import bulk, calls, idle, others, table
from bench.workers.field import ACCEPT, COMPETITORS, IDLE, OURS, ROWS, Row
from bench.workers.stubbed import Failed
from bench.workers.table import Run

from millpond.errors import MillpondError

#: A run that takes longer is ended and has failed.
LONGEST_S = 180


def main() -> None:
    asked = options()
    if asked.runs:
        lines = asked.runs.read_text().splitlines()
        runs = [Run(**json.loads(line)) for line in lines if line.startswith("{")]
    else:
        runs = measure_all(asked)
    if asked.table:
        print(table.markdown(runs), flush=True)
    if failed := sum(bool(run.error) for run in runs):
        raise SystemExit(f"{failed} of {len(runs)} runs failed")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--only", action="append", choices=list(COMPETITORS), help="repeatable")
    parser.add_argument("--row", action="append", choices=list(ROWS), help="repeatable")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each [default: 3]")
    parser.add_argument("--share", type=float, default=1, help="of the calls, for a quick look")
    parser.add_argument("--table", action="store_true", help="a Markdown table at the end")
    parser.add_argument("--runs", type=Path, help="measure nothing, read lines printed before")
    return parser.parse_args()


def measure_all(asked: argparse.Namespace) -> list[Run]:
    """Row by row, in each round all competitors one after the other."""
    plan = [
        (name, who, round_)
        for name in asked.row or ROWS
        for round_ in range(1, asked.rounds + 1)
        for who in ROWS[name].who
        if not asked.only or who in asked.only
    ]
    others.make_environments(sorted({who for _, who, _ in plan}))
    runs = []
    for number, (name, who, round_) in enumerate(plan, start=1):
        print(f"{number}/{len(plan)} {name} {who} round {round_}", file=sys.stderr, flush=True)
        run = measure(name, who, round_, share=asked.share)
        runs.append(run)
        print(json.dumps(asdict(run)), flush=True)
    return runs


def measure(name: str, who: str, round_: int, *, share: float) -> Run:
    loop = COMPETITORS[who].loop
    if who in OURS and not find_spec("uvloop"):
        loop = "asyncio"
    row = replace(ROWS[name], calls=round(ROWS[name].calls * share))
    run = Run(name, who, round_, loop, row.calls, round(os.getloadavg()[0], 2))
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as place:
        try:
            return replace(run, figures=asyncio.run(figures(Path(place), name, row, who, round_)))
        except (Failed, TimeoutError, MillpondError) as fault:
            said = str(fault) or f"it took longer than {LONGEST_S} s"
            print(f"it failed: {said}", file=sys.stderr, flush=True)
            return replace(run, error=said)


async def figures(folder: Path, name: str, row: Row, who: str, round_: int) -> Figures:
    async with asyncio.timeout(LONGEST_S):
        if name == IDLE:
            return await idle.measured(folder, row, seed=round_)
        if name == ACCEPT:
            return await bulk.measured(folder, row, who)
        return await calls.measured(folder, row, who, seed=round_)


if __name__ == "__main__":
    main()

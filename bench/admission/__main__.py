"""How well admission keeps a provider's limits and uses them.

    python -m bench.admission                        every row; a JSON line a run on stdout
    python -m bench.admission --only chat --seeds 10
    python -m bench.admission --list                 the rows, and what is wanted
    python -m bench.admission --table RUNS.jsonl     what came of it, as markdown

Refusals and shares are read in the simulator's own journal; ratios are to what the ideal policy
reaches with the delays of the same calls (docs/simulator.md). Up to three runs go side by side,
each with its own server and simulator; rows about what the machine can do go alone.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.admission import ROOT, table
from bench.admission.figures import Place, Row, write
from bench.admission.rows import ROWS

SIDE_BY_SIDE = 3
SEEDS = 3


def main() -> int:
    asked = _arguments()
    if asked.table is not None:
        print(table.markdown(asked.table.read_text().splitlines()))
        return 0
    rows = [row for row in ROWS if not asked.only or row.name in asked.only]
    if asked.list:
        print(table.contents(rows))
        return 0
    if asked.child is not None:
        print(write(measure(rows[0], asked.child, keep=asked.keep)), flush=True)
        return 0
    return asyncio.run(run_all(rows, asked.seeds, asked.side_by_side))


def _arguments() -> argparse.Namespace:
    assert __doc__ is not None
    first, rest = __doc__.split("\n", 1)
    parser = argparse.ArgumentParser(
        "bench.admission",
        description=first,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [row.name for row in ROWS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="ROW", help="these rows")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of a row (real ones: 1)")
    parser.add_argument("--side-by-side", type=int, default=SIDE_BY_SIDE, metavar="N")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--table", type=Path, metavar="FILE", help="a table of such lines")
    parser.add_argument("--keep", action="store_true", help="leave the folders of runs")
    parser.add_argument("--child", type=int, metavar="SEED", help=argparse.SUPPRESS)
    return parser.parse_args()


# ---------------------------------------------------------------- all of it


async def run_all(rows: Sequence[Row], seeds: int, side_by_side: int) -> int:
    """The light runs, the longest first; then those that must be alone. 1: something was missed."""
    light = [(row, seed) for row in rows if not row.alone for seed in _seeds(row, seeds)]
    heavy = [(row, seed) for row in rows if row.alone for seed in _seeds(row, seeds)]
    light.sort(key=lambda one: -one[0].seconds)
    good = await _run_some(light, side_by_side)
    return 0 if await _run_some(heavy, 1) and good else 1


def _seeds(row: Row, seeds: int) -> range:
    return range(1, 2 if row.real else seeds + 1)


async def _run_some(runs: Sequence[tuple[Row, int]], side_by_side: int) -> bool:
    places = asyncio.Semaphore(side_by_side)

    async def one(row: Row, seed: int) -> bool:
        async with places:
            return await _run_one(row, seed)

    return all(await asyncio.gather(*(one(row, seed) for row, seed in runs)))


async def _run_one(row: Row, seed: int) -> bool:
    """In a process of its own, so that nothing is shared; if it breaks, its line says so."""
    name = f"{row.name} {seed}"
    _say(f"{name} ...  about {row.seconds} s")
    command = [sys.executable, "-m", "bench.admission", "--only", row.name, "--child", str(seed)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    line = out.decode().strip() or write({"row": row.name, "seed": seed, "error": "it broke"})
    print(line, flush=True)
    missed = table.missed(line)
    _say(f"{name}    {', '.join(missed) or 'good'}")
    return not missed


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- one run


def measure(row: Row, seed: int, *, keep: bool) -> dict[str, object]:
    folder = Path(tempfile.mkdtemp(prefix=f"admission-{row.name}-{seed}-"))
    began_s, load = time.monotonic(), os.getloadavg()[0]
    try:
        told: dict[str, object] = {"figures": row.run(Place(folder, seed))}
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}"}
        keep = True
    if keep:
        told["folder"] = str(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = round(time.monotonic() - began_s, 1)
    return {
        "row": row.name,
        "seed": seed,
        **told,
        "seconds": seconds,
        "load_before": round(load, 2),
    }


if __name__ == "__main__":
    sys.exit(main())

"""A first look: twenty prompts through our own simulator, in a folder that is gone afterwards."""

import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import orjson

from millpond.run.command import execute
from millpond.run.options import Options
from millpond.settings import Settings


async def demonstrate(options_for: Callable[[Path], Options], settings: Settings) -> int:
    """Run the shipped prompts and print each with its answer; the run's exit code."""
    with tempfile.TemporaryDirectory(prefix="millpond-demo-") as name:
        prompts = Path(name) / "prompts.txt"
        prompts.write_bytes((resources.files("millpond.run") / "demo.txt").read_bytes())
        options = options_for(prompts)
        code = await execute(options, settings)
        if code == 0:
            _print_answers(prompts, options)
            _print_next(options)
    return code


def _print_answers(prompts: Path, options: Options) -> None:
    asked = prompts.read_text().splitlines()
    rows = sorted(map(orjson.loads, options.out.read_bytes().splitlines()), key=lambda r: r["line"])
    said = "[simulated]" if options.simulated else f"[{options.provider}]"
    for row in rows:
        print(f"{row['line']:>2}. {asked[row['line'] - 1]}\n    {said} {row['text']}")


def _print_next(options: Options) -> None:
    program = Path(sys.argv[0])
    command = "millpond" if shutil.which("millpond") == str(program) else str(program)
    if program.name == "__main__.py":
        command = f"{sys.executable} -m millpond"
    whose = (
        "All of these answers are simulated: no provider was asked."
        if options.simulated
        else "A small model on this machine wrote these; it is a toy."
    )
    print(
        f"\n{whose} From now on:\n\n"
        f"    {command} run FILE                      your prompts, a line each, simulated\n"
        f"    {command} run FILE --provider cohere    the same, for real (key in CO_API_KEY)\n"
        f"    {command} run --help                    everything else\n",
        flush=True,
    )

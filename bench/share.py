"""How much of what a provider permits is used, against the best that is possible.

Starts the simulator as its own process, runs `millpond run` against it, and prints what the
simulator's own books say: refusals, the share of the window in use (sustained) and the time until
the last call was admitted (drain), each beside that of the ideal policy under the same delays.

    python bench/share.py                       all scenarios, with prompts made here
    python bench/share.py generate --file FILE --template '{question}'
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MILLPOND = [sys.executable, "-m", "millpond"]
WORDS = ["river", "wheel", "stone", "gate", "water", "mill", "flour", "grain", "bread", "spring"]


@dataclass(frozen=True)
class Scenario:
    """One run: limits that simulator and run share, the weather, and how many workers."""

    endpoint: str
    lines: int
    limits: str
    weather: tuple[str, ...]
    workers: int = 4
    concurrency: int = 200


SCENARIOS = {
    "generate": Scenario(
        "generate", 1319, "60/6s", ("--delay-in", "uniform:0,0.6", "--service", "0.3")
    ),
    "embed": Scenario("embed", 3080, "500/10s", ("--service", "0.3"), concurrency=500),
    "real": Scenario(
        "generate",
        300,
        "60/60s",
        (
            *("--service", "2", "--delay-in", "lognormal:0.03,1"),
            *("--delay-out", "lognormal:0.03,1"),
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="default: all")
    parser.add_argument("--file", type=Path, help="prompts to use instead of made ones")
    parser.add_argument("--template", default=None)
    asked = parser.parse_args()
    for name in asked.scenario or SCENARIOS:
        print(f"{name}: {SCENARIOS[name].limits}", file=sys.stderr, flush=True)
        report = measure(SCENARIOS[name], asked.file, asked.template)
        print(json.dumps({"scenario": name, **report}), flush=True)


def measure(scenario: Scenario, file: Path | None, template: str | None) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as name:
        folder = Path(name)
        prompts = file or made(folder / "prompts.jsonl", scenario)
        limits = f"{scenario.endpoint}={scenario.limits}"
        journal = folder / "journal.jsonl"
        simulator = subprocess.Popen(
            [
                *(*MILLPOND, "simulator", "--port", "0", "--ready-file", str(folder / "ready")),
                *("--journal", str(journal), "--limits", limits, "--quota", "none"),
                *scenario.weather,
            ]
        )
        try:
            command = [
                *(*MILLPOND, "run", str(prompts), "--endpoint", scenario.endpoint),
                *("--base-url", base_url(folder / "ready"), "--limits", limits, "--quota", "none"),
                *("--workers", str(scenario.workers), "--data-dir", str(folder / "data")),
                *("--concurrency", str(scenario.concurrency), "--out", str(folder / "out.jsonl")),
                *("--errors", str(folder / "errors.jsonl"), "--json"),
                *(("--template", template) if template else ()),
            ]
            ran = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        finally:
            simulator.terminate()
            simulator.wait()
        summary = json.loads(ran.stdout.splitlines()[-1])
        told = subprocess.run(
            [
                *(*MILLPOND, "simulator", "report", str(journal), "--json"),
                *("--total", str(summary["lines"])),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
    report: dict[str, object] = json.loads(told.stdout)
    ratios = {
        "sustained_of_ideal": share(report["sustained"], report["sustained_ideal"]),
        "drain_of_ideal": share(report["drain"], report["drain_ideal"]),
    }
    return {**report, **ratios, "lines": summary["lines"], "succeeded": summary["succeeded"]}


def made(path: Path, scenario: Scenario) -> Path:
    chance = random.Random(1)
    field = "prompt" if scenario.endpoint == "generate" else "text"
    with path.open("w") as out:
        for number in range(scenario.lines):
            words = " ".join(chance.choices(WORDS, k=chance.randint(5, 40)))
            out.write(json.dumps({field: f"{number}: {words}"}) + "\n")
    return path


def base_url(ready: Path) -> str:
    for _ in range(600):
        if ready.exists():
            return ready.read_text().strip()
        time.sleep(0.05)
    raise SystemExit("the simulator did not start")


def share(reached: object, ideal: object) -> float | None:
    if isinstance(reached, float) and isinstance(ideal, float) and ideal:
        return round(reached / ideal, 4)
    return None


if __name__ == "__main__":
    main()

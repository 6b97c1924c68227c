"""Runs of a file: `millpond run` with four workers, against a simulator of its own."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.admission.figures import Figures, Place, judged

from rig import Command, Simulator, running, simulator

WORKERS = 4
#: How long a call is worked on, unless a row says otherwise.
SERVICE = "lognormal:0.2,0.5"
#: The key of a run that is given none, and so the account in the journal.
KEY = "demo"
_WORDS = ["river", "wheel", "stone", "gate", "water", "mill", "flour", "grain", "bread", "spring"]
_FIELDS = {"generate": "prompt", "embed": "text"}

#: What happens to a run while it is at work.
Event = Callable[["UnderWay"], None]


@dataclass(frozen=True)
class FileRun:
    """`lines` prompts under limits that simulator and run share. `weather` is the simulator's,
    `options` the run's; `by` is the limit that it is measured by, if not the tightest of calls."""

    lines: int
    limits: str
    weather: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    service: str = SERVICE
    endpoint: str = "generate"
    openai: bool = False
    words: tuple[int, int] = (5, 40)
    by: str | None = None
    seconds: float = 180

    def __call__(self, place: Place) -> Figures:
        with self.under_way(place) as run:
            run.wait()
            return judged(run.provider, total=self.lines, by=self.by)

    @contextmanager
    def under_way(
        self, place: Place, *, env: Mapping[str, str] | None = None
    ) -> Iterator["UnderWay"]:
        """The run has been started; whatever of it is still there is ended with the block."""
        weather = ("--quota", "none", "--seed", str(place.seed), "--service", self.service)
        shared = ("--limits", f"{self.endpoint}={self.limits}")
        made(place.folder / "prompts.jsonl", self.lines, self.words, self.endpoint, place.chance)
        with simulator(place.folder / "provider", *shared, *weather, *self.weather) as provider:
            command = (
                *("run", "prompts.jsonl", "--endpoint", self.endpoint, *shared, "--quota", "none"),
                *("--base-url", provider.url + ("/v1" if self.openai else "")),
                *(("--provider", "openai", "--model", "m") if self.openai else ()),
                *("--workers", str(WORKERS), "--json", "--quiet", *self.options),
            )
            env = {"OPENAI_API_KEY": "bench", **(env or {})}
            with running(place.folder, *command, env=env) as started:
                yield UnderWay(self, place, provider, started)


@dataclass(frozen=True)
class UnderWay:
    """A run that is at work."""

    run: FileRun
    place: Place
    provider: Simulator
    command: Command

    def wait(self) -> None:
        """Until every line has its answer; anything else is no run to measure."""
        ended = self.command.wait(self.run.seconds)
        if ended.code != 0 or ended.summary["succeeded"] != self.run.lines:
            raise RuntimeError(f"the run ended with {ended.code}: {ended.err[-2_000:]}")


def made(path: Path, lines: int, words: tuple[int, int], endpoint: str, chance: Random) -> None:
    """Prompts made of so many words, no two the same."""
    with path.open("w") as out:
        for number in range(lines):
            text = " ".join(chance.choices(_WORDS, k=chance.randint(*words)))
            out.write(json.dumps({_FIELDS[endpoint]: f"{number}: {text}"}) + "\n")

"""Each process of a run dies at each of its fail points, and the same command comes to the end.

The points are those that the sources name, `reached("...")`. A scenario is a run in which one
process dies at one of them, the n-th time it comes by; what is looked at is only the outcome.

    CRASH_FULL=1 pytest tests/crash/test_crash_matrix.py      more n, some minutes
"""

import multiprocessing
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import millpond
from rig import Command, Ended, Rows, Simulator, prompts, read_rows, running, wait_until

FULL = bool(os.environ.get("CRASH_FULL"))
#: Scenarios at a time: they mostly wait, for their windows and for each other's processes.
AT_ONCE = 4

FILE = "q.jsonl"
LINES = 24
CONCURRENCY = 6
LIMITS = "generate=12/0.5s"
#: So that a run is not over before its server has died a few times.
SLOW_LIMITS = "generate=4/0.5s"

_POINT = re.compile(r'^ +reached\("(.+)"\)$', re.MULTILINE)

#: Points that a process comes by only once.
ONCE = {
    *("household.flow.opened", "run.portion.read", "run.invalid.kept"),
    *("run.accept.before", "run.accept.after"),
    *("run.end.before", "run.end.written", "run.end.told"),
    *("pump.leave.before", "pump.leave.after"),
}
#: Points that a process comes by again only if the server dies, or nobody answers at the address.
SELDOM = {
    *("gateway.life.begun", "pump.tell.before", "pump.tell.after"),
    *("pump.give_back.before", "pump.give_back.after"),
}
#: Which process dies: the command itself, one of its children, or (None) whoever is first there.
IS_COMMAND: dict[str, bool | None] = {
    **dict.fromkeys(("run", "collector", "rows", "household"), True),
    **dict.fromkeys(("pump", "http", "scheduler"), False),
    "gateway": None,
}


@dataclass(frozen=True)
class Case:
    """A death at a point, at the n-th time that the process is there."""

    point: str
    number: int

    def __str__(self) -> str:
        return f"{self.point}:{self.number}"

    @property
    def bad_lines(self) -> int:
        return int(self.point == "run.invalid.kept")

    @property
    def command_dies(self) -> bool | None:
        return IS_COMMAND[self.point.partition(".")[0]]

    @property
    def until_it_dies(self) -> str | None:
        """What must be so for the process to come by."""
        if self.point.startswith("pump.give_back"):
            return "nobody is at the address"
        if self.point.startswith("scheduler."):  # workers release too, and it may be late
            return "no call is answered"
        if self.number > 1 and self.point.startswith(("gateway.", "pump.tell")):
            return "the server dies"
        return None

    @property
    def limits(self) -> str:
        return SLOW_LIMITS if self.until_it_dies == "the server dies" else LIMITS


def points() -> list[str]:
    """All fail points there are."""
    (package,) = millpond.__path__
    doors = ("", "producer", "scheduler", "worker")  # links, which rglob does not follow
    texts = [path.read_text() for door in doors for path in Path(package, door).rglob("*.py")]
    found = Counter(name for text in texts for name in _POINT.findall(text))
    assert set(found.values()) == {1}, found
    return sorted(found)


def numbers(point: str) -> tuple[int, ...]:
    if point in ONCE:
        return (1,)
    if point in SELDOM:
        return (1, 2, 3) if FULL else (1, 2)
    if FULL:
        return tuple(range(1, 11))
    if point.startswith("scheduler."):  # it keeps nothing in mind from one round to the next
        return (1,)
    if point.startswith("http."):  # so that others are in flight
        return (3,)
    return (1, 3)


CASES = [Case(point, number) for point in points() for number in numbers(point)]


@dataclass(frozen=True)
class Story:
    """What became of a scenario: how the command ended each time, and the books of both sides."""

    died: bool
    ended_with: list[int]
    ended: Ended
    calls: dict[str, dict[str, Any]]
    answers: Rows
    errors: Rows
    ledger: Rows

    def attempts(self, outcome: str) -> dict[str, int]:
        """The attempts of an outcome, with their characters."""
        return {
            row["attempt"]: row["characters"] for row in self.ledger if row["outcome"] == outcome
        }


def tell(folder: Path, case: Case) -> Story:
    """A scenario from start to end."""
    scene = Scene(folder, case)
    try:
        *others, ended = scene.run()
        calls = scene.journal()
    finally:
        scene.end()
    return Story(
        died=scene.mark.exists(),
        ended_with=[one.code for one in (*others, ended)],
        ended=ended,
        calls=calls,
        answers=read_rows(scene.answers),
        errors=read_rows(folder / "q.jsonl.errors.jsonl"),
        ledger=read_rows(folder / "ledger.jsonl"),
    )


class Scene:
    """A provider, and a command of which one process will die."""

    def __init__(self, folder: Path, case: Case) -> None:
        folder.mkdir()
        prompts(folder / FILE, LINES)
        if case.bad_lines:
            with (folder / FILE).open("a") as file:
                file.write('{"question": "where is the prompt?"}\n')
        self.mark = folder / "mark"
        self.answers = folder / "q.jsonl.answers.jsonl"
        self._folder = folder
        self._case = case
        self._provider = self._begin_provider("0")

    def run(self) -> list[Ended]:
        """The command, and once more if it is the one that dies."""
        arguments = (
            *("run", FILE, "--base-url", self._provider.url, "--limits", self._case.limits),
            *("--quota", "none", "--concurrency", str(CONCURRENCY)),
            *("--json", "--ledger", "ledger.jsonl"),
        )
        env = {"MILLPOND_FAIL_AT": str(self._case), "MILLPOND_FAIL_MARK": str(self.mark)}
        ended: list[Ended] = []
        while not ended or (ended[-1].code == -signal.SIGKILL and len(ended) < 2):
            with running(self._folder, *arguments, env=env) as command:
                self._help_to_the_point(command)
                ended.append(command.wait())
        return ended

    def journal(self) -> dict[str, dict[str, Any]]:
        """The journal by attempt, once the calls whose client was killed are in it too."""
        counts = [-1]

        def no_more() -> bool:
            counts.append(len(self._provider.calls()))
            return counts[-1] == counts[-2]

        wait_until(no_more, what="the end of the journal", every_s=0.3)
        calls = {call["attempt"]: call for call in self._provider.calls()}
        assert len(calls) == len(self._provider.calls())
        return calls

    def end(self) -> None:
        self._provider.end()

    def _begin_provider(self, port: str) -> Simulator:
        return Simulator(
            self._folder / "provider",
            *("--port", port, "--limits", self._case.limits, "--service", "0.1"),
            *("--delay-in", "uniform:0,0.02", "--delay-out", "uniform:0,0.02"),
        )

    def _help_to_the_point(self, command: Command) -> None:
        """What must happen for the point to be reached, where it is not reached in every run."""

        def over() -> bool:
            return self.mark.exists() or command.process.poll() is not None

        match self._case.until_it_dies:
            case "nobody is at the address":
                self._provider.end()
                wait_until(over, what=f"the death at {self._case}")
                self._provider = self._begin_provider(str(self._provider.port))
            case "no call is answered":
                with self._provider.standing_still():
                    wait_until(over, what=f"the death at {self._case}")
            case "the server dies":
                while not over():
                    wait_until(partial(self._got_on, self._size(), over), what="an answer")
                    for server in command.children("server"):
                        with suppress(ProcessLookupError):
                            os.kill(server, signal.SIGKILL)

    def _size(self) -> int:
        return self.answers.stat().st_size if self.answers.exists() else 0

    def _got_on(self, size: int, over: Callable[[], bool]) -> bool:
        return self._size() > size or over()


@pytest.fixture(scope="module")
def stories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[Case, Future[Story]]]:
    """The scenarios of the cases that were selected, a few at a time."""
    folder = tmp_path_factory.mktemp("matrix")
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    cases: list[Any] = [
        item.callspec.params["case"] for item in items if item.module is request.module
    ]
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("fork")) as pool:
        yield {case: pool.submit(tell, folder / str(case), case) for case in cases}
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_wherever_a_process_dies_every_line_is_answered_once_and_the_books_agree(
    stories: Mapping[Case, Future[Story]], case: Case
) -> None:
    story = stories[case].result()
    known, unknown, unsent = map(story.attempts, ("known", "unknown", "unsent"))

    # It did die there, and who should.
    assert story.died, f"{case} was never reached"
    if case.command_dies is not None:
        assert len(story.ended_with) == 1 + case.command_dies

    # Every line is answered, once.
    assert story.ended.code == (3 if case.bad_lines else 0), story.ended.err
    assert sorted(row["line"] for row in story.answers) == list(range(1, LINES + 1))
    assert [row["status"] for row in story.errors] == ["invalid"] * case.bad_lines

    # The provider refused nothing, and its books are ours.
    assert [call for call in story.calls.values() if call["refused_by"] is not None] == []
    assert known == {attempt: story.calls[attempt]["characters"] for attempt in known}
    assert set(story.calls) - set(known) <= set(unknown)
    assert not set(unsent) & set(story.calls)

    # What was asked twice is what was in flight at the death.
    asked = [line for row in story.ledger if row["outcome"] == "known" for line in row["lines"]]
    assert sorted(asked) == list(range(1, LINES + 1))
    assert len(unknown) <= (0 if case.point.startswith("scheduler.") else CONCURRENCY)

    # The summary is the sum of the books, and nothing stays reserved.
    summary = story.ended.summary
    assert len(known) + len(unknown) + len(unsent) == len(story.ledger)
    assert summary["reserved_characters"] == 0
    assert summary["used_characters"] == sum(known.values())
    assert summary["estimated_characters"] == sum(unknown.values())
    assert (summary["calls"], summary["refusals"]) == (len(known) + len(unknown), 0)

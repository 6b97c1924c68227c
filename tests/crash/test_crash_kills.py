"""Busy workers are killed one after the other, then everything at once; the same command goes on.

Small enough for every day; the full size is the same test with other numbers:

    CRASH_PROMPTS=300 CRASH_LIMIT=60/6s CRASH_SERVICE=2 CRASH_WORKERS=4 CRASH_KILLS=20 \\
        CRASH_CUT=15 CRASH_SEED=7 pytest -s tests/crash/test_crash_kills.py
"""

import json
import os
import random
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rig import Command, Simulator, connections, prompts, read_rows, running, simulator, wait_until

PROMPTS = int(os.environ.get("CRASH_PROMPTS", "50"))
LIMIT = os.environ.get("CRASH_LIMIT", "20/2s")
SERVICE_S = float(os.environ.get("CRASH_SERVICE", "1"))
WORKERS = int(os.environ.get("CRASH_WORKERS", "2"))
KILLS = int(os.environ.get("CRASH_KILLS", "3"))
EVERY_S = float(os.environ.get("CRASH_EVERY_S", "1"))
CUT_LEAST = int(os.environ.get("CRASH_CUT", "3"))
SEED = int(os.environ.get("CRASH_SEED", "1"))
TIMEOUT_S = 10

FILE = "q.jsonl"


class Killing:
    """The whole story; afterwards the books of both sides."""

    def __init__(self, folder: Path) -> None:
        self.killed_ms: list[float] = []
        self._random = random.Random(SEED)
        self._folder = folder
        prompts(folder / FILE, PROMPTS)
        limits = ("--limits", f"generate={LIMIT}")
        with simulator(folder / "provider", *limits, "--service", str(SERVICE_S)) as provider:
            command = (
                *("run", FILE, "--base-url", provider.url, *limits, "--quota", "none"),
                *("--workers", str(WORKERS), "--timeout", str(TIMEOUT_S)),
                *("--json", "--ledger", "ledger.jsonl"),
            )
            with running(folder, *command) as first:
                self._kill_workers(first, provider)
                self._kill_everything(first)
            with running(folder, *command) as second:
                self.ended = second.wait(600)
            self.calls = self._calls(provider)
            self.report = provider.report("--total", str(PROMPTS))
        self.answers = read_rows(folder / "q.jsonl.answers.jsonl")
        self.errors = read_rows(folder / "q.jsonl.errors.jsonl")
        self.ledger = read_rows(folder / "ledger.jsonl")
        self.known = self._attempts("known")
        self.unknown = self._attempts("unknown")
        self.unsent = self._attempts("unsent")

    def _kill_workers(self, command: Command, provider: Simulator) -> None:
        """One busy worker each EVERY_S, and at the last kill not the whole file is answered."""
        next_s = time.monotonic()
        for _ in range(KILLS):
            wait_until(partial(self._kill_one, command, provider), what="a busy worker")
            next_s += EVERY_S
            wait_until(partial(is_past, next_s))

    def _kill_one(self, command: Command, provider: Simulator) -> bool:
        """Kill a worker with a connection to the provider, if there is one."""
        workers = command.children("worker")
        busy = [pid for pid in workers if connections(pid, provider.port)]
        if busy:
            self._kill(self._random.choice(busy))
        return bool(busy)

    def _kill_everything(self, command: Command) -> None:
        """The run first: it would start the others again."""
        children = command.children()
        assert command.process.poll() is None, command.err()
        for pid in (command.process.pid, *children):
            self._kill(pid)
        command.process.wait()

    def _kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.killed_ms.append(time.time() * 1_000)

    def _calls(self, provider: Simulator) -> dict[str, dict[str, Any]]:
        """The journal by attempt, once the calls whose client was killed are in it too."""
        count = -1

        def no_more() -> bool:
            nonlocal count
            before, count = count, len(provider.calls())
            return before == count

        wait_until(no_more, what="the end of the journal", every_s=SERVICE_S + 0.5)
        calls = {call["attempt"]: call for call in provider.calls()}
        assert len(calls) == len(provider.calls())
        return calls

    def _attempts(self, outcome: str) -> set[str]:
        return {row["attempt"] for row in self.ledger if row["outcome"] == outcome}

    def in_flight_at_a_kill(self, call: dict[str, Any]) -> bool:
        """Between its claim and its settling; neither is in the journal, so a little around it."""
        begin_ms = call["received_ms"] - 1_000
        end_ms = call["headers_ms"] or call["received_ms"] + SERVICE_S * 1_000
        return any(begin_ms <= at_ms <= end_ms + 1_000 for at_ms in self.killed_ms)

    def told(self) -> str:
        return json.dumps(
            {
                "kills": len(self.killed_ms),
                "calls": len(self.calls),
                "cut": sum(not call["answered"] for call in self.calls.values()),
                "known": len(self.known),
                "unknown": len(self.unknown),
                "unsent": len(self.unsent),
                "report": self.report,
                "summary": self.ended.summary,
            }
        )


def is_past(moment_s: float) -> bool:
    return time.monotonic() >= moment_s


@pytest.fixture(scope="module")
def killing(tmp_path_factory: pytest.TempPathFactory) -> Killing:
    story = Killing(tmp_path_factory.mktemp("killing"))
    print(story.told())
    return story


@pytest.mark.slow
def test_every_line_is_answered_once(killing: Killing) -> None:
    assert killing.ended.code == 0, killing.ended.err
    assert sorted(row["line"] for row in killing.answers) == list(range(1, PROMPTS + 1))
    assert killing.errors == []


@pytest.mark.slow
def test_the_kills_really_cut_calls(killing: Killing) -> None:
    cut = [call for call in killing.calls.values() if not call["answered"]]
    assert len(cut) >= CUT_LEAST


@pytest.mark.slow
def test_the_provider_refused_nothing(killing: Killing) -> None:
    assert killing.report["refused"] == {}
    assert killing.ended.summary["refusals"] == 0


@pytest.mark.slow
def test_every_call_is_in_the_books_once_and_known_ones_have_the_providers_characters(
    killing: Killing,
) -> None:
    characters = {row["attempt"]: row["characters"] for row in killing.ledger}

    assert len(characters) == len(killing.ledger)
    assert killing.known <= set(killing.calls)
    assert {attempt: characters[attempt] for attempt in killing.known} == {
        attempt: killing.calls[attempt]["characters"] for attempt in killing.known
    }
    assert not killing.unsent & set(killing.calls)


@pytest.mark.slow
def test_what_is_unknown_was_in_flight_at_a_kill_and_holds_every_call_not_settled(
    killing: Killing,
) -> None:
    assert set(killing.calls) - killing.known <= killing.unknown
    late = [
        killing.calls[attempt]
        for attempt in killing.unknown & set(killing.calls)
        if not killing.in_flight_at_a_kill(killing.calls[attempt])
    ]
    assert late == []


@pytest.mark.slow
def test_the_summary_is_the_sum_of_the_books_and_nothing_stays_reserved(killing: Killing) -> None:
    summary = killing.ended.summary

    def sum_of(outcome: str) -> int:
        return sum(row["characters"] for row in killing.ledger if row["outcome"] == outcome)

    assert summary["reserved_characters"] == 0
    assert summary["used_characters"] == sum_of("known")
    assert summary["estimated_characters"] == sum_of("unknown")
    assert summary["calls"] == len(killing.known | killing.unknown)
    assert (summary["lines"], summary["succeeded"]) == (PROMPTS, PROMPTS)

"""Each process of a run dies once, and the run comes to its end all the same."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rig import (
    Command,
    Simulator,
    connections,
    processes,
    prompts,
    read_rows,
    run,
    running,
    simulator,
    wait_until,
)

FILE = "q.jsonl"
LINES = 24

#: Put on PYTHONPATH it makes every worker end before it begins.
STILLBORN_WORKERS = """
import sys
if sys.orig_argv[-1] == "worker":
    sys.exit(3)
"""

#: The same, but each ends at its first call, which is then of unknown outcome.
SHORT_LIVED_WORKERS = """
import os, sys
if sys.orig_argv[-1] == "worker":
    from millpond.worker.pump import Pump
    Pump._start = lambda *_: os._exit(3)
"""


class Scene:
    """A run of LINES prompts, six calls at a time, that has begun to answer."""

    def __init__(self, folder: Path, provider: Simulator) -> None:
        self.folder = folder
        self.provider = provider
        self.arguments = (
            *("run", FILE, "--base-url", provider.url, "--limits", "generate=10000/1s"),
            *("--concurrency", "6", "--json", "--ledger", "ledger.jsonl"),
        )

    @contextmanager
    def begun(self, *options: str) -> Iterator[Command]:
        with running(self.folder, *self.arguments, *options) as command:
            wait_until(lambda: len(self.answered()) >= 6, what="the first answers")
            yield command

    def answered(self) -> list[int]:
        path = self.folder / "q.jsonl.answers.jsonl"
        whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
        return sorted(int(row.split(b",")[0][8:]) for row in whole.splitlines())

    def outcomes(self) -> list[str]:
        return sorted({row["outcome"] for row in read_rows(self.folder / "ledger.jsonl")})

    def check_answers(self) -> None:
        assert self.answered() == list(range(1, LINES + 1))
        assert read_rows(self.folder / "q.jsonl.errors.jsonl") == []
        known = {
            row["attempt"]: row["characters"]
            for row in read_rows(self.folder / "ledger.jsonl")
            if row["outcome"] == "known"
        }
        calls = {row["attempt"]: row["characters"] for row in self.provider.calls()}
        assert known == {attempt: calls.get(attempt) for attempt in known}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    prompts(tmp_path / FILE, LINES)
    with simulator(tmp_path / "provider", "--limits", "none", "--service", "0.4") as provider:
        yield Scene(tmp_path, provider)


def kill_and_wait_for_another(command: Command, role: str) -> None:
    (old,) = command.children(role)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: command.children(role) not in ([], [old]), what=f"another {role}")


def test_a_killed_scheduler_is_started_again_and_nothing_is_asked_twice(scene: Scene) -> None:
    with scene.begun() as command:
        kill_and_wait_for_another(command, "scheduler")
        ended = command.wait()

    assert ended.code == 0
    scene.check_answers()
    assert scene.outcomes() == ["known"]
    assert len(scene.provider.calls()) == ended.summary["calls"] == LINES


def test_a_killed_server_is_started_again_and_nothing_is_asked_twice(scene: Scene) -> None:
    with scene.begun() as command:
        kill_and_wait_for_another(command, "server")
        ended = command.wait()

    assert ended.code == 0
    scene.check_answers()
    assert scene.outcomes() == ["known"]
    assert len(scene.provider.calls()) == ended.summary["calls"] == LINES
    assert ended.summary["reserved_characters"] == 0


@pytest.mark.parametrize("lost", ["last moments", "everything"])
def test_a_server_that_comes_back_without_what_it_promised_loses_no_line(
    scene: Scene, lost: str
) -> None:
    """While its disk is slow, a killed server may not yet have written what it said it had."""
    with scene.begun() as command:
        command.process.send_signal(signal.SIGSTOP)
        (server,) = command.children("server")
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: not command.children("server"), what="the server's end")
        folder = scene.folder / ".millpond/server/appendonlydir"
        if lost == "everything":
            shutil.rmtree(folder)
        else:
            (log,) = folder.glob("*.incr.aof")
            content = log.read_bytes()
            with log.open("r+b") as file:
                file.truncate(content.index(b"queued"))  # the jobs themselves
        command.process.send_signal(signal.SIGCONT)
        ended = command.wait()

    assert ended.code == 0
    scene.check_answers()


def test_a_killed_run_leaves_no_process_behind_and_goes_on(scene: Scene) -> None:
    with scene.begun() as command:
        children = set(command.children())
        assert len(children) == 3
        command.process.kill()
        command.process.wait()
        wait_until(
            lambda: not children & {pid for pid, _, _ in processes()}, what="the children's end"
        )
        answered = scene.answered()

    ended = run(scene.folder, *scene.arguments)

    assert ended.code == 0
    scene.check_answers()
    assert scene.outcomes() == ["known", "unknown"]
    # What was answered is not asked again; only the six in flight can have been in vain.
    assert set(answered) < set(scene.answered())
    assert len(scene.provider.calls()) <= LINES + 6
    assert ended.summary["reserved_characters"] == 0
    assert ended.summary["estimated_characters"] > 0


def test_a_worker_that_is_asked_to_stop_finishes_its_calls(scene: Scene) -> None:
    with scene.begun() as command:
        (worker,) = command.children("worker")
        assert connections(worker, scene.provider.port) > 0
        os.kill(worker, signal.SIGTERM)
        wait_until(lambda: command.children("worker") not in ([], [worker]), what="another worker")
        ended = command.wait()

    assert ended.code == 0
    scene.check_answers()
    assert scene.outcomes() == ["known"]
    rows = read_rows(scene.folder / "q.jsonl.answers.jsonl")
    assert {row["attempts"] for row in rows} == {1}
    assert all(call["answered"] for call in scene.provider.calls())
    assert len(scene.provider.calls()) == LINES


def test_a_killed_worker_is_replaced_and_its_calls_are_unknown(scene: Scene) -> None:
    with scene.begun("--attempts", "1") as command:
        kill_and_wait_for_another(command, "worker")
        ended = command.wait()

    assert ended.code == 0
    scene.check_answers()
    assert scene.outcomes() == ["known", "unknown"]
    summary = ended.summary
    ledger = read_rows(scene.folder / "ledger.jsonl")
    unknown = [row for row in ledger if row["outcome"] == "unknown"]
    assert 1 <= len(unknown) <= 6
    assert summary["estimated_characters"] == sum(row["characters"] for row in unknown)
    assert summary["reserved_characters"] == 0
    # A crash is no failure of the job's: the one that it may have was not burned.
    rows = read_rows(scene.folder / "q.jsonl.answers.jsonl")
    assert sum(row["attempts"] for row in rows) == LINES + len(unknown)


def test_our_own_simulator_is_started_again_at_its_address(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 8)
    arguments = ("run", FILE, "--json", "--limits", "generate=1000/1s", "--concurrency", "2")

    with running(tmp_path, *arguments) as command:
        answers = tmp_path / "q.jsonl.answers.jsonl"
        wait_until(lambda: answers.exists() and answers.read_bytes(), what="an answer")
        kill_and_wait_for_another(command, "simulator")
        ended = command.wait()

    assert ended.code == 0
    assert sorted(row["line"] for row in read_rows(answers)) == list(range(1, 9))


@pytest.mark.parametrize(
    "workers", [STILLBORN_WORKERS, SHORT_LIVED_WORKERS], ids=["at the start", "at a call"]
)
def test_ten_deaths_without_a_settled_call_end_the_run_with_1(scene: Scene, workers: str) -> None:
    (scene.folder / "sitecustomize.py").write_text(workers)
    path = f"{scene.folder}:{os.environ.get('PYTHONPATH', '')}"

    ended = run(scene.folder, *scene.arguments, "--workers", "5", env={"PYTHONPATH": path})

    assert ended.code == 1
    assert ended.summary["waiting"] == LINES
    assert ended.summary["reserved_characters"] == 0
    assert f"To go on: millpond run {FILE}" in ended.err
    assert "log.jsonl" in ended.err
    assert scene.answered() == []
    assert scene.provider.calls() == []

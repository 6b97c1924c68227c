"""What guards the books: a server that may forget is refused, a stepped clock frees nothing early,
a scheduler that stands still holds nobody up."""

import time
from itertools import pairwise
from pathlib import Path

import pytest
from redis import Redis

from rig import (
    Rows,
    prompts,
    read_rows,
    run,
    running,
    server,
    simulator,
    stopped,
    wait_until,
)
from stepped import stepped_server, why_not

HOUR_MS = 3_600_000
STOPPED_S = 10

NOTHING_KEPT = ("--appendonly", "no", "--save", "")

FILE = "q.jsonl"
ANSWERS = "q.jsonl.answers.jsonl"


def lines(folder: Path) -> list[int]:
    """The lines of all answers; in order, so that a line twice is seen."""
    return sorted(row["line"] for row in read_rows(folder / ANSWERS))


def wait_answers(folder: Path, count: int) -> None:
    wait_until(lambda: len(read_whole_rows(folder / ANSWERS)) >= count, what=f"answer {count}")


def read_whole_rows(path: Path) -> list[bytes]:
    """The rows of a file that is being written, but for a torn last one."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def longest_gap_ms(calls: Rows) -> float:
    """Between one arrival at the provider and the next."""
    arrivals: list[float] = sorted(call["at_ms"] for call in calls)
    return max((later - earlier for earlier, later in pairwise(arrivals)), default=0.0)


def keys(url: str) -> int:
    with Redis.from_url(url) as redis:
        return int(str(redis.dbsize()))


def test_a_run_refuses_a_server_that_may_forget_with_2_unless_it_is_told_that_it_may(
    tmp_path: Path,
) -> None:
    prompts(tmp_path / FILE, 6)
    with (
        server(*NOTHING_KEPT) as url,
        simulator(tmp_path / "provider", "--limits", "none") as provider,
    ):
        command = ("run", FILE, "--base-url", provider.url, "--json")
        env = {"MILLPOND_REDIS_URL": url}

        refused = run(tmp_path, *command, env=env)

        assert (refused.code, refused.out) == (2, "")
        assert "keeps nothing on disk" in refused.err
        assert "--ephemeral" in refused.err
        assert "Traceback" not in refused.err
        assert keys(url) == len(provider.calls()) == 0

        whole = run(tmp_path, *command, "--ephemeral", env=env)

        assert whole.code == 0, whole.err
        assert lines(tmp_path) == list(range(1, 7))
        assert keys(url) > 0


def test_a_dry_run_refuses_it_too(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 1)
    with server(*NOTHING_KEPT) as url:
        refused = run(tmp_path, "run", FILE, "--dry-run", env={"MILLPOND_REDIS_URL": url})

    assert refused.code == 2
    assert "keeps nothing on disk" in refused.err


@pytest.mark.parametrize("command", ["scheduler", "worker"])
def test_a_process_of_ones_own_refuses_it_and_goes_on_if_it_is_told_to(
    tmp_path: Path, command: str
) -> None:
    with server(*NOTHING_KEPT) as url:
        env = {"MILLPOND_REDIS_URL": url, "MILLPOND_BASE_URL": "http://127.0.0.1:1"}

        refused = run(tmp_path, command, env=env)

        assert refused.code == 2
        assert "keeps nothing on disk" in refused.err
        assert "Traceback" not in refused.err
        assert keys(url) == 0

        for options, more in ((["--ephemeral"], {}), ([], {"MILLPOND_EPHEMERAL": "true"})):
            with running(tmp_path, command, *options, env={**env, **more}) as going_on:
                wait_until(lambda: keys(url) > 0, what="hello")
                going_on.process.terminate()
                assert going_on.wait().code == 0
            with Redis.from_url(url) as redis:
                redis.flushall()


needs_stepping = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@needs_stepping
def test_the_clock_of_a_stepped_server_is_off_by_as_much_as_it_was_stepped(tmp_path: Path) -> None:
    with stepped_server(tmp_path) as one, Redis.from_url(one.url) as redis:

        def off_ms() -> float:
            seconds, micros = redis.time()
            return float((seconds + micros / 1_000_000 - time.time()) * 1_000)

        def is_off(by_ms: int) -> bool:
            return abs(off_ms() - by_ms) < HOUR_MS / 4

        assert is_off(0)
        for step_ms in (2 * HOUR_MS, -4 * HOUR_MS, 2 * HOUR_MS):
            one.step(step_ms)
            # It may take its time once for several commands.
            wait_until(lambda: is_off(one.offset_ms), what="the step")


@needs_stepping
@pytest.mark.slow
def test_a_clock_that_is_stepped_under_a_run_frees_no_window_early_and_loses_no_line(
    tmp_path: Path,
) -> None:
    prompts(tmp_path / FILE, 200)
    limits = ("--limits", "generate=60/6s", "--quota", "none")
    with (
        stepped_server(tmp_path / "stepped") as one,
        simulator(tmp_path / "provider", *limits, "--service", "0.3") as provider,
    ):
        command = ("run", FILE, "--base-url", provider.url, *limits, "--json")
        with running(tmp_path, *command, env={"MILLPOND_REDIS_URL": one.url}) as running_one:
            # Each time the window is full or about to be, and more lines wait.
            for answers, step_ms in (
                (60, 3_000),
                (90, -3_000),
                (120, 2 * HOUR_MS),
                (180, -2 * HOUR_MS),
            ):
                wait_answers(tmp_path, answers)
                one.step(step_ms)
            ended = running_one.wait()

        report = provider.report()
        assert ended.code == 0, ended.err
        assert lines(tmp_path) == list(range(1, 201))
        assert (report["refused"], ended.summary["refusals"]) == ({}, 0)
        assert (report["admitted"], report["duplicates"]) == (200, 0)


@pytest.mark.slow
def test_of_two_schedulers_one_may_stand_still_and_nothing_waits_for_it_nor_goes_too_early(
    server_url: str, tmp_path: Path
) -> None:
    prompts(tmp_path / FILE, 300)
    (tmp_path / "second").mkdir()
    limits = ("--limits", "generate=20/2s", "--quota", "none")
    env = {"MILLPOND_REDIS_URL": server_url, "MILLPOND_PARTITION": "twoschedulers"}
    with (
        simulator(tmp_path / "provider", *limits) as provider,
        running(tmp_path / "second", "scheduler", env=env) as second,
    ):
        command = ("run", FILE, "--base-url", provider.url, *limits, "--json")
        with running(tmp_path, *command, env=env) as running_one:
            wait_answers(tmp_path, 20)
            [first] = running_one.children("scheduler")
            for pid in (first, second.process.pid):
                with stopped(pid):
                    time.sleep(STOPPED_S)
            assert running_one.process.poll() is None, "it was over before both had stood still"
            assert running_one.children("scheduler") == [first]
            assert second.process.poll() is None, second.err()
            ended = running_one.wait()

        report = provider.report()
        assert ended.code == 0, ended.err
        assert lines(tmp_path) == list(range(1, 301))
        assert (report["refused"], ended.summary["refusals"]) == ({}, 0)
        assert (report["admitted"], report["duplicates"]) == (300, 0)
        # Shares of what the ideal policy reaches with the same delays: a scheduler that holds
        # others up costs five windows of fifteen.
        assert report["sustained"] >= 0.9 * report["sustained_ideal"]
        assert longest_gap_ms(provider.calls()) < 2_000 + 1_000

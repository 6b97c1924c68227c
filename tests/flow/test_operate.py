"""Operators' commands beside a run that is alive: real processes, found by their data folder."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from rig import (
    Command,
    Ended,
    Rows,
    prompts,
    read_rows,
    run,
    running,
    server,
    simulator,
    wait_until,
)

FILE = "q.jsonl"
ANSWERS = "q.jsonl.answers.jsonl"
DURABLE = ("--appendonly", "yes", "--maxmemory-policy", "noeviction")


def answered(folder: Path) -> int:
    path = folder / ANSWERS
    return path.read_bytes().count(b"\n") if path.exists() else 0


def lines(folder: Path) -> list[int]:
    return sorted(row["line"] for row in read_rows(folder / ANSWERS))


class Beside:
    """Somebody at another terminal, in the folder of a run."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._place = folder / "beside"
        self._place.mkdir(exist_ok=True)
        self._env = env

    def ask(self, *arguments: str | Path) -> Ended:
        data = ("--data-dir", self._folder / ".millpond")
        return run(self._place, *arguments, *data, env=self._env)

    def told(self, *arguments: str | Path) -> Rows:
        ended = self.ask(*arguments, "--json")
        assert ended.code == 0, ended.err
        return [json.loads(line) for line in ended.out.splitlines()]

    def one(self, *arguments: str | Path) -> dict[str, Any]:
        [told] = self.told(*arguments)
        return told


def run_in(folder: Path) -> str:
    """The name of the only run in a folder."""
    [path] = (folder / ".millpond" / "runs").iterdir()
    return path.name


@contextmanager
def a_run(
    folder: Path, count: int, *options: str, first: int = 1
) -> Iterator[tuple[Command, Beside]]:
    """A run that has `first` answers, with somebody beside it."""
    prompts(folder / FILE, count)
    with running(folder, "run", FILE, "--json", *options) as command:
        wait_until(lambda: answered(folder) >= first, what=f"answer {first}")
        yield command, Beside(folder)


@pytest.mark.slow
def test_a_full_lane_is_explained_with_its_limit_and_when_everything_will_be_answered(
    tmp_path: Path,
) -> None:
    with a_run(tmp_path, 150, "--limits", "generate=30/3s", first=30) as (command, beside):
        flow = run_in(tmp_path)

        every = beside.one("explain")
        told = beside.one("explain", flow)
        asked_s = time.time()
        job = beside.one("explain", f"{flow}.100")
        [org] = every["orgs"]
        lane = beside.one("explain", org["id"])  # the beginning of the lane's name
        people = beside.ask("explain", flow)
        wait_until(lambda: answered(tmp_path) == 150, what="the last answer")
        took_s = time.time() - asked_s
        assert command.wait().code == 0, command.err()

    assert told["kind"] == "flow"
    assert told["waits"]["limit"] == "30/3s"
    assert (told["waits"]["why"], told["waits"]["unit"]) == ("limit", "calls")
    assert told["waits"]["used"] == told["waits"]["amount"] == 30
    assert told["waits"]["next_release"]["in_s"] <= 3
    assert told["answered"]["in_s"] == pytest.approx(took_s, rel=0.15)
    assert (job["kind"], job["state"], job["flow"]) == ("job", "queued", flow)
    assert 0 < job["calls_before"] < 100
    assert job["answered"]["in_s"] < told["answered"]["in_s"]
    assert (lane["kind"], lane["org"]["id"]) == ("lane", org["id"])
    assert lane["limits"][0]["limit"] == "30/3s"
    [in_line] = lane["in_line"]
    assert (in_line["flow"], in_line["class"]) == (flow, "bulk")
    assert org["lanes"][0]["id"] == lane["id"] == f"{org['id']}.generate"
    assert f"flow {flow}: waiting" in people.out
    assert "waits for 30/3s (30 of 30 calls), next at" in people.out


@pytest.mark.slow
def test_of_runs_that_share_a_lane_each_is_told_its_own_end(tmp_path: Path) -> None:
    """One has twice the weight, and another user is there as well."""
    options = ("--limits", "generate=40/4s", "--quota", "none")
    who = {
        "one": ("--user", "anna"),
        "two": ("--user", "bo"),
        "three": ("--user", "bo", "--weight", "2"),
    }
    ends_s: dict[str, float] = {}
    with server(*DURABLE) as url, simulator(tmp_path / "p", *options) as provider:
        env = {"MILLPOND_REDIS_URL": url}
        commands = []
        for name, more in who.items():
            (tmp_path / name).mkdir()
            prompts(tmp_path / name / FILE, 60)
            arguments = ("run", FILE, "--base-url", provider.url, *options, *more)
            commands.append(Command(tmp_path / name, *arguments, env=env))
        try:
            folders = {name: tmp_path / name for name in who}
            wait_until(lambda: sum(map(answered, folders.values())) >= 40, what="a full window")
            beside = Beside(tmp_path, env)
            guesses = {}
            for name, folder in folders.items():
                told = beside.one("explain", run_in(folder))
                guesses[name] = (time.time(), told["answered"]["in_s"])

            def all_ended() -> bool:
                for name, folder in folders.items():
                    if answered(folder) == 60:
                        ends_s.setdefault(name, time.time())
                return len(ends_s) == len(who)

            wait_until(all_ended, what="the end of each")
            assert [command.wait().code for command in commands] == [0, 0, 0]
        finally:
            for command in commands:
                command.end()

    for name, (asked_s, guess_s) in guesses.items():
        took_s = ends_s[name] - asked_s
        print(f"{name}: told {guess_s:.1f} s, took {took_s:.1f} s, {guess_s / took_s - 1:+.1%}")
        assert guess_s == pytest.approx(took_s, rel=0.15), name


@pytest.mark.slow
def test_a_suspended_org_makes_no_call_until_it_is_resumed(tmp_path: Path) -> None:
    with simulator(tmp_path / "p", "--limits", "none", "--service", "0.1") as provider:
        options = ("--limits", "generate=20/1s", "--base-url", provider.url)
        with a_run(tmp_path, 120, *options, first=20) as (command, beside):
            done = beside.one("org", "set", "--suspend")
            time.sleep(1)
            before = len(provider.calls())
            told = beside.one("explain", run_in(tmp_path))
            wait_until(lambda: "waits for suspended" in command.err(), what="the reason")
            held = len(provider.calls())
            assert command.process.poll() is None

            beside.one("org", "set", "--resume")
            ended = command.wait()
            calls = len(provider.calls())

    assert done["version"] >= 1
    assert before == held < 120
    assert told["waits"]["why"] == "suspended"
    assert (told["org"]["state"], told["answered"]) == ("suspended", None)
    assert ended.code == 0, ended.err
    assert (lines(tmp_path), calls) == (list(range(1, 121)), 120)


@pytest.mark.slow
def test_an_operators_pause_of_a_lane_is_told_with_its_reason_and_ends_no_run(
    tmp_path: Path,
) -> None:
    with a_run(tmp_path, 120, "--limits", "generate=20/1s", first=20) as (command, beside):
        lane = beside.one("explain")["orgs"][0]["lanes"][0]["id"]
        beside.one("lane", "set", lane, "--pause", "key: it is being changed")
        wait_until(
            lambda: "waits for paused: key: it is being changed" in command.err(), what="the pause"
        )
        assert command.process.poll() is None
        beside.one("lane", "set", lane, "--resume")
        ended = command.wait()

    assert ended.code == 0, ended.err
    assert len(lines(tmp_path)) == 120


@pytest.mark.slow
def test_a_flow_is_paused_and_weighed_and_who_did_it_is_in_the_audit(tmp_path: Path) -> None:
    with a_run(tmp_path, 60, "--limits", "generate=20/2s", first=20) as (command, beside):
        flow = run_in(tmp_path)
        beside.one("flow", "set", flow, "--pause")
        beside.one("flow", "set", flow, "--weight", "2.5")
        told = beside.one("explain", flow)
        beside.one("flow", "set", flow, "--resume")
        audit = beside.told("audit")
        people = beside.ask("audit")
        ended = command.wait()

    assert (told["state"], told["weight"], told["waits"]["why"]) == ("paused", 2.5, "paused")
    assert told["answered"] is None
    changes = [(row["by"], one["field"]) for row in audit for one in row["changes"]]
    mine = [field for by, field in changes if by != "run"]
    assert mine == ["paused", "weight", "paused"]
    assert len({by for by, _ in changes}) == 2
    assert all(row["at"]["in_s"] <= 0.1 for row in audit)
    assert "weight" in people.out
    assert ended.code == 0, ended.err


@pytest.mark.slow
def test_what_is_set_of_an_org_and_a_lane_holds_from_the_next_call_on(tmp_path: Path) -> None:
    with simulator(tmp_path / "p", "--limits", "none") as provider:
        options = ("--limits", "generate=10/60s", "--base-url", provider.url)
        with a_run(tmp_path, 400, *options, first=10) as (command, beside):
            beside.one("org", "set", "--suspend")  # so that it is not done before we are
            changed = beside.one(
                *("org", "set", "--mode", "full", "--provider", "simulator"),
                *("--weight", "anna=3", "--weight", "=2", "--reserve", "p99"),
            )
            shown = beside.one("quota", "show")
            lane = beside.one("explain")["orgs"][0]["lanes"][0]
            options = ("--for-interactive", "1000/60s", "--paced", "--service-time")
            kept = beside.one("lane", "set", lane["id"], *options)
            after = beside.one("explain", lane["id"])
            beside.one("lane", "set", lane["id"], "--for-interactive", "none", "--not-paced")
            beside.one("org", "set", "--resume")
            ended = command.wait()

    assert changed["lanes"] == {lane["id"]: "10000/60s"}
    assert (shown["mode"], shown["quota"], shown["reserve"]) == ("full", None, "p99")
    assert shown["weights"] == {"anna": 3, "": 2}
    assert [one["limit"] for one in lane["limits"]] == ["10000/60s"]
    assert kept["version"] > changed["version"]
    assert [one["limit"] for one in after["limits"]] == ["10000/60s", "10000/60s, 1000 of it kept"]
    assert after["limits"][1]["kept_for_interactive"] == 1_000
    assert (after["paced"], after["service_time"]) == (True, True)
    assert ended.code == 0, ended.err
    assert ended.summary["seconds"] < 60


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("explain", "nobody"), "there is no job, flow or lane 'nobody'"),
        (("quota", "show", "nobody"), "there is no org 'nobody'"),
        (("org", "set"), "name what to change"),
        (("org", "set", "nobody", "--quota", "5"), "there is no org 'nobody'"),
        (("lane", "set", "a"), "name what to change"),
        (("lane", "set", "nobody", "--paced"), "there is no lane 'nobody'"),
        (("lane", "set", "a", "--for-interactive", "60/60s"), "leaves nothing for bulk"),
        (("lane", "set", "a", "--for-interactive", "5/61s"), "no limit of calls with this window"),
        (("flow", "set", "nobody", "--pause"), "there is no flow 'nobody'"),
        (("quota", "settle", "--call", "zz", "--characters", "5", "--why", "x"), "no call 'zz'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_not_there_is_refused(served: Beside, command: tuple[str, ...], told: str) -> None:
    ended = served.ask(*command)

    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert "Traceback" not in ended.err


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    """A server that has seen a run, but none is alive."""
    folder = tmp_path_factory.mktemp("served")
    prompts(folder / FILE, 20)
    with server(*DURABLE) as url:
        env = {"MILLPOND_REDIS_URL": url}
        ended = run(folder, "run", FILE, "--limits", "generate=60/60s", "--quota", "9000", env=env)
        assert ended.code in {0, 75}, ended.err
        yield Beside(folder, env)


@pytest.mark.slow
def test_the_books_are_shown_verified_and_put_right(served: Beside) -> None:
    shown = served.one("quota", "show")
    rows = served.told("quota", "ledger", "--most", "5")
    verified = served.one("quota", "ledger", "--verify")

    assert shown["quota"] == 9_000
    assert shown["used"] > 0
    assert len(rows) == 5
    assert rows[-1]["used"] == shown["used"]
    assert rows[-1]["call"]
    assert (verified["right"], verified["complete"], verified["used"]) == (
        True,
        True,
        rows[-1]["used"],
    )
    assert served.told("quota", "unknown") == []

    entered = served.one("quota", "enter", "--characters", "5000", "--why", "before us")
    assert entered["used"] == shown["used"] + 5_000
    assert [row["percent"] for row in served.told("events")][:1] == [50]
    settled = served.one("quota", "settle", "--used", "8000", "--why", "the provider's figure")
    assert (settled["used"], settled["estimated"]) == (8_000, 0)
    [last] = served.told("quota", "ledger", "--most", "1")
    assert (last["outcome"], last["why"]) == ("corrected", "the provider's figure")
    assert served.one("quota", "ledger", "--verify")["right"]
    for command in (("quota", "show"), ("quota", "ledger"), ("events",), ("quota", "unknown")):
        assert served.ask(*command).code == 0


def test_books_that_somebody_changed_behind_our_back_are_found(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 5)
    with server(*DURABLE) as url:
        env = {"MILLPOND_REDIS_URL": url}
        assert run(tmp_path, "run", FILE, env=env).code == 0
        beside = Beside(tmp_path, env)
        org = beside.one("quota", "show")["id"]
        with Redis.from_url(url) as redis:
            redis.hincrby(f"mp:0:o:{org}", "used", 7)

        ended = beside.ask("quota", "ledger", "--verify", "--json")

    assert ended.code == 1
    assert (ended.summary["right"], ended.summary["agrees_with_org"]) == (False, False)


@pytest.mark.slow
def test_calls_of_unknown_outcome_are_listed_and_settled_one_by_one(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 30)
    faults = ("--fault", "reset_after=0.3", "--limits", "none")
    with server(*DURABLE) as url, simulator(tmp_path / "p", *faults) as provider:
        env = {"MILLPOND_REDIS_URL": url}
        ended = run(tmp_path, "run", FILE, "--base-url", provider.url, env=env)
        assert ended.code == 0, ended.err
        beside = Beside(tmp_path, env)
        before = beside.one("quota", "show")
        unknown = beside.told("quota", "unknown")
        [first, *rest] = unknown
        after = beside.one(
            "quota", "settle", "--call", first["call"], "--characters", "50", "--why", "asked them"
        )
        left = beside.told("quota", "unknown")
        verified = beside.one("quota", "ledger", "--verify")

    assert before["unknown_calls"] == len(unknown) > 0
    assert before["estimated"] == sum(one["characters"] for one in unknown)
    assert after["used"] == before["used"] + 50
    assert after["estimated"] == before["estimated"] - first["characters"]
    assert left == rest
    assert verified["right"]


def test_a_run_tells_once_when_its_quota_is_half_and_nearly_used(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 60)
    options = ("--limits", "generate=10/1s", "--quota", "7000", "--max-tokens", "20")
    ended = run(tmp_path, "run", FILE, *options)

    told = [line for line in ended.err.splitlines() if "of the quota is used" in line]
    assert ended.code == 0, ended.err
    assert [line.split(" %")[0] for line in told] == ["50", "80"]
    assert told[0].endswith("of 7,000 characters")


def test_a_dry_run_says_what_else_it_would_come_to(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 300)
    options = ("--limits", "generate=60/6s", "--quota", "1000", "--dry-run", "--json")
    what_if = ("mode=full", "quota=none", "limits=generate=120/6s", "concurrency=1")
    asked = [part for one in what_if for part in ("--what-if", one)]

    ended = run(tmp_path, "run", FILE, *options, *asked)

    assert ended.code == 75
    told = {one["if"]: one for one in ended.summary["what_if"]}
    assert list(told) == list(what_if)
    assert ended.summary["seconds"] == 29.0
    assert (told["mode=full"]["seconds"], told["mode=full"]["fits_quota"]) == (2.0, True)
    assert (told["quota=none"]["seconds"], told["quota=none"]["reason"]) == (29.0, "60/6s")
    assert told["limits=generate=120/6s"]["seconds"] == 15.0
    assert told["limits=generate=120/6s"]["fits_quota"] is False
    assert told["concurrency=1"]["seconds"] == 300.0
    assert "if mode=full: about 2s" in ended.err
    assert "if quota=none: about 29s under 60/6s" in ended.err
    plain = run(tmp_path, "run", FILE, *options)
    assert "what_if" not in plain.summary


@pytest.mark.slow
def test_a_run_whose_provider_is_unwell_says_so_and_since_when(
    tmp_path: Path,
) -> None:
    prompts(tmp_path / FILE, 40)
    with simulator(tmp_path / "p", "--fault", "503=1", "--limits", "none") as provider:
        options = ("--base-url", provider.url, "--limits", "generate=40/1s")
        with running(tmp_path, "run", FILE, *options) as command:
            wait_until(lambda: "provider unwell since" in command.err(), what="the breaker")
            told = Beside(tmp_path).one("explain", run_in(tmp_path))
            assert command.process.poll() is None
            command.interrupt()
            ended = command.wait()

    assert told["waits"]["why"] == "unwell"
    assert told["waits"]["since"]["in_s"] <= 0
    assert told["lane"]["unwell_since"] == told["waits"]["since"]
    assert ended.code == 130
    assert "40 waiting (for provider unwell since" in ended.err


def test_nothing_is_left_behind_where_no_run_is_alive(tmp_path: Path) -> None:
    before = set(os.listdir("/tmp"))

    ended = Beside(tmp_path).ask("explain")

    assert ended.code == 69
    assert "no run is alive here" in ended.err
    assert not (tmp_path / ".millpond").exists()
    assert not {one for one in set(os.listdir("/tmp")) - before if one.startswith("millpond-0-")}

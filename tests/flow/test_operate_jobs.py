"""Jobs of a run that is alive are cancelled; dead letters are looked at."""

import json
from pathlib import Path
from typing import Any

from rig import Ended, prompts, read_rows, run, running, simulator, wait_until

FILE = "q.jsonl"
#: Longer than the test: who waits for it has not been cut.
SLOW = ("--limits", "none", "--service", "50")


def told(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.out.splitlines()]


def run_in(folder: Path) -> str:
    [path] = (folder / ".millpond" / "runs").iterdir()
    return path.name


def state_of(folder: Path, job: str) -> str | None:
    shown = run(folder, "explain", job, "--json")
    return told(shown)[0]["state"] if shown.code == 0 else None


def test_a_job_that_waits_and_one_that_runs_are_cancelled(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 2)
    env = {"MILLPOND_LEASE_MS": "3000"}
    errors = tmp_path / "q.jsonl.errors.jsonl"
    with simulator(tmp_path / "provider", *SLOW) as provider:
        command = ("run", FILE, "--base-url", provider.url, "--json")
        limit = ("--limits", "generate=1/60s")
        with running(tmp_path, *command, *limit, env=env) as going:
            wait_until(lambda: (tmp_path / ".millpond" / "runs").exists(), what="the run")
            one, two = (f"{run_in(tmp_path)}.{line}" for line in (1, 2))
            wait_until(lambda: state_of(tmp_path, one) == "running", what="a call", every_s=0.2)

            cancelled = run(tmp_path, "job", "cancel", one, two, "nobody", "--json")

            assert cancelled.code == 3
            assert [row["state"] for row in told(cancelled)] == [
                *("cancelling", "cancelled", "unknown"),
            ]
            ended = going.wait()

    assert ended.code == 3
    rows = {row["line"]: row for row in read_rows(errors)}
    assert {line: row["error"]["code"] for line, row in rows.items()} == {
        1: "cancelled",
        2: "cancelled",
    }
    assert (rows[1]["status"], rows[1]["attempts"], rows[2]["attempts"]) == ("cancelled", 1, 0)
    # Its call was cut: nobody waited for the answer, and nobody knows what it has used.
    assert ended.summary["calls"] == 1
    assert ended.summary["estimated_characters"] > 0


def test_an_org_without_dead_letters_says_so(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 1)
    with (
        simulator(tmp_path / "provider", *SLOW) as provider,
        running(tmp_path, "run", FILE, "--base-url", provider.url, "--json"),
    ):
        wait_until(lambda: (tmp_path / ".millpond" / "runs").exists(), what="the run")
        job = f"{run_in(tmp_path)}.1"
        wait_until(lambda: state_of(tmp_path, job) == "running", what="a call", every_s=0.2)

        listed = run(tmp_path, "dead", "list")
        line = run(tmp_path, "dead", "replay", job)
        unknown = run(tmp_path, "dead", "replay", "nobody")

    assert (listed.code, listed.out) == (0, "no job has died\n"), listed
    assert (line.code, unknown.code) == (2, 2)
    assert "its errors file" in line.err
    assert "letter" in unknown.err

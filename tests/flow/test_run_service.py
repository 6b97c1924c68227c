"""`millpond run --url`: a file through a service, each line once, also when it is cut off."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow.test_api_accounts import Caller, Up, going_up

LINES = 50


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with going_up() as one:
        yield one


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows: list[Any] = [{"prompt": f"Name river {number}."} for number in range(1, LINES + 1)]
    rows[6] = {"nothing": 1}
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def start(file: Path, *options: str, key: str | None, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "millpond", "run", file.name, "--url", url, "--json", *options]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MILLPOND_")}
    return subprocess.Popen(
        command,
        cwd=file.parent,
        env={**kept, "MILLPOND_API_KEY": key or ""},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(file: Path, *options: str, key: str | None, url: str) -> tuple[int, Any, str]:
    """Exit code, summary and what people were told."""
    process = start(file, *options, key=key, url=url)
    out, err = process.communicate(timeout=60)
    return process.returncode, json.loads(out) if out.strip() else None, err


def rows(file: Path, kind: str) -> list[Any]:
    path = file.with_name(f"{file.name}.{kind}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def jobs_of(org: Caller) -> list[Any]:
    found: list[Any] = org.ok("GET", "/v1/jobs?limit=1000")["data"]
    return found


def test_a_run_that_is_cut_off_and_started_again_asks_for_each_line_once(
    up: Up, file: Path
) -> None:
    org = up.org("runner", limits={"generate": "20/3s"})
    process = start(file, key=org.key, url=up.url)
    answers = file.with_name("p.jsonl.answers.jsonl")
    deadline = time.monotonic() + 30
    while not answers.exists() or not answers.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    first = json.loads(out)
    assert process.returncode == 130
    assert 0 < first["succeeded"] < LINES - 1
    assert "limited access" in err
    assert first["resume_command"] in err

    code, summary, _ = run(file, key=org.key, url=up.url)

    assert (code, summary["succeeded"], summary["failed"]) == (3, LINES - 1, 1)
    answered, [bad] = rows(file, "answers"), rows(file, "errors")
    assert sorted(row["line"] for row in [*answered, bad]) == list(range(1, LINES + 1))
    assert (bad["line"], bad["error"]["code"]) == (7, "missing_field")
    assert all(row["simulated"] and row["text"] for row in answered)
    assert len(jobs_of(org)) == LINES - 1
    assert run(file, key=org.key, url=up.url)[0] == 3  # it has finished: nothing is asked
    assert len(jobs_of(org)) == LINES - 1


def test_what_the_service_refuses_of_a_line_is_its_error(up: Up, file: Path) -> None:
    org = up.org("picky")
    file.write_text('{"prompt":"a"}\n{"prompt":"b","params":{"temperature":"hot"}}\n')

    code, summary, _ = run(file, "--param", "k=3", key=org.key, url=up.url)

    assert (code, summary["succeeded"], summary["failed"]) == (3, 1, 1)
    [bad] = rows(file, "errors")
    assert (bad["line"], bad["error"]["pointer"]) == (2, "/params/temperature")


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--quota", "none"), 2, "--quota"),
        (("--provider", "cohere"), 2, "--provider"),
        (("--format", "openai"), 2, ""),
        (("--strict",), 2, "--strict wants all"),
    ],
)
def test_what_is_not_for_a_service_is_refused_before_anything_is_sent(
    up: Up, file: Path, options: tuple[str, ...], code: int, says: str
) -> None:
    org = up.org(f"refuses-{options[0].strip('-')}")
    ended, _, err = run(file, *options, key=org.key, url=up.url)
    assert ended == code
    assert says in err
    assert not jobs_of(org)


def test_a_bad_key_and_no_service_have_codes_of_their_own(up: Up, file: Path) -> None:
    assert run(file, key="mpk_nobody", url=up.url)[0] == 77
    assert run(file, key="sk-1234", url=up.url)[0] == 77

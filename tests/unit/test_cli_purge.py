"""An org is erased from the command line: asked again until all is gone, whoever is in the way and
whatever breaks."""

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from millpond import cli_purge
from millpond.cli import app

LEFT = "Records of idempotency keys lapse within a day."
CALLS = "calls that workers make have not ended yet"


def receipt(jobs: int, *, waits: str | None = None, ended: bool = False) -> tuple[int, Any]:
    told = {
        "org": "acme",
        "name": "Acme",
        "by": "operator olga",
        "why": "they asked",
        "begun_at": "2026-11-24T18:26:29Z",
        "ended_at": "2026-11-24T18:26:40Z" if ended else None,
        "waits_for": waits,
        "erased": {"api_keys": 1, "jobs": jobs},
        "left": LEFT,
    }
    return (200 if ended else 202), told


@contextmanager
def service(*replies: tuple[int, Any]) -> Iterator[tuple[str, list[Any]]]:
    """A service that tells these one after the other, the last for ever; and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, json.loads(body)))
            status, told = replies[min(len(asked), len(replies)) - 1]
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILLPOND_OPERATOR_KEY", "mpo_of_olga")
    monkeypatch.setattr(cli_purge, "_AGAIN_S", 0.01)


def purge(url: str, *more: str) -> Result:
    words = ["orgs", "purge", "acme", "--why", "they asked", "--confirm", "acme", "--url", url]
    return CliRunner().invoke(app, [*words, *more])


def test_it_is_asked_again_until_all_is_gone_and_each_change_is_told_once() -> None:
    steps = (receipt(0, waits=CALLS), receipt(0, waits=CALLS), receipt(4_200))
    with service(*steps, receipt(4_500, ended=True)) as (url, asked):
        result = purge(url)

    assert result.exit_code == 0
    assert asked == [("/v1/orgs/acme/purge", {"why": "they asked", "confirm": "acme"})] * 4
    assert result.stderr.splitlines() == [
        f"erased so far: api keys: 1, jobs: 0; waits: {CALLS}",
        "erased so far: api keys: 1, jobs: 4,200",
    ]
    assert result.stdout.splitlines() == [
        "org acme (Acme): erased, by operator olga: they asked",
        "  begun 2026-11-24T18:26:29Z, ended 2026-11-24T18:26:40Z",
        "  api keys: 1",
        "  jobs: 4,500",
        f"  left: {LEFT}",
    ]


def test_programs_get_the_receipt_alone() -> None:
    with service(receipt(3, ended=True)) as (url, _):
        result = purge(url, "--json")

    assert json.loads(result.stdout) == receipt(3, ended=True)[1]
    assert result.stderr == ""


def test_what_is_in_the_way_too_long_ends_with_75_and_says_how_to_go_on() -> None:
    with service(receipt(2, waits="busy: flow r17 of a run")) as (url, _):
        result = purge(url, "--timeout", "1", "--json")

    assert result.exit_code == 75
    assert json.loads(result.stdout)["waits_for"] == "busy: flow r17 of a run"
    assert "not done in 1 s: busy: flow r17 of a run" in result.stderr
    assert "say the same again, and it goes on" in result.stderr
    assert "millpond orgs receipt acme" in result.stderr


def test_a_service_that_breaks_down_midway_is_no_reason_to_begin_anew() -> None:
    broken = (500, {"title": "it broke", "status": 500})
    with service(receipt(2), broken) as (url, _):
        result = purge(url)

    assert result.exit_code == 1
    assert "say the same again, and it goes on" in result.stderr
    assert "it broke" in result.stderr


def test_a_refusal_before_anything_was_begun_says_only_that() -> None:
    with service((404, {"title": "Not found", "detail": "there is no org 'acme'"})) as (url, _):
        result = purge(url)

    assert result.exit_code == 1
    assert result.stderr.startswith("millpond: there is no org 'acme'")
    assert "again" not in result.stderr


def test_on_a_terminal_the_id_is_asked_for_and_a_slip_erases_nothing() -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"acne\n")
    program = str(Path(sys.executable).parent / "millpond")
    done = subprocess.run(
        [program, "orgs", "purge", "acme", "--why", "x", "--url", "http://127.0.0.1:1"],
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=30,
    )
    os.close(ours)
    os.close(theirs)

    assert done.returncode == 2, done.stderr
    assert "Write its id to go on" in done.stderr
    assert "'acne' is not 'acme': nothing was erased" in done.stderr
    assert done.stdout == ""

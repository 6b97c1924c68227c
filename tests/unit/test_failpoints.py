"""A process dies at a point that a test names, and at no other; without a test, nowhere."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from millpond import failpoints
from millpond.run.family import environment
from millpond.settings import Settings, read_settings

PROGRAM = """
from millpond.failpoints import reached
for point in "abab":
    print(point, end="", flush=True)
    reached(point)
"""


def run(**variables: str) -> tuple[int, str]:
    """How a program ends that comes by a, b, a, b, and how far it gets."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **variables}, capture_output=True
    )
    return ended.returncode, ended.stdout.decode()


@pytest.mark.parametrize(
    ("at", "gets_to"),
    [("a", "a"), ("b", "ab"), ("b:1", "ab"), ("a:2", "aba"), ("b:2", "abab")],
)
def test_a_process_dies_when_it_comes_by_for_the_nth_time(at: str, gets_to: str) -> None:
    assert run(MILLPOND_FAIL_AT=at) == (-signal.SIGKILL, gets_to)


@pytest.mark.parametrize("at", ["c", "a:3"])
def test_a_process_that_does_not_come_by_so_often_lives(at: str) -> None:
    assert run(MILLPOND_FAIL_AT=at) == (0, "abab")


def test_with_a_mark_only_the_first_process_dies(tmp_path: Path) -> None:
    variables = {"MILLPOND_FAIL_AT": "b", "MILLPOND_FAIL_MARK": str(tmp_path / "mark")}

    assert run(**variables) == (-signal.SIGKILL, "ab")
    assert run(**variables) == (0, "abab")


def test_without_a_test_a_point_is_nothing() -> None:
    assert failpoints.reached is failpoints._never


def test_the_points_are_no_settings_and_the_children_of_a_run_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MILLPOND_FAIL_AT", "MILLPOND_FAIL_MARK", "MILLPOND_SLOTS"):
        monkeypatch.setenv(name, "7")

    assert read_settings() == Settings(slots=7)
    assert {k: v for k, v in environment({}).items() if k.startswith("MILLPOND_")} == {
        "MILLPOND_FAIL_AT": "7",
        "MILLPOND_FAIL_MARK": "7",
    }

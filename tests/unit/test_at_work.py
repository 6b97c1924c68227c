"""What a worker was at work on outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from millpond.providers.at_work import AtWork, Watch, forget, seen_at_work


def worker(path: Path | None) -> AtWork:
    """Of one that is up."""
    at_work = AtWork(path)
    at_work.begin()
    return at_work


def test_a_worker_is_at_work_on_a_call_inside_with(tmp_path: Path) -> None:
    at_work = worker(tmp_path / "page")
    assert seen_at_work(tmp_path / "page") is None

    with at_work.on("1a2b"):
        seen = seen_at_work(tmp_path / "page")

    assert seen is not None
    assert seen[0] == "1a2b"
    assert 0 <= seen[1] < 60_000
    assert seen_at_work(tmp_path / "page") is None


def test_an_exception_ends_it_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError), worker(tmp_path / "page").on("1a2b"):
        raise ValueError

    assert seen_at_work(tmp_path / "page") is None


def test_a_shorter_id_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    at_work = worker(tmp_path / "page")
    with at_work.on("1a2b3c4d5e6f"):
        pass
    with at_work.on("7"):
        seen = seen_at_work(tmp_path / "page")

    assert seen is not None
    assert seen[0] == "7"


def test_without_a_file_nobody_is_told() -> None:
    with worker(None).on("1"):
        pass


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), 9)", "os._exit(1)", "os.abort()"])
def test_it_is_told_when_the_process_dies(tmp_path: Path, how: str) -> None:
    program = (
        "import os, sys; from pathlib import Path; from millpond.providers.at_work import AtWork\n"
        f"here = AtWork(Path(sys.argv[1])); here.begin()\nwith here.on('1a2b'):\n    {how}"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "page")], check=False)
    assert done.returncode in {1, -signal.SIGKILL, -signal.SIGABRT}

    seen = seen_at_work(tmp_path / "page")

    assert seen is not None
    assert seen[0] == "1a2b"


def test_what_is_no_such_file_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x")

    assert seen_at_work(tmp_path / "short") is None
    assert seen_at_work(tmp_path / "none") is None
    assert seen_at_work(tmp_path) is None


def test_the_file_is_there_while_the_worker_is_up_and_no_longer_if_it_ends_well(
    tmp_path: Path,
) -> None:
    page = tmp_path / "page"
    watch = Watch(page, lease_ms=30_000)
    at_work = AtWork(page)
    assert not watch.up()

    at_work.begin()
    assert watch.up()

    at_work.end()
    assert not watch.up()
    with at_work.on("1a2b"):  # tells nobody
        assert not page.exists()
    at_work.end()


def test_it_is_forgotten(tmp_path: Path) -> None:
    page = tmp_path / "page"
    worker(page)
    forget(page)
    forget(page)

    assert not os.path.exists(page)


def test_whoever_outlives_it_blames_the_call_once(tmp_path: Path) -> None:
    page = tmp_path / "page"
    watch = Watch(page, lease_ms=30_000)
    worker(page).on("1a2b")

    assert not watch.stuck()
    assert watch.blamed() == "1a2b"
    assert watch.blamed() == ""
    assert not page.exists()


def test_it_is_stuck_before_its_lease_is_over(tmp_path: Path) -> None:
    page = tmp_path / "page"
    watch = Watch(page, lease_ms=100)
    assert not watch.stuck()

    with worker(page).on("1a2b"):
        time.sleep(0.07)
        assert watch.stuck()

    assert not watch.stuck()

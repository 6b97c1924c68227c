"""A copy of a running server's data, and going on from it when all else is lost.

The provider's own books judge: it keeps counting in its windows what the copy does not know.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from flow.test_deploy import BIN, Composed, composed
from rig import wait_until

pytestmark = pytest.mark.slow

WINDOW_S = 8
LIMIT = 15
LIMITS = f"{LIMIT}/{WINDOW_S}s"
#: The compose file's simulator, with limits as narrow as ours, and quicker.
NARROW = {
    "generate=100000/60s;embed=100000/60s;classify=100000/60s": f"generate={LIMITS}",
    "lognormal:0.3,0.5": "0.1",
    "--processes 2": "--processes 1",
}
JOBS = 20
#: What is started beside the server and the provider.
OURS = ("scheduler", "worker", "producer")


def copy_while_it_runs(pond: Composed, to: Path) -> None:
    """The append-only file, as docs/deploy.md says."""
    with Redis(port=pond.port("6379")) as redis:
        redis.config_set("auto-aof-rewrite-percentage", 0)
        wait_until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"])
        shutil.copytree(pond.data("valkey") / "appendonlydir", to / "appendonlydir")
        redis.config_set("auto-aof-rewrite-percentage", 100)


@contextmanager
def restored(pond: Composed) -> Iterator[subprocess.Popen[str]]:
    """`millpond restored`, once it has paused every lane."""
    process = subprocess.Popen(
        [BIN / "millpond", "restored", "--json"],
        env=pond.environment("producer"),
        cwd=pond.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"paused": 3, "wait_s": WINDOW_S + 2}
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def standing_still(pond: Composed, *names: str) -> Iterator[None]:
    """Processes that do nothing as long as the block lasts, and know nothing of it."""
    groups = [process.pid for name in names for process in pond.running[name]]
    for group in groups:
        os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        for group in groups:
            os.killpg(group, signal.SIGCONT)


def counted(pond: Composed) -> int:
    """How many calls our books know of in the lane's window."""
    told = json.loads(pond.millpond("explain", "acme.generate", "--json").stdout)
    [window] = told["limits"]
    used: int = window["used"]
    return used


def test_after_a_restore_no_call_is_refused_and_what_the_copy_knew_is_answered(
    tmp_path: Path,
) -> None:
    with composed(NARROW, single=True) as pond:
        pond.up()
        key = pond.org(LIMITS)
        with standing_still(pond, "scheduler", "worker"):
            ids = pond.submit(key, JOBS)
            copy_while_it_runs(pond, tmp_path)
        late = pond.submit(key, 1)
        wait_until(lambda: len(pond.calls()) >= LIMIT, what="a full window at the provider")
        pond.kill("producer", "worker", "scheduler", "valkey")

        pond.on("valkey", tmp_path)
        pond.up(["valkey"])
        known = counted(pond)
        with restored(pond) as waiting:
            pond.up(OURS)
            assert waiting.wait(60) == 0
        pond.answered(key, ids)
        status, _ = pond.asked(key, "GET", f"/v1/jobs/{late[0]}")

        calls = pond.calls()
        # The copy knew nothing of calls that the provider counted: to go on at once was too much.
        # (With lanes that go on at once 15 calls of these are refused. A worker's lease that is not
        # over keeps lanes waiting too, but for no longer than it lasts, and `restored` ends it.)
        assert known == 0
        assert [call["refused_by"] for call in calls if call["refused_by"]] == []
        assert len(calls) >= JOBS
        # What was accepted after the copy is lost.
        assert status == 404


def test_a_snapshot_is_restored_by_way_of_a_start_without_the_append_only_file(
    tmp_path: Path,
) -> None:
    with composed() as pond:
        pond.up(["valkey"])
        with Redis(port=pond.port("6379")) as redis:
            redis.set("known", "before")
            redis.bgsave()
            wait_until(lambda: not redis.info("persistence")["rdb_bgsave_in_progress"])
            assert redis.info("persistence")["rdb_last_bgsave_status"] == "ok"
        shutil.copy(pond.data("valkey") / "dump.rdb", tmp_path)
        pond.stop("valkey")

        pond.on("valkey", tmp_path)
        pond.instead = {"--appendonly yes": "--appendonly no"}
        pond.up(["valkey"])
        with Redis(port=pond.port("6379")) as redis:
            redis.config_set("appendonly", "yes")
            wait_until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"])
        pond.stop("valkey")
        pond.instead = {}
        pond.up(["valkey"])

        with Redis(port=pond.port("6379")) as redis:
            assert redis.get("known") == b"before"

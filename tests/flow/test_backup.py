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
from millpond.domain.job import Endpoint
from millpond.domain.limit import Limits, parse_limit
from millpond.store.directory import Directory
from millpond.store.gateway import Gateway, connect
from millpond.store.store import Changes, Store
from rig import wait_until

pytestmark = pytest.mark.slow

WINDOW_S = 6
LIMIT = 15
LIMITS = f"{LIMIT}/{WINDOW_S}s"
#: The compose file's simulator, with limits as narrow as ours, and quicker.
NARROW = {
    "generate=100000/60s;embed=100000/60s;classify=100000/60s": f"generate={LIMITS}",
    "lognormal:0.3,0.5": "0.1",
    "--processes 2": "--processes 1",
}
JOBS = LIMIT
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
def restored(pond: Composed, *, lanes: int, wait_s: int) -> Iterator[subprocess.Popen[str]]:
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
        assert json.loads(process.stdout.readline()) == {"paused": lanes, "wait_s": wait_s}
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
        with restored(pond, lanes=3, wait_s=WINDOW_S + 2) as waiting:
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


async def test_lanes_stay_paused_if_nobody_waited_or_if_an_operator_paused_them() -> None:
    with composed() as pond:
        pond.up(["valkey"])
        async with connect(f"redis://127.0.0.1:{pond.port('6379')}") as redis:
            store = Store(Gateway(redis, "0"))
            await store.hello()
            limits: Limits = dict.fromkeys(Endpoint, (parse_limit("1/1s"),))
            await Directory(store).create_org(
                "acme", "Acme", limits=limits, quota=None, pool="http", by="ann"
            )
            held = Changes(lane="acme.embed", paused="paused: by ann")
            await store.change("acme", held, by="ann")

            async def paused() -> dict[str, str | None]:
                lanes = await store.lanes("acme")
                return {one: (await store.explain(lane=one)).lane.paused for one in lanes}

            with restored(pond, lanes=2, wait_s=3):
                pass  # cut off
            left = await paused()
            with restored(pond, lanes=2, wait_s=3) as waiting:
                assert waiting.wait(30) == 0
            in_the_end = await paused()

    said = "paused: restored from a copy, until the windows have passed: millpond restored"
    assert left == {
        "acme.classify": said,
        "acme.embed": "paused: by ann",
        "acme.generate": said,
    }
    assert in_the_end == {
        "acme.classify": None,
        "acme.embed": "paused: by ann",
        "acme.generate": None,
    }


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

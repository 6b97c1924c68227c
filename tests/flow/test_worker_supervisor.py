"""Worker processes, a real server and what happens to both: the pump and arq go on side by side,
a stop burns nothing, and one of several processes that dies takes no other along."""

import asyncio
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pytest
from redis import Redis

from conftest import lane
from millpond.domain.job import Endpoint
from millpond.domain.request import Ask, Common
from millpond.embedded.server import find_server
from millpond.errors import Unavailable
from millpond.store.gateway import Gateway, connect
from millpond.store.store import NewJob, Store
from rig import Command, Simulator, processes, run, running, simulator, stopped, wait_until

FLOW = "f"
ORG = "demo"
QUEUE = "mp:0:arq"
HEALTH = f"{QUEUE}:health-check"
CHECK = [sys.executable, "-m", "arq", "millpond.worker.background.WorkerSettings"]

#: Code that a worker runs first, so that a test need not wait for the minute.
EACH_SECOND = """
from millpond.worker import background
background._AT_SECONDS = set(range(60))
"""
#: With it, no timeout of a worker's connections is longer than three seconds.
IMPATIENT = """
from millpond.store import gateway
gateway.READ_TIMEOUT_S = 1
"""

Result = TypeVar("Result")


class Server:
    """A server on a Unix socket, with an append-only file: it may be killed and started again."""

    def __init__(self, folder: str, name: str, *options: str) -> None:
        self.socket = Path(folder, name)
        self.url = f"unix://{self.socket}"
        self._data = Path(folder, f"{name}.data")
        self._data.mkdir()
        self._options = options
        self.start()

    def start(self) -> None:
        places = ("--unixsocket", str(self.socket), "--dir", str(self._data))
        log = self._data / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(find_server(), "--port", "0", *places, "--appendonly", "yes", "--save", ""),
                    *self._options,
                ],
                stdout=output,
                stderr=output,
            )
        wait_until(self.answers, what="the server's start")

    def answers(self) -> bool:
        with suppress(Exception), self.redis() as redis:
            return bool(redis.ping())
        return False

    def redis(self) -> Redis:
        return Redis.from_url(self.url)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="millpond-test-") as folder:
        one = Server(folder, "s")
        try:
            yield one
        finally:
            one.kill()


class Jobs:
    """The jobs of one flow in a server: what is asked, and how they stand."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._redis = connect(url)
        self.store = Store(Gateway(self._redis, "0"))
        self.asked = 0
        common = Common(Endpoint.GENERATE, "m", 20).write()
        lanes = lane("10000/60s", org=ORG)
        self.do(self.store.hello())
        self.do(self.store.set_flow(FLOW, lanes, attempts=1, crashes=20, common=common))

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)

    def ask(self, *texts: str) -> None:
        new = [
            NewJob(f"f.{self.asked + n}", 100, "", Ask(text).write())
            for n, text in enumerate(texts)
        ]
        self.asked += len(texts)
        wait_until(lambda: self._accepted(new), what="the server", every_s=0.1)

    def _accepted(self, new: list[NewJob]) -> bool:
        with suppress(Unavailable):
            self.do(self.store.accept(FLOW, new))
            return True
        return False

    def ended(self) -> list[dict[str, str]]:
        """The jobs that have ended."""
        with suppress(Unavailable):
            rows = self.do(self.store.rows(FLOW, block_ms=1))
            return [row.fields for row in rows if "job" in row.fields]
        return []

    def wait(self) -> list[dict[str, str]]:
        """Until all that was asked has ended."""
        wait_until(lambda: len(self.ended()) >= self.asked, what="the last answer", every_s=0.05)
        return self.ended()

    def wait_for_calls(self, *names: str) -> None:
        """Until each of these jobs is in a call."""
        wait_until(lambda: {self.tries(name)[0] for name in names} == {"running"}, what="the calls")

    def tries(self, job: str) -> tuple[str, int, int]:
        """A job's state, its failures and how many workers it saw die."""
        fields = self.do(self._fields(job))
        return fields["state"], int(fields.get("failures", 0)), int(fields.get("crashed", 0))

    async def _fields(self, job: str) -> dict[str, str]:
        found = await self._redis.hgetall(f"mp:0:j:{job}")  # type: ignore[misc]
        return {name.decode(): value.decode() for name, value in found.items()}

    def close(self) -> None:
        self.do(self._redis.aclose())
        self._runner.close()


@dataclass
class Scene:
    """A server with a scheduler, a provider, and a flow of jobs for workers to come."""

    folder: Path
    server: Server
    provider: Simulator
    jobs: Jobs

    @contextmanager
    def worker(
        self,
        *options: str,
        settings: Mapping[str, str] = MappingProxyType({}),
        first: str = "",
        provider: Simulator | None = None,
    ) -> Iterator[Command]:
        """A worker that has begun, with a folder of its own."""
        folder = Path(tempfile.mkdtemp(prefix="worker-", dir=self.folder))
        env = {
            "MILLPOND_REDIS_URL": self.server.url,
            "MILLPOND_BASE_URL": (provider or self.provider).url,
            "MILLPOND_PROVIDER_KEY": ORG,
            "MILLPOND_POOL": ORG,
            "MILLPOND_LOG_LEVEL": "INFO",
        }
        with running(folder, "worker", *options, env=env | dict(settings), first=first) as command:
            wait_until(
                lambda: events(command, "worker_started") or command.process.poll() is not None,
                what="the worker's start",
            )
            assert command.process.poll() is None, command.err()
            yield command


@contextmanager
def scene(folder: Path, *, service: str = "0.05") -> Iterator[Scene]:
    folder.mkdir(exist_ok=True)
    with (
        server() as one,
        running(folder, "scheduler", env={"MILLPOND_REDIS_URL": one.url}),
        simulator(folder / "provider", "--limits", "none", "--service", service) as provider,
    ):
        jobs = Jobs(one.url)
        try:
            yield Scene(folder, one, provider, jobs)
        finally:
            jobs.close()


def events(command: Command, name: str) -> list[dict[str, Any]]:
    """What a command has logged under a name."""
    lines = [line for line in command.err().splitlines() if line.startswith("{")]
    return [event for event in map(json.loads, lines) if event["event"] == name]


def wait_for_another(command: Command, event: str) -> None:
    """Until it logs an event once more than it has by now."""
    before = len(events(command, event))
    wait_until(lambda: len(events(command, event)) > before, what=f"{event} again", every_s=0.1)


def ends_well(command: Command) -> None:
    """It lives, and ends with 0 when it is asked to."""
    assert command.process.poll() is None, command.err()
    command.process.terminate()
    ended = command.wait()
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err


def kill_and_start_again(one: Server) -> None:
    one.kill()
    time.sleep(1)  # arq finds nobody at the address
    one.start()


def be_followed_by_a_replica(one: Server) -> None:
    """A failover: the address is that of a replica for two seconds, and of a primary then."""
    port = free_port()
    with one.redis() as redis:
        redis.config_set("repl-diskless-sync-delay", "0")
        redis.config_set("port", port)
        with tempfile.TemporaryDirectory(prefix="millpond-test-") as folder:
            other = Server(folder, "s", "--replicaof", f"127.0.0.1 {port}")
            with other.redis() as replica:
                wait_until(
                    lambda: replica.info("replication")["master_link_status"] == "up",
                    what="the copy",
                )
                redis.execute_command("WAIT", 1, 5_000)
                one.kill()
                other.socket.rename(one.socket)
                one.process = other.process
                time.sleep(2)
    with one.redis() as replica:
        replica.replicaof("NO", "ONE")


def flush_what_is_of_arq(one: Server) -> None:
    with one.redis() as redis:
        found = [*redis.scan_iter("arq:*"), *redis.scan_iter(f"{QUEUE}*")]
        assert HEALTH.encode() in found
        redis.delete(*found)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    "fault",
    [kill_and_start_again, be_followed_by_a_replica, flush_what_is_of_arq],
    ids=lambda fault: fault.__name__,
)
def test_pump_and_arq_go_on_after_a_fault_of_the_server_without_an_exit_of_ours(
    tmp_path: Path, fault: Callable[[Server], None]
) -> None:
    with (
        scene(tmp_path, service="1") as here,
        here.worker(first=EACH_SECOND + IMPATIENT) as worker,
        here.server.redis() as redis,
    ):
        wait_for_another(worker, "lost_calls_forgotten")
        here.jobs.ask("a", "b", "c")
        here.jobs.wait_for_calls("f.0", "f.1", "f.2")

        fault(here.server)

        wait_for_another(worker, "lost_calls_forgotten")
        wait_until(lambda: redis.exists(HEALTH), what="a heartbeat")
        here.jobs.ask("d", "e")
        rows = here.jobs.wait()
        ends_well(worker)

        assert {(row["state"], row["attempts"]) for row in rows} == {("succeeded", "1")}
        assert len(here.provider.calls()) == 5


@pytest.mark.parametrize(
    ("seconds", "first"),
    [
        pytest.param(4, IMPATIENT, id="longer than each timeout"),
        pytest.param(30, "", id="30 s", marks=pytest.mark.slow),
    ],
)
def test_pump_and_arq_go_on_when_the_server_or_the_worker_has_stood_still(
    tmp_path: Path, seconds: float, first: str
) -> None:
    """The server of one worker, and the process of another, both at once."""
    with (
        scene(tmp_path / "one", service="1") as one,
        scene(tmp_path / "other", service="1") as other,
        one.worker(first=EACH_SECOND + first) as worker,
        other.worker(first=EACH_SECOND + first) as other_worker,
    ):
        for here in (one, other):
            here.jobs.ask("a", "b")
            here.jobs.wait_for_calls("f.0", "f.1")

        with stopped(one.server.process.pid), stopped(other_worker.process.pid):
            time.sleep(seconds)

        for here, command in ((one, worker), (other, other_worker)):
            wait_for_another(command, "lost_calls_forgotten")
            here.jobs.ask("c")
            assert {row["state"] for row in here.jobs.wait()} == {"succeeded"}
            ends_well(command)


def test_arq_may_have_a_server_of_its_own_and_its_end_is_nothing_to_the_pump(
    tmp_path: Path,
) -> None:
    with (
        server() as queue,
        scene(tmp_path) as here,
        here.worker(first=EACH_SECOND, settings={"MILLPOND_QUEUE_URL": queue.url}) as worker,
    ):
        wait_for_another(worker, "lost_calls_forgotten")
        with here.server.redis() as redis, queue.redis() as of_arq:
            assert [*redis.scan_iter("*arq*")] == []
            assert of_arq.exists(HEALTH)

        queue.kill()
        wait_until(lambda: events(worker, "background_ended"), what="arq's end")
        here.jobs.ask("a", "b")

        assert {row["state"] for row in here.jobs.wait()} == {"succeeded"}
        ends_well(worker)
        assert events(worker, "store_unavailable") == []


#: Whoever unpickles anything in the process leaves a file behind.
NO_PICKLE = """
import pickle
def unpickled(*_, **__):
    open("unpickled", "w").close()
    raise AssertionError("pickle")
pickle.load = pickle.loads = unpickled
"""


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._path, "w")


def test_what_is_pickled_in_arqs_keys_is_never_unpickled_and_ends_nothing(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    pickle.loads(trap).close()
    assert sprung.exists()
    sprung.unlink()

    with (
        scene(tmp_path) as here,
        here.worker(first=NO_PICKLE + EACH_SECOND) as worker,
        here.server.redis() as redis,
    ):
        wait_for_another(worker, "lost_calls_forgotten")
        now_s = int(time.time())
        of_cron = [f"{QUEUE}:forget:{second * 1000 + 123}" for second in range(now_s, now_s + 4)]
        for id in ("known", *of_cron):
            redis.set(f"arq:job:{id}", trap)
            redis.set(f"arq:result:{id}", trap)
            redis.set(f"arq:retry:{id}", 1)
            redis.zadd(QUEUE, {id: 1})
        wait_until(lambda: not redis.exists("arq:job:known"), what="the trap to be dropped")

        # Nor by what arq itself does not survive: an id that is no text, a name that is none.
        redis.set("arq:job:odd", json.dumps({"f": [], "a": [], "k": {}, "t": 1, "et": 1}))
        redis.zadd(QUEUE, {"odd": 1, b"\xff": 1})
        wait_until(lambda: events(worker, "background_broke"), what="arq's end")
        wait_for_another(worker, "lost_calls_forgotten")

        here.jobs.ask("a")
        here.jobs.wait()
        assert worker.process.poll() is None
        worker.process.terminate()
        assert worker.wait().code == 0
    assert not sprung.exists()
    assert list(tmp_path.glob("**/unpickled")) == []


def asked(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What becomes of `arq ...WorkerSettings`."""
    env = {**os.environ, "MILLPOND_REDIS_URL": url}
    return subprocess.run([*CHECK, *options], env=env, capture_output=True, timeout=60, text=True)


def check(url: str, *options: str) -> int:
    """How it ends."""
    return asked(url, *options).returncode


def test_arqs_own_check_tells_whether_a_worker_lives(tmp_path: Path) -> None:
    with scene(tmp_path) as here, here.server.redis() as redis:
        url = here.server.url
        assert check(url, "--check") == 1
        with here.worker() as worker:
            wait_until(lambda: check(url, "--check") == 0, what="a heartbeat")
            ends_well(worker)
        wait_until(lambda: not redis.exists(HEALTH), what="the heartbeat to lapse")
        assert check(url, "--check") == 1

        # Without --check it would be a worker that takes pickles: it has nothing to run.
        assert check(url) == 1


def test_arqs_own_check_does_not_wait_for_a_server_that_hangs() -> None:
    with server() as one, stopped(one.process.pid):
        began = time.monotonic()
        done = asked(one.url, "--check")
        took_s = time.monotonic() - began

    assert done.returncode == 1
    assert done.stderr == "millpond: no answer from the server of MILLPOND_REDIS_URL in 10 s\n"
    assert took_s < 25


TWO = {"MILLPOND_SLOTS": "2"}


def test_at_sigterm_calls_end_within_the_grace_and_nothing_new_is_claimed(tmp_path: Path) -> None:
    with scene(tmp_path, service="2") as here:
        with here.worker(settings=TWO) as worker:
            here.jobs.ask("a", "b", "c")
            here.jobs.wait_for_calls("f.0", "f.1")
            ends_well(worker)

        ended = {row["job"]: row["state"] for row in here.jobs.ended()}
        assert ended == {"f.0": "succeeded", "f.1": "succeeded"}
        assert here.jobs.tries("f.2")[1:] == (0, 0)
        assert len(here.provider.calls()) == 2

        with here.worker(settings=TWO):
            rows = here.jobs.wait()
    assert [row["attempts"] for row in rows] == ["1"] * 3


def test_the_file_that_says_what_it_is_at_work_on_goes_with_it(tmp_path: Path) -> None:
    page = tmp_path / "page"
    with scene(tmp_path) as here, here.worker(settings={"MILLPOND_AT_WORK": str(page)}) as worker:
        assert page.exists()
        ends_well(worker)

    assert not page.exists()


@pytest.mark.parametrize("how", ["the grace is over", "a second SIGTERM"])
def test_longer_calls_are_cut_burn_nothing_and_go_on_with_another_worker(
    tmp_path: Path, how: str
) -> None:
    grace = {"MILLPOND_GRACE_MS": "1000" if how == "the grace is over" else "600000"}
    with (
        scene(tmp_path, service="300") as here,
        simulator(tmp_path / "fast", "--limits", "none") as fast,
    ):
        with here.worker(settings=TWO | grace) as worker:
            here.jobs.ask("a", "b", "c")
            here.jobs.wait_for_calls("f.0", "f.1")
            if how == "a second SIGTERM":
                worker.process.terminate()
                wait_until(lambda: events(worker, "worker_stopping"), what="the first")
            ends_well(worker)

        assert [here.jobs.tries(f"f.{n}")[1:] for n in range(3)] == [(0, 0)] * 3
        assert here.jobs.do(here.jobs.store.look(FLOW)).flow.open == 3

        with here.worker(provider=fast):
            rows = here.jobs.wait()
    # They may fail once: so none was counted as a failure.
    assert {row["state"] for row in rows} == {"succeeded"}


def test_a_second_sigterm_is_quick_even_if_the_server_hangs(tmp_path: Path) -> None:
    soon = "from millpond.worker import supervisor; supervisor._HURRY_S = 1"
    with scene(tmp_path, service="300") as here, here.worker(first=soon) as worker:
        here.jobs.ask("a")
        here.jobs.wait_for_calls("f.0")
        with stopped(here.server.process.pid):
            worker.process.terminate()
            wait_until(lambda: events(worker, "worker_stopping"), what="the first")
            worker.process.terminate()
            assert worker.wait().code == 0
        assert events(worker, "server_did_not_listen")


def test_a_worker_uses_uvloop_where_it_is(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    without = "import sys; sys.modules['uvloop'] = None"
    with scene(tmp_path) as here, here.worker() as fast, here.worker(first=without) as plain:
        loops = [events(worker, "worker_started")[0]["loop"] for worker in (fast, plain)]
        ends_well(fast)
        here.jobs.ask("a")
        here.jobs.wait()
        ends_well(plain)
    assert loops == ["uvloop", "asyncio.unix_events"]


def wait_for_two(command: Command) -> None:
    wait_until(lambda: len(events(command, "worker_started")) == 2, what="both")


def test_one_of_several_that_dies_is_followed_by_another_and_takes_none_along(
    tmp_path: Path,
) -> None:
    with (
        scene(tmp_path, service="0.5") as here,
        here.worker("--processes", "2", settings=TWO) as parent,
    ):
        wait_for_two(parent)
        dies, stays = parent.children()
        here.jobs.ask(*"abcdefgh")
        wait_until(here.jobs.ended, what="an answer")

        os.kill(dies, signal.SIGKILL)

        wait_until(
            lambda: len(parent.children()) == 2 and dies not in parent.children(), what="another"
        )
        assert stays in parent.children()
        rows = here.jobs.wait()
        children = parent.children()
        ends_well(parent)
        assert not {*children} & {pid for pid, _, _ in processes()}
    assert {row["state"] for row in rows} == {"succeeded"}


def test_sigterm_is_passed_on_and_a_second_one_too(tmp_path: Path) -> None:
    settings = TWO | {"MILLPOND_PROCESSES": "2", "MILLPOND_GRACE_MS": "600000"}
    with scene(tmp_path, service="300") as here, here.worker(settings=settings) as parent:
        wait_for_two(parent)
        here.jobs.ask(*"abcd")
        here.jobs.wait_for_calls("f.0", "f.1", "f.2", "f.3")

        parent.process.terminate()
        wait_until(lambda: len(events(parent, "worker_stopping")) == 2, what="both to stop")
        assert len(parent.children()) == 2
        ends_well(parent)

        assert [here.jobs.tries(f"f.{n}")[1:] for n in range(4)] == [(0, 0)] * 4


def test_none_of_several_outlives_the_one_that_keeps_them(tmp_path: Path) -> None:
    with scene(tmp_path) as here, here.worker("--processes", "2") as parent:
        wait_for_two(parent)
        children = set(parent.children())
        parent.process.kill()
        parent.process.wait()
        wait_until(lambda: not children & {pid for pid, _, _ in processes()}, what="their end")


#: Put on PYTHONPATH it makes whoever writes a request for one of the jobs do so.
DOES_NOT_STAND_POISON = """
import os
from millpond.providers.cohere import Cohere
wire = Cohere.wire
def fragile(self, common, asks):
    if any(ask.text == "poison" for ask in asks):
        HOW
    return wire(self, common, asks)
Cohere.wire = fragile
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [
        pytest.param("os._exit(3)", 3, id="dies"),
        pytest.param("while True: pass", -9, id="is stuck", marks=pytest.mark.slow),
    ],
)
def test_a_call_its_process_does_not_survive_ends_after_three_and_the_service_goes_on(
    tmp_path: Path, how: str, code: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(DOES_NOT_STAND_POISON.replace("HOW", how))
    settings = {
        "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
        "MILLPOND_LEASE_MS": "8000",
        "MILLPOND_WORKER": "mill",
    }
    with scene(tmp_path) as here, here.worker("--processes", "2", settings=settings) as parent:
        here.jobs.ask("a", "poison", *"bcdef")
        rows = {row["job"]: row["state"] for row in here.jobs.wait()}
        deaths = events(parent, "worker_died")
        ends_well(parent)

    assert rows.pop("f.1") == "failed"
    assert set(rows.values()) == {"succeeded"}
    assert [death["code"] for death in deaths] == [code] * 3
    assert {death["worker"].rpartition("-")[0] for death in deaths} <= {"mill-0", "mill-1"}
    assert all(death["call"] for death in deaths)


def test_several_that_are_of_no_use_to_start_end_with_their_code_and_one_message(
    tmp_path: Path,
) -> None:
    with server() as one:
        env = {
            "MILLPOND_BASE_URL": "http://127.0.0.1:1",
            "MILLPOND_REDIS_URL": one.url,
            "MILLPOND_QUEUE_URL": "redis://there:port",
            "MILLPOND_LOG_LEVEL": "INFO",
        }
        ended = run(tmp_path, "worker", "--processes", "3", env=env)

    assert ended.code == 2
    assert [line.partition(":")[0] for line in ended.err.splitlines()] == ["millpond"]
    assert "MILLPOND_QUEUE_URL is no address" in ended.err


def test_so_do_they_all_if_one_is_of_no_use_to_start_again(tmp_path: Path) -> None:
    """The server has been told to evict since they began."""
    with scene(tmp_path) as here, here.worker("--processes", "2") as parent:
        wait_for_two(parent)
        children = parent.children()
        with here.server.redis() as redis:
            redis.config_set("maxmemory-policy", "allkeys-lru")
            redis.config_set("maxmemory", "1gb")

        os.kill(children[0], signal.SIGKILL)
        ended = parent.wait()

    assert ended.code == 2
    assert len([line for line in ended.err.splitlines() if line.startswith("millpond: ")]) == 1
    assert not {*children} & {pid for pid, _, _ in processes()}


def test_a_bad_address_of_arqs_server_is_refused_under_its_own_name(tmp_path: Path) -> None:
    env = {
        "MILLPOND_BASE_URL": "http://127.0.0.1:1",
        "MILLPOND_REDIS_URL": "unix:///nowhere/s",
        "MILLPOND_QUEUE_URL": "redis://there:port",
    }

    ended = run(tmp_path, "worker", env=env)

    assert ended.code == 2
    assert ended.err.startswith("millpond: MILLPOND_QUEUE_URL is no address: write redis://")


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"MILLPOND_BASE_URL": "http://127.0.0.1:1"}, "MILLPOND_REDIS_URL"),
        (
            {
                "MILLPOND_BASE_URL": "http://127.0.0.1:1",
                "MILLPOND_REDIS_URL": "unix:///nowhere/s",
                "MILLPOND_WORKER": "w" * 49,
            },
            "MILLPOND_WORKER: at most 48",
        ),
        ({"MILLPOND_QUEUE_URL": "http://127.0.0.1:1"}, "MILLPOND_QUEUE_URL: "),
        ({"MILLPOND_PROCESSES": "0"}, "MILLPOND_PROCESSES"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_several_without_what_they_need_are_refused_before_one_begins(
    tmp_path: Path, settings: dict[str, str], missing: str
) -> None:
    options = () if "MILLPOND_PROCESSES" in settings else ("--processes", "2")

    ended = run(tmp_path, "worker", *options, env=settings)

    assert ended.code == 2
    assert missing in ended.err
    assert "Traceback" not in ended.err

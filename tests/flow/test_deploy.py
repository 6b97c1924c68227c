"""The deployment as it is written: docker-compose.yml, Dockerfile, systemd units, docs/deploy.md.

There is no container engine where these tests run. So what the compose file says is started as
processes of this machine: its commands, environments and health checks, in its order, with names
of hosts mapped to this one, ports to free ones, and mounted places to temporary ones.
"""

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor

from millpond.embedded.server import find_server
from millpond.settings import PREFIX, Settings
from rig import Rows, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
PROVIDER = ROOT / "deploy" / "compose.provider.yml"
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
BIN = Path(sys.executable).parent

#: Where a secret is found in a container.
SECRETS = "/run/secrets"
MASTER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


# ------------------------------------------------------------ reading


_RESET = "!reset"


class Tagged(SafeConstructor):
    """Compose's own tags: what is reset is not there, what overrides is there in full."""


Tagged.add_constructor("!reset", lambda *_: _RESET)
Tagged.add_constructor("!override", lambda self, node: self.construct_mapping(node, deep=True))


def read_compose(path: Path = COMPOSE, **variables: str) -> dict[str, Any]:
    """A compose file with its variables put in, or their defaults."""

    def put_in(found: re.Match[str]) -> str:
        return variables.get(found[1], found[3] if found[2] == ":-" else "")

    text = re.sub(r"\$\{([A-Z_]+)(:-|:\?)([^}]*)\}", put_in, path.read_text())
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Tagged
    told: dict[str, Any] = _without_what_is_reset(yaml.load(text))
    return told


def _without_what_is_reset(told: Any) -> Any:
    if not isinstance(told, dict):
        return told
    return {k: _without_what_is_reset(v) for k, v in told.items() if v != _RESET}


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)(ms|s|m)", text)
    assert found, text
    return int(found[1]) * {"ms": 0.001, "s": 1, "m": 60}[found[2]]


def in_order(services: Mapping[str, Any]) -> list[str]:
    """Who is depended on comes first."""
    order: list[str] = []

    def add(name: str, path: tuple[str, ...] = ()) -> None:
        assert name not in path, f"{name} waits for itself"
        for needed in services[name].get("depends_on", {}):
            add(needed, (*path, name))
        if name not in order:
            order.append(name)

    for name in services:
        add(name)
    return order


# ------------------------------------------------------------ what the file says, as processes


@dataclass
class Composed:
    """The compose file's services on this machine."""

    folder: Path
    #: In place of what the file's commands say.
    instead: Mapping[str, str] = field(default_factory=dict)
    #: One of each, however many the file says.
    single: bool = False
    running: dict[str, list[subprocess.Popen[bytes]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = read_compose()["services"]
        self.order = in_order(self.services)
        self._ports: dict[str, int] = {}
        self._data: dict[str, Path] = {}
        self.master = self.folder / "master.key"
        self.master.write_text(MASTER_KEY + "\n")
        self.master.chmod(0o600)

    # -------- one service

    def data(self, name: str) -> Path:
        """What is mounted at a service's /data."""
        folder = self._data.setdefault(name, self.folder / name)
        folder.mkdir(exist_ok=True)
        return folder

    def on(self, name: str, folder: Path) -> None:
        """From now on another folder is mounted there."""
        self._data[name] = folder

    def port(self, written: str) -> int:
        """A port of a container, as a free one of this machine; the same each time."""
        if written not in self._ports:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._ports[written] = free.getsockname()[1]
        return self._ports[written]

    def here(self, name: str, text: str) -> str:
        """Hosts are this one, ports are free ones, mounted places are temporary ones."""
        for host in self.services:
            text = re.sub(rf"//{host}:", "//127.0.0.1:", text)
        text = text.replace("0.0.0.0:", "127.0.0.1:").replace("/data", str(self.data(name)))
        for secret in self.services[name].get("secrets", ()):
            assert secret == "master_key"
            text = re.sub(rf"^{SECRETS}/{secret}$", str(self.master), text)
        assert SECRETS not in text, f"{name} has no such secret: {text}"
        return re.sub(r"\b(6379|80[89]\d)\b", lambda found: str(self.port(found[1])), text)

    def environment(self, name: str) -> dict[str, str]:
        outside = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        told = self.services[name].get("environment", {})
        assert all(isinstance(value, str) for value in told.values()), told
        return outside | {key: self.here(name, value) for key, value in told.items()}

    def command(self, name: str) -> list[str]:
        written = self.services[name]["command"]
        for old, new in self.instead.items():
            written = written.replace(old, new)
        words = [self.here(name, word) for word in shlex.split(written)]
        if words[0] == "valkey-server":
            return [find_server(), *words[1:]]
        return [str(BIN / "millpond"), *words]  # the image's entrypoint

    def start(self, name: str) -> None:
        self.running[name] = []
        replicas = self.services[name].get("deploy", {}).get("replicas", 1)
        for _ in range(1 if self.single else replicas):
            with (self.folder / f"{name}.log").open("ab") as log:
                self.running[name].append(
                    subprocess.Popen(
                        self.command(name),
                        env=self.environment(name),
                        cwd=self.folder,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )

    def is_healthy(self, name: str) -> bool:
        """What the file's own health check says, of every replica."""
        check = self.services[name]["healthcheck"]
        kind, program, *words = check["test"]
        assert kind == "CMD"
        for process in self.running[name]:
            assert process.poll() is None, (name, process.returncode, self.log(name))
            told = [self.here(name, word) for word in words]
            if words[:2] == ["alive", "--pid"]:
                told[2] = str(process.pid)  # in its container it is 1
            command = {
                "python": [sys.executable],
                "millpond": [str(BIN / "millpond")],
                "arq": [str(BIN / "arq")],
                "valkey-cli": [sys.executable, "-c", PING],
            }[program]
            ended = subprocess.run(
                [*command, *told],
                env=self.environment(name),
                capture_output=True,
                timeout=seconds(check["timeout"]),
            )
            if ended.returncode != 0:
                return False
        return True

    def stop(self, name: str) -> list[int]:
        """SIGTERM, within its own grace; how its processes ended."""
        processes = self.running.pop(name, [])
        for process in processes:
            process.send_signal(signal.SIGTERM)
        grace_s = seconds(self.services[name]["stop_grace_period"])
        return [process.wait(grace_s) for process in processes]

    # -------- all of them

    def up(self, names: Sequence[str] = ()) -> None:
        """Each is started once whom it depends on is healthy."""
        healthy: set[str] = set()

        def wait_for(name: str) -> None:
            if name not in healthy:
                wait_until(lambda: self.is_healthy(name), what=f"the health of {name}")
                healthy.add(name)

        for name in names or self.order:
            for needed, how in self.services[name].get("depends_on", {}).items():
                assert how == {"condition": "service_healthy"}
                wait_for(needed)
            self.start(name)
        for name in names or self.order:
            wait_for(name)

    def down(self) -> dict[str, list[int]]:
        """In reverse; how all ended."""
        return {name: self.stop(name) for name in reversed(self.order) if name in self.running}

    def kill(self, *names: str) -> None:
        """As if their machine was gone."""
        for name in names:
            for process in self.running.pop(name, []):
                with suppress(ProcessLookupError):  # it has ended by itself
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # -------- using it

    def millpond(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As `docker compose exec producer millpond …`."""
        return subprocess.run(
            [str(BIN / "millpond"), *arguments],
            env=self.environment("producer"),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def ask(self, key: str, method: str, path: str, body: Any = None, port: str = "8080") -> Any:
        status, told = self.asked(key, method, path, body, port)
        assert 200 <= status < 300, (method, path, status, told)
        return told

    def asked(
        self, key: str, method: str, path: str, body: Any = None, port: str = "8080"
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port(port), timeout=60)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, headers)
            reply = connection.getresponse()
            text = reply.read()
            return reply.status, json.loads(text) if text else None
        finally:
            connection.close()

    def org(self, limits: str) -> str:
        """A first operator, an org of theirs, and the key of its admin."""
        made = self.millpond("operator-key", "--name", "ops")
        assert made.returncode == 0, made.stderr
        org = {
            "id": "acme",
            "name": "Acme",
            "limits": dict.fromkeys(("generate", "embed", "classify"), limits),
            "admin": {"id": "ann", "name": "Ann"},
        }
        told = self.ask(made.stdout.strip(), "POST", "/v1/orgs", org, port="8081")
        key: str = told["key"]["key"]
        return key

    def submit(self, key: str, count: int) -> list[str]:
        jobs = [
            {"endpoint": "generate", "prompt": f"What is {n}?", "params": {"max_tokens": 5}}
            for n in range(count)
        ]
        return [one["id"] for one in self.ask(key, "POST", "/v1/jobs", jobs)["data"]]

    def answered(self, key: str, ids: Sequence[str]) -> None:
        """Wait until each has its answer."""
        for id in ids:
            job = {"state": "queued"}
            end = time.monotonic() + 60
            while job["state"] not in ("succeeded", "failed") and time.monotonic() < end:
                job = self.ask(key, "GET", f"/v1/jobs/{id}?wait=30")
            assert job["state"] == "succeeded", job

    def calls(self) -> Rows:
        """The provider's books: calls that have ended."""
        rows = read_rows_so_far(self.folder / "simulator" / "simulator.jsonl")
        return [row for row in rows if "received_ms" in row]


PING = (
    "import sys, redis; "
    "sys.exit(not redis.Redis(port=int(sys.argv[sys.argv.index('-p') + 1])).ping())"
)


def read_rows_so_far(path: Path) -> Rows:
    """The rows that are whole while somebody writes."""
    text = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


@contextmanager
def composed(
    instead: Mapping[str, str] | None = None, *, single: bool = False
) -> Iterator[Composed]:
    with tempfile.TemporaryDirectory(prefix="millpond-compose-") as folder:
        one = Composed(Path(folder), instead or {}, single)
        try:
            yield one
        finally:
            one.kill(*reversed(one.order))


@pytest.fixture(scope="module")
def pond() -> Iterator[Composed]:
    with composed() as one:
        one.up()
        yield one


# ------------------------------------------------------------ the compose file


@pytest.mark.parametrize("path", [COMPOSE, PROVIDER], ids=lambda path: path.name)
def test_a_compose_file_is_as_its_schema_says(path: Path, tmp_path: Path) -> None:
    plain = tmp_path / "compose.json"
    plain.write_text(json.dumps(read_compose(path)))

    told = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", plain],
        capture_output=True,
        text=True,
    )

    assert told.returncode == 0, told.stdout


def test_only_the_users_port_is_published_to_the_world() -> None:
    published = {
        name: service["ports"]
        for name, service in read_compose()["services"].items()
        if "ports" in service
    }

    assert published == {"producer": ["8080:8080", "127.0.0.1:8081:8081"]}


def test_every_service_has_what_keeps_it_going_and_within_bounds() -> None:
    for name, service in read_compose()["services"].items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name


def test_a_worker_may_take_its_grace_before_it_is_killed() -> None:
    worker = read_compose()["services"]["worker"]

    grace_s = int(worker["environment"]["MILLPOND_GRACE_MS"]) / 1_000
    assert seconds(worker["stop_grace_period"]) > grace_s + 10


def test_two_schedulers_run() -> None:
    assert read_compose()["services"]["scheduler"]["deploy"]["replicas"] == 2


def test_the_server_keeps_what_it_is_told_and_throws_nothing_away() -> None:
    told = shlex.split(read_compose()["services"]["valkey"]["command"])
    options = dict(zip(told[1::2], told[2::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--maxmemory"] == "1gb"


def test_no_credential_stands_in_the_files() -> None:
    """But for the name under which the simulator keeps an account."""
    for path in (COMPOSE, PROVIDER):
        for name, service in read_compose(path, PROVIDER="cohere")["services"].items():
            for key, value in service.get("environment", {}).items():
                secret = re.search("KEY|PASSWORD|SECRET|TOKEN", key)
                if secret and not key.endswith("_FILE"):
                    expected = "nobody" if path == COMPOSE else ""
                    assert (name, value) == ("worker", expected)


def test_under_a_real_provider_nobody_needs_the_simulator() -> None:
    told = read_compose(PROVIDER, PROVIDER="cohere", PROVIDER_URL="https://api.cohere.com")
    services = told["services"]

    assert services["simulator"] == {"profiles": ["simulator"]}
    assert "network_mode: !reset" in PROVIDER.read_text()
    assert services["worker"]["networks"] == ["books", "front"]
    assert set(services["worker"]["depends_on"]) == {"valkey"}
    assert services["worker"]["environment"] == {
        "MILLPOND_PROVIDER": "cohere",
        "MILLPOND_BASE_URL": "https://api.cohere.com",
        "MILLPOND_PROVIDER_KEY": "",
    }
    assert services["producer"]["environment"] == {"MILLPOND_PROVIDER": "cohere"}


# ------------------------------------------------------------ the compose file, running


@pytest.fixture(scope="module")
def admin(pond: Composed) -> str:
    return pond.org("40/1s")


def test_services_wait_for_whom_they_need(pond: Composed) -> None:
    assert pond.order == ["valkey", "simulator", "scheduler", "worker", "producer"]


def test_a_job_is_answered(pond: Composed, admin: str) -> None:
    asked = {"endpoint": "generate", "prompt": "Name a river.", "params": {"max_tokens": 5}}
    job = pond.ask(admin, "POST", "/v1/jobs", asked)

    told = pond.ask(admin, "GET", f"/v1/jobs/{job['id']}?wait=30")

    assert told["state"] == "succeeded"
    assert told["result"]["text"]


def test_the_first_operators_key_is_made_once(pond: Composed, admin: str) -> None:
    again = pond.millpond("operator-key")

    assert (again.returncode, again.stdout) == (2, "")
    assert "there is an operator's key already" in again.stderr


def test_operators_are_not_heard_where_users_are(pond: Composed, admin: str) -> None:
    status, _ = pond.asked(admin, "GET", "/v1/orgs")
    assert status == 404


def test_a_scheduler_that_hangs_is_not_healthy_though_the_other_is_at_work(
    pond: Composed, admin: str
) -> None:
    first, second = pond.running["scheduler"]
    os.kill(first.pid, signal.SIGSTOP)
    try:
        wait_until(
            lambda: pond.millpond("alive", "--pid", str(first.pid)).returncode == 1,
            what="that it is missed",
        )
        # (As a health check asks: again, if it was seen between two connections.)
        wait_until(
            lambda: pond.millpond("alive", "--pid", str(second.pid)).returncode == 0,
            what="that the other is well",
        )
    finally:
        os.kill(first.pid, signal.SIGCONT)
    wait_until(lambda: pond.is_healthy("scheduler"), what="its recovery")


def test_all_processes_are_replaced_amid_200_jobs_and_each_is_answered_once(
    pond: Composed, admin: str
) -> None:
    """An upgrade: SIGTERM for the old ones, then the new ones begin on the same data."""
    before = len(pond.calls())
    ids = pond.submit(admin, 200)
    wait_until(lambda: len(pond.calls()) - before > 50, what="some answers")

    ended = pond.down()
    between = len(pond.calls()) - before
    pond.up()
    pond.answered(admin, ids)

    assert ended == {
        "producer": [0],
        "worker": [0, 0],
        "scheduler": [0, 0],
        "simulator": [0],
        "valkey": [0],
    }
    assert 50 < between < 200
    calls = pond.calls()[before:]
    assert [call["status"] for call in calls] == [200] * 200
    assert len({call["body_sha256"] for call in calls}) == 200


def test_all_stop_within_their_grace(pond: Composed, admin: str) -> None:
    assert {code for codes in pond.down().values() for code in codes} == {0}


# ------------------------------------------------------------ data of another version


@dataclass(frozen=True)
class Newer:
    """Programs that were started on data of a version to come."""

    ended: Mapping[str, tuple[int | None, str]]


#: How long a program may take to say so, the machine being busy.
_SAYS_SO_S = 6


@pytest.fixture(scope="module")
def newer() -> Iterator[Newer]:
    """Producer, scheduler, worker and up on data of layout 3, as `m` says."""
    with composed() as one:
        one.start("valkey")
        wait_until(lambda: one.is_healthy("valkey"), what="the server")
        with Redis(port=one.port("6379")) as redis:
            redis.hset("mp:0:m", "layout", "3")
        folder = one.folder / "up"
        shutil.copytree(one.data("valkey"), folder / "server")
        started = {
            name: subprocess.Popen(
                one.command(name),
                env=one.environment(name),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in ("producer", "scheduler", "worker")
        }
        outside = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        ports = ("--port", "0", "--operator-port", "0")
        started["up"] = subprocess.Popen(
            [BIN / "millpond", "up", "--data-dir", folder, *ports],
            env=outside,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + _SAYS_SO_S
        ended: dict[str, tuple[int | None, str]] = {}
        for name, process in started.items():
            try:
                _, err = process.communicate(timeout=max(0.1, end - time.monotonic()))
                ended[name] = process.returncode, err
            except subprocess.TimeoutExpired:
                process.kill()
                ended[name] = None, process.communicate()[1]
        yield Newer(ended)


@pytest.mark.parametrize("name", ["producer", "scheduler", "worker", "up"])
def test_data_of_a_newer_version_is_refused(newer: Newer, name: str) -> None:
    code, err = newer.ended[name]

    assert "the server's data has layout 3, this program knows layout 2" in err
    assert code == 1


# ------------------------------------------------------------ the Dockerfile


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found = [line.split(None, 1) for line in lines.replace("\\\n", " ").splitlines() if line]
    return [(word, rest.strip()) for word, rest in found]


def last_stage() -> list[tuple[str, str]]:
    told = instructions()
    begins = max(i for i, (word, _) in enumerate(told) if word == "FROM")
    return told[begins:]


def test_a_container_is_nobody_special() -> None:
    users = [rest for word, rest in last_stage() if word == "USER"]
    compose = {
        one.get("user") for name, one in read_compose()["services"].items() if name != "valkey"
    }

    assert users == ["10001:10001"]
    assert compose == {"10001:10001"}


def test_what_a_container_runs_is_a_command() -> None:
    told = dict(last_stage())
    entry, command = json.loads(told["ENTRYPOINT"]), json.loads(told["CMD"])
    assert entry == ["millpond"]

    shown = subprocess.run(
        [BIN / "millpond", command[0], "--help"], capture_output=True, text=True, check=True
    )

    assert [word for word in command if word.startswith("--")] == ["--host", "--data-dir"]
    assert "--host" in shown.stdout
    assert "--data-dir" in shown.stdout


def test_what_is_copied_into_an_image_is_there_and_not_ignored() -> None:
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]

    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source.removeprefix('./')}" in kept


def test_what_is_installed_is_what_the_lock_file_names() -> None:
    runs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]

    assert len(runs) == 2
    assert "--require-hashes --only-binary :all: -r requirements.lock" in runs[0]
    assert "--no-deps --no-build-isolation ." in runs[1]
    assert not re.search(r"apt-get|curl|wget|https?://", (ROOT / "Dockerfile").read_text())


# ------------------------------------------------------------ systemd


def unit(path: Path) -> dict[str, list[str]]:
    """A unit's settings. (A name may come several times.)"""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def as_here(path: Path, folder: Path) -> Path:
    """A unit with programs that are where this machine has them."""
    text = path.read_text().replace("/opt/millpond/bin", str(BIN))
    text = text.replace("/usr/bin/valkey-server", find_server())
    here = folder / path.name.replace("@.", "@1.")
    here.write_text(text)
    return here


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    target = ROOT / "deploy" / "systemd" / "millpond.target"
    here = [as_here(path, tmp_path) for path in (*UNITS, target)]

    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *here], capture_output=True, text=True
    )

    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_what_a_unit_runs_is_a_command_with_its_options(path: Path) -> None:
    [start] = unit(path)["ExecStart"]
    program, *words = shlex.split(start)
    if program == "/usr/bin/valkey-server":
        composed = shlex.split(read_compose()["services"]["valkey"]["command"])
        theirs = dict(zip(words[::2], words[1::2], strict=True))
        ours = dict(zip(composed[1::2], composed[2::2], strict=True))
        same = ("--appendonly", "--appendfsync", "--save", "--maxmemory", "--maxmemory-policy")
        assert {name: theirs[name] for name in same} == {name: ours[name] for name in same}
        return

    assert program == "/opt/millpond/bin/millpond"
    shown = subprocess.run(
        [BIN / "millpond", words[0], "--help"], capture_output=True, text=True, check=True
    )
    assert [word for word in words if word.startswith("--") and word not in shown.stdout] == []


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_kept_going_and_shut_in(path: Path) -> None:
    told = unit(path)

    assert told["User"] == ["millpond"]
    assert told["Restart"] == ["always"]
    assert told["NoNewPrivileges"] == ["yes"]
    assert told["ProtectSystem"] == ["strict"]
    assert told["PrivateTmp"] == ["yes"]
    assert told["CapabilityBoundingSet"] == [""]
    assert told["SystemCallFilter"] == ["@system-service"]


@pytest.mark.parametrize("name", ["millpond-worker", "millpond-up"])
def test_a_unit_with_workers_lets_their_calls_finish(name: str) -> None:
    """And tells only the parent: a second SIGTERM would cut them."""
    told = unit(ROOT / "deploy" / "systemd" / f"{name}.service")
    [grace] = [v for v in told["Environment"] if v.startswith("MILLPOND_GRACE_MS=")]

    assert int(told["TimeoutStopSec"][0]) > int(grace.partition("=")[2]) / 1_000 + 10
    assert told["KillMode"] == ["mixed"]


def test_examples_name_settings_that_there_are() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    text = (ROOT / "deploy" / "millpond.env.example").read_text()

    named = set(re.findall(r"^(MILLPOND_\w+)=", text, re.MULTILINE))

    assert named
    assert named <= known


# ------------------------------------------------------------ docs/deploy.md


def settings_table() -> str:
    """The rows of docs/deploy.md on settings, as the settings describe themselves."""
    rows = ["| setting | without it | what it is |", "|---|---|---|"]
    for name, told in Settings.model_fields.items():
        default = told.get_default()
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if isinstance(default, bool):
            default = str(default).lower()
        shown = "" if default in (None, "") else f"`{default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {shown} | {told.description} |")
    return "\n".join(rows)


def test_the_page_lists_every_setting_as_it_describes_itself() -> None:
    """`python tests/flow/test_deploy.py` prints the rows."""
    assert settings_table() in (ROOT / "docs" / "deploy.md").read_text()


def test_the_page_names_the_headers_of_proxies_that_are_read() -> None:
    source = (ROOT / "producer" / "http" / "address.py").read_text()
    read = set(re.findall(r"\"(X-Forwarded-\w+)\"", source))
    row = next(row for row in settings_table().splitlines() if "TRUSTED_PROXIES" in row)

    assert read == {"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Prefix"}
    assert set(re.findall(r"X-Forwarded-[\w*]+", row)) == read


def test_commands_of_the_page_are_there() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text()
    blocks = "\n".join(re.findall(r"```.*?```", text, re.DOTALL))
    commands = set(re.findall(r"(?<!-[gotu] )\bmillpond ([a-z][a-z-]+)", blocks))
    shown = subprocess.run([BIN / "millpond", "--help"], capture_output=True, text=True).stdout

    assert commands == {"up", "explain", "operator-key", "key", "restored"}
    for command in commands:
        assert re.search(rf"^  {command}\s", shown, re.MULTILINE), command


if __name__ == "__main__":
    print(settings_table())

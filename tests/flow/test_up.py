"""`millpond up` again on the same folder: what was changed since stays as it was left."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from millpond.domain.account import Role
from millpond.domain.job import Endpoint
from millpond.domain.limit import LIMITED
from millpond.errors import Refused
from millpond.providers.profile import ProviderName
from millpond.run.folder import DataFolder
from millpond.run.seeds import ORG, USER, Seeds, master_key_of, seed
from millpond.run.up import SAID_OTHERWISE, Up, UpOptions, handed_on, tell
from millpond.settings import Settings, read_settings
from millpond.store.access import Terms
from millpond.store.api_keys import ApiKeys
from millpond.store.directory import Directory, UnknownUser
from millpond.store.purge import Purge
from millpond.store.store import Store
from millpond.store.vault import Vault
from rig import simulator

TERMS = Terms("limited", 500_000, LIMITED)


async def secret_of(store: Store, folder: Path) -> str | None:
    """The org's key at the provider."""
    masters = master_key_of(folder)
    record = await Vault(store.gateway, masters).find(ORG)
    if record is None or record.sealed is None:
        return None
    return masters.open(ORG, record.sealed)


async def test_the_seeds_of_a_folder_stay_the_same(store: Store, tmp_path: Path) -> None:
    first = await seed(store, tmp_path, TERMS, None)
    again = await seed(store, tmp_path, TERMS, None)

    assert first == again
    assert (first.org, first.user) == (ORG, USER)
    assert await secret_of(store, tmp_path) == "simulated-demo"


async def test_a_provider_key_stays_unless_one_is_given(store: Store, tmp_path: Path) -> None:
    await seed(store, tmp_path, TERMS, None)
    vault = Vault(store.gateway, master_key_of(tmp_path))
    await vault.keep(ORG, "set by an admin", by="t")

    await seed(store, tmp_path, TERMS, None)
    assert await secret_of(store, tmp_path) == "set by an admin"
    await seed(store, tmp_path, TERMS, "given to up")
    assert await secret_of(store, tmp_path) == "given to up"
    await vault.remove(ORG, by="t")
    await seed(store, tmp_path, TERMS, None)
    assert await secret_of(store, tmp_path) is None


@pytest.mark.parametrize("how", ["suspended", "removed"])
async def test_a_user_who_has_gone_is_not_made_again(
    store: Store, tmp_path: Path, how: str
) -> None:
    first = await seed(store, tmp_path, TERMS, None)
    directory = Directory(store)
    await directory.create_user(ORG, "other", "Other", Role.ADMIN, by="t")
    leave = directory.suspend_user if how == "suspended" else directory.remove_user
    await leave(ORG, USER, by="t")

    again = await seed(store, tmp_path, TERMS, None)

    assert (again.api_key, again.operator_key) == ("", first.operator_key)
    if how == "removed":
        with pytest.raises(UnknownUser):
            await directory.user(ORG, USER)
        return
    assert (await directory.user(ORG, USER)).suspended
    await directory.lift_user(ORG, USER, by="t")
    lifted = await seed(store, tmp_path, TERMS, None)
    assert await ApiKeys(store.gateway, master_key_of(tmp_path)).check(lifted.api_key)


async def test_an_org_that_was_erased_is_not_made_again(store: Store, tmp_path: Path) -> None:
    first = await seed(store, tmp_path, TERMS, None)
    while not (await Purge(store).step(ORG, "t", "asked to")).done:
        pass

    again = await seed(store, tmp_path, TERMS, None)

    assert (again.api_key, again.operator_key) == ("", first.operator_key)
    assert (await Directory(store).orgs()).entries == ()


async def test_a_start_that_was_cut_off_is_finished_by_the_next(
    redis: Redis, store: Store, tmp_path: Path
) -> None:
    await Directory(store).create_org(ORG, "Demo", limits=LIMITED, quota=1, pool="http", by="t")

    seeds = await seed(store, tmp_path, TERMS, None)

    assert seeds.api_key
    assert (await Directory(store).user(ORG, USER)).role is Role.ADMIN


async def test_an_org_is_not_made_without_limits_for_each_endpoint(
    store: Store, tmp_path: Path
) -> None:
    terms = Terms("limited", None, {Endpoint.GENERATE: LIMITED[Endpoint.GENERATE]})

    with pytest.raises(Refused, match="embed, classify: name them with --limits 'embed=60/60s;cl"):
        await seed(store, tmp_path, terms, None)

    assert (await Directory(store).orgs()).entries == ()


# ---- the program


def command(*options: str | Path) -> list[str]:
    return [sys.executable, "-m", "millpond", *map(str, options)]


@contextmanager
def going_up(folder: Path, *options: str, **settings: str) -> Iterator[dict[str, Any]]:
    """What it told. `settings` are of its environment; what people are told is in `told`."""
    with (folder.parent / "told").open("a") as told:
        process = subprocess.Popen(
            command(
                *("up", "--json", "--data-dir", folder, "--port", "0", "--operator-port", "0"),
                *options,
            ),
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            umask=0o022,
            env={**os.environ, **settings},
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder.parent / "told").read_text()
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def ask(told: dict[str, Any], method: str, path: str, body: Any = None, *, key: str = "") -> Any:
    """Of the API for users."""
    request = urllib.request.Request(
        told["url"] + path,
        None if body is None else json.dumps(body).encode(),
        {
            "Authorization": f"Bearer {key or told['api_key']}",
            "Content-Type": "application/json",
        },
        method=method,
    )
    with urllib.request.urlopen(request, timeout=40) as reply:
        text = reply.read()
        return json.loads(text) if text else None


@pytest.mark.slow
async def test_it_comes_up_without_its_user_and_nobody_else_reads_its_files(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    (folder / "log").touch(mode=0o644)
    with going_up(folder) as first:
        job = ask(first, "POST", "/v1/jobs", {"endpoint": "generate", "prompt": "x"})
        ended = await asyncio.to_thread(ask, first, "GET", f"/v1/jobs/{job['id']}?wait=30")
        ask(first, "POST", "/v1/users", {"id": "other", "name": "O", "role": "admin"})
        other = ask(first, "POST", "/v1/keys", {"name": "of other", "user": "other"})["key"]
        ask(first, "PATCH", "/v1/users/you", {"suspended": True}, key=other)
    with going_up(folder) as again:
        me = ask(again, "GET", "/v1/users/me", key=other)

    assert ended["state"] == "succeeded"
    assert (again["api_key"], again["admin_key"]) == (None, first["admin_key"])
    assert me["id"] == "other"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    open_ = {
        str(path.relative_to(folder)): oct(path.stat().st_mode)
        for path in folder.rglob("*")
        if path.stat().st_mode & 0o077
    }
    assert open_ == {}
    assert {"log", "simulator.jsonl", "credentials.json"} <= {one.name for one in folder.iterdir()}


@pytest.mark.slow
async def test_with_a_prefix_it_is_asked_where_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with going_up(folder, MILLPOND_PATH_PREFIX="/mp") as told:
        health = ask(told, "GET", "/healthz")
        job = ask(told, "POST", "/v1/jobs", {"endpoint": "generate", "prompt": "x"})
        ended = ask(told, "GET", f"/v1/jobs/{job['id']}?wait=30")
        operators = {"url": told["admin_url"]}
        orgs = ask(operators, "GET", "/v1/orgs", key=told["admin_key"])
        asked = await asyncio.to_thread(
            subprocess.run,
            command("generate", "Name a river.", "--data-dir", folder),
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert told["url"].endswith("/mp")
    assert health == {"status": "ok"}
    assert ended["state"] == "succeeded"
    assert [org["id"] for org in orgs["data"]] == [ORG]
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip()


@pytest.mark.slow
async def test_a_provider_whose_limits_nobody_knows_is_given_some(tmp_path: Path) -> None:
    limits = "generate=7/60s;embed=8/60s,900/1d;classify=2@once"
    with simulator(tmp_path) as provider:
        asked = ("--provider", "openai", "--base-url", provider.url + "/v1")
        with going_up(
            tmp_path / "data",
            *(*asked, "--limits", limits, "--quota", "123456"),
            OPENAI_API_KEY="sk-x",
        ) as told:
            operators = {"url": told["admin_url"]}
            org = ask(operators, "GET", f"/v1/orgs/{ORG}", key=told["admin_key"])
            body = {"endpoint": "generate", "prompt": "x", "model": "m", "params": {}}
            job = ask(told, "POST", "/v1/jobs", body)
            ended = ask(told, "GET", f"/v1/jobs/{job['id']}?wait=30")
        with going_up(tmp_path / "data", *asked, "--quota", "none", OPENAI_API_KEY="sk-x") as told:
            operators = {"url": told["admin_url"]}
            later = ask(operators, "GET", f"/v1/orgs/{ORG}", key=told["admin_key"])

    assert org["limits"] == {"generate": "7/60s", "embed": "8/60s,900/1d", "classify": "2@once"}
    assert org["quota"] == later["quota"] == 123_456
    assert ended["state"] == "succeeded"
    assert "--limits and --quota are for a new one" in (tmp_path / "told").read_text()


def refused(*options: str | Path) -> tuple[int, str]:
    """How an `up` ends that cannot begin, and the last line it writes."""
    ended = subprocess.run(command("up", *options), capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "named"),
    [("--port", "--host and --port"), ("--operator-port", "--operator-port")],
)
def test_a_port_that_is_taken_is_told_with_its_option(
    tmp_path: Path, option: str, named: str
) -> None:
    ports = {"--port": "0", "--operator-port": "0"}
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = ports[option] = str(other.getsockname()[1])
        code, told = refused(
            *("--data-dir", tmp_path / "data"), *(part for one in ports.items() for part in one)
        )

    assert code == 1
    assert told == (
        f"millpond: the producer ended at its start: cannot listen at 127.0.0.1:{port}: "
        f"address already in use; name another with {named}"
    )


def test_a_folder_in_use_is_told_in_words_that_fit_up(tmp_path: Path) -> None:
    with DataFolder(tmp_path):
        code, told = refused("--data-dir", tmp_path)

    assert code == 1
    assert told == (
        f"millpond: another millpond is at work in {tmp_path}; stop it, or give this one a folder "
        "of its own with --data-dir, and ports with --port and --operator-port"
    )


# ---- what people are told

SEEDS = Seeds(ORG, USER, "mpk_of_you", "mpo_of_olga")
LISTENS = {"url": "http://127.0.0.1:8080", "operator_url": "http://127.0.0.1:8081"}


def test_keys_are_shown_to_somebody_at_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tell(Path("data"), SEEDS, LISTENS, as_json=False)
    told = capsys.readouterr().err

    assert told.count("mpk_of_you") == 2
    assert "mpo_of_olga" in told


def test_keys_do_not_get_into_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Path("data"), SEEDS, LISTENS, as_json=False)
    told = capsys.readouterr()

    assert "mpk_" not in told.err
    assert "mpo_" not in told.err
    assert "api_key in data/credentials.json" in told.err
    assert "operator_key in data/credentials.json" in told.err
    assert "Bearer KEY" in told.err
    assert told.out == ""


def test_who_asks_for_json_is_told_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Path("data"), SEEDS, LISTENS, as_json=True)
    told = capsys.readouterr()

    assert json.loads(told.out)["api_key"] == "mpk_of_you"
    assert told.err == ""


# ---- settings

#: A value for each that is no default.
SET: dict[str, Any] = {
    "ephemeral": True,
    "partition": "p7",
    "log_level": "INFO",
    "queue_url": "redis://q",
    "timeout_ms": 7_000,
    "lease_ms": 7_001,
    "models": Path("/models.toml"),
    "path_prefix": "/mp",
    "trusted_proxies": "10.0.0.0/8",
    "connections_per_address": 7,
    "waiting_bytes": 2**21,
    "waiting_bytes_per_org": 2**22,
    "kept_bytes": 2**23,
    "kept_bytes_per_org": 2**24,
    "drain_most_s": 70,
    "keep_answers_s": 71,
    "keep_ledger_s": 72,
    "keep_audit_s": 73,
    "grace_ms": 74,
}


def test_each_setting_is_handed_on_or_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(SET) | set(SAID_OTHERWISE) == set(Settings.model_fields)
    assert not set(SET) & set(SAID_OTHERWISE)

    monkeypatch.setattr("os.environ", handed_on(Settings(**SET)))
    got = read_settings()

    for name, value in SET.items():
        assert getattr(got, name) == value != Settings.model_fields[name].get_default(), name


async def test_every_child_is_given_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Mapping[str, str]] = {}

    async def start(command: list[str], _: Path, settings: Mapping[str, str]) -> None:
        given[command[3]] = settings
        (tmp_path / "producer.ready").write_text("{}")

    monkeypatch.setattr("millpond.run.up.start_logged", start)
    settings = Settings(**SET)
    options = UpOptions(
        data_dir=tmp_path,
        host="127.0.0.1",
        port=0,
        operator_port=0,
        provider=ProviderName.SIMULATOR,
        base_url=None,
        key=None,
        terms=TERMS,
        terms_named=False,
        workers=1,
        slots=1,
        as_json=True,
    )
    up = Up(options, settings, DataFolder(tmp_path))
    await up._start("scheduler")(0)
    await up._start("worker", up._worker())(0)
    await up._start_producer(0)

    assert set(given) == {"scheduler", "worker", "producer"}
    for of_child in given.values():
        assert of_child.items() >= handed_on(settings).items()

"""The service's command line without a service: what is refused, which service is meant, what is
masked, and how things are told."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

from millpond import cli_doctor as doctor
from millpond.cli import app
from millpond.cli_config import read, unknown
from millpond.cli_service import (
    VARIABLES,
    NoKey,
    NoService,
    Place,
    Side,
    exit_code,
    find,
    path_of,
    told_here,
)
from millpond.cli_tell import plain, table
from millpond.client.errors import ConnectionFailed, JobTimeout, api_error
from millpond.settings import Settings, read_settings

DOC = Path(__file__).parents[2] / "docs" / "cli.md"
USER, OPERATOR = "mpk_aaaaaaaaaaaa_of_the_folder", "mpo_aaaaaaaaaaaa_of_the_folder"
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str, columns: int = 200, stdin: str = "") -> Result:
    env = {"COLUMNS": str(columns), "TERMINAL_WIDTH": str(columns)}
    return CliRunner().invoke(app, arguments, env=env, input=stdin)


@contextmanager
def up(folder: Path, url: str = "http://127.0.0.1:9", *, mode: int = 0o600) -> Iterator[Path]:
    """What a `millpond up` that is alive has in its folder."""
    place = folder / ".millpond/up"
    place.mkdir(parents=True, exist_ok=True)
    credentials = {"org": "o", "user": "u", "api_key": USER, "operator_key": OPERATOR}
    (place / "credentials.json").write_text(json.dumps(credentials))
    (place / "credentials.json").chmod(mode)
    ready = {"url": url, "operator_url": url.replace(":9", ":10")}
    (place / "producer.ready").write_text(json.dumps(ready))
    with (place / "lock").open("a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield place


def told(place: Place) -> tuple[str, str]:
    access = find(place)
    return access.url, access.key


# ------------------------------------------------------------ which service


def test_a_running_up_of_the_folder_is_asked_with_its_own_keys(folder: Path) -> None:
    with up(folder):
        assert told(Place()) == ("http://127.0.0.1:9", USER)
        assert told(Place(side=Side.OPERATOR)) == ("http://127.0.0.1:10", OPERATOR)


def test_what_one_that_has_ended_left_behind_is_not_believed(folder: Path) -> None:
    with up(folder):
        pass

    with pytest.raises(NoService, match=r"no `millpond up` runs in \.millpond/up.*MILLPOND_URL"):
        find(Place())


def test_options_go_before_variables_and_variables_before_the_folder(
    folder: Path, monkeypatch: Patch
) -> None:
    (folder / "key").write_text("mpk_of_a_file\n")
    monkeypatch.setenv("MILLPOND_URL", "http://named:80/")
    monkeypatch.setenv("MILLPOND_API_KEY", "mpk_named")
    with up(folder) as place:
        assert told(Place()) == ("http://named:80", "mpk_named")
        assert told(Place("http://b")) == ("http://b", "mpk_named")
        assert told(Place(key_file=Path("key"))) == ("http://named:80", "mpk_of_a_file")
        assert told(Place(data_dir=place)) == ("http://127.0.0.1:9", USER)
        monkeypatch.delenv("MILLPOND_URL")
        assert told(Place()) == ("http://127.0.0.1:9", "mpk_named")


def test_a_key_is_not_sent_where_an_unpacked_folder_says(folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("MILLPOND_API_KEY", "mpk_named")
    with up(folder, "http://elsewhere:9"), pytest.raises(NoService, match="name it with --url"):
        find(Place())


@pytest.mark.parametrize(
    "text", ["sk-of-the-provider", "mpo_of_an_operator", "mpk_a mpk_b", "mpk_ü"]
)
def test_what_is_no_key_of_ours_goes_nowhere_and_is_not_shown(
    monkeypatch: Patch, text: str
) -> None:
    monkeypatch.setenv("MILLPOND_URL", "http://named")
    monkeypatch.setenv("MILLPOND_API_KEY", text)

    result = invoke("usage")

    assert (result.exit_code, result.stdout) == (77, "")
    assert "MILLPOND_API_KEY holds no key of a millpond's user" in result.stderr
    assert text not in result.stderr


def test_credentials_that_others_can_read_are_refused(folder: Path) -> None:
    with up(folder, mode=0o640), pytest.raises(NoKey, match="chmod 600"):
        find(Place())


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (["generate", "x"], "MILLPOND_URL and MILLPOND_API_KEY"),
        (["jobs", "list"], "MILLPOND_URL and MILLPOND_API_KEY"),
        (["events", "--follow"], "MILLPOND_URL and MILLPOND_API_KEY"),
        (["audit", "--own"], "MILLPOND_URL and MILLPOND_API_KEY"),
        (["audit", "--org", "a"], "MILLPOND_OPERATOR_URL and MILLPOND_OPERATOR_KEY"),
        (["desk", "list"], "MILLPOND_OPERATOR_URL and MILLPOND_OPERATOR_KEY"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_without_a_service_the_way_out_is_told(command: list[str], variables: str) -> None:
    result = invoke(*command)

    assert (result.exit_code, result.stdout) == (69, "")
    assert f"set {variables}" in result.stderr


@pytest.mark.parametrize(
    "named", [["--url", "http://127.0.0.1:1"], "MILLPOND_URL", "millpond up"], ids=str
)
def test_a_job_of_the_service_is_explained_by_the_service_that_is_meant(
    folder: Path, monkeypatch: Patch, named: Any
) -> None:
    """(Nobody is there, so it is told who was asked.)"""
    monkeypatch.setenv("MILLPOND_API_KEY", USER)
    options = named if isinstance(named, list) else []
    if named == "MILLPOND_URL":
        monkeypatch.setenv("MILLPOND_URL", "http://127.0.0.1:1")
    with up(folder, "http://127.0.0.1:1") if named == "millpond up" else nullcontext():
        result = invoke("explain", "job_01", *options)
        of_a_run = invoke("explain", "r1.5")

    assert (result.exit_code, result.stdout) == (69, "")
    assert result.stderr.startswith("millpond: http://127.0.0.1:1 cannot be reached")
    assert of_a_run.stderr.startswith("millpond: no run is alive here (.millpond)")
    assert "jobs explain" not in of_a_run.stderr


def test_where_no_service_is_meant_a_jobs_explanation_says_how_it_is_asked() -> None:
    result = invoke("explain", "job_01")

    assert (result.exit_code, result.stdout) == (69, "")
    assert "no run is alive here (.millpond)" in result.stderr
    assert "a job of the service: millpond jobs explain job_01, with MILLPOND_URL" in result.stderr


def test_a_service_that_is_not_there_is_69(monkeypatch: Patch) -> None:
    monkeypatch.setenv("MILLPOND_API_KEY", "mpk_x")

    result = invoke("usage", "--url", "http://127.0.0.1:1")

    assert result.exit_code == 69
    assert "http://127.0.0.1:1 cannot be reached" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (api_error(401, {}, reason="", request_id=None, retry_after_s=None), 77),
        (api_error(403, {}, reason="", request_id=None, retry_after_s=None), 77),
        (api_error(429, {}, reason="", request_id=None, retry_after_s=1.0), 75),
        (api_error(503, {}, reason="", request_id=None, retry_after_s=None), 69),
        (api_error(422, {}, reason="", request_id=None, retry_after_s=None), 1),
        (api_error(500, {}, reason="", request_id=None, retry_after_s=None), 1),
        (ConnectionFailed("x"), 69),
        (JobTimeout(["j"], 1.0), 75),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_each_error_has_its_exit_code(error: Any, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("side", "names"),
    [
        (Side.USER, "set MILLPOND_API_KEY, or name a file that holds a good one with --api-key"),
        (
            Side.OPERATOR,
            "set MILLPOND_OPERATOR_KEY, or name a file that holds a good one with --op",
        ),
    ],
)
def test_a_key_that_is_refused_is_told_by_where_it_is_from(side: Side, names: str) -> None:
    told = {"code": "unauthorized", "title": "No valid key", "detail": "Send a key that holds: …"}
    error = api_error(401, told, reason="", request_id="r1", retry_after_s=None)

    text = told_here(error, side)

    assert names in text
    assert text.endswith("[401 unauthorized, request r1]")
    assert "Send" not in text


def test_names_in_paths_lead_nowhere_else() -> None:
    assert path_of("jobs", "../keys?x#y", "cancel") == "/v1/jobs/..%2Fkeys%3Fx%23y/cancel"


# ------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["generate"], "TEXT"),
        (["generate", ""], "there is nothing to ask"),
        (["generate", "-"], "there is nothing to ask"),
        (["generate", "x", "--param", "a"], "KEY=JSON"),
        (["generate", "x", "--timeout", "0"], "--timeout"),
        (["classify", "x"], "text and label"),
        (["classify", "x", "--examples", "none"], "there is no file"),
        (["jobs", "list", "--state", "done"], "--state"),
        (["jobs", "list", "--most", "0"], "--most"),
        (["users", "role", "anna", "operator"], "ROLE"),
        (["keys", "make", "x", "--expires-in", "soon"], "write 90s, 30m, 12h or 30d"),
        (["keys", "make", "x", "--expires-in", "0d"], "write 90s, 30m, 12h or 30d"),
        (["keys", "revoke", "mpk_abc_def"], "name the key by its id"),
        (["operators", "revoke", "mpo_abc_def"], "name the key by its id"),
        (["access", "apply", "--accept", "1", "--use-case", "x", "--risks", "x"], "--commit"),
        (["access", "apply", "--accept", "1", "--commit", "--risks", "x"], "--use-case-file FILE"),
        (["access", "apply", "--accept", "1", "--commit", "--use-case", "x"], "--risks-file FILE"),
        (["access", "answer", "-"], "is empty"),
        (["orgs", "suspend", "a"], "--why"),
        (["orgs", "make", "a", "--admin-name", "x"], "goes with --admin"),
        (["orgs", "make", "a", "--limits", "60/60s"], "'60/60s'"),
        (["orgs", "limits", "a"], "name what to change"),
        (["orgs", "limits", "a", "--weight", "anna"], "write USER=W"),
        (["orgs", "limits", "a", "--quota", "5k"], "a whole number of characters, or none"),
        (["orgs", "make-key", "a", "laptop"], "--user"),
        (["orgs", "make-key", "a", "k", "--user", "u", "--expires-in", "x"], "write 90s, 30m"),
        (["orgs", "purge", "a", "--confirm", "a"], "--why"),
        (["orgs", "purge", "a", "--why", "x"], "write --confirm a"),
        (["orgs", "purge", "a", "--why", "x", "--confirm", "b"], "'b' is not 'a': nothing was"),
        (["own", "add-model", "m"], "--base"),
        (["own", "cap-users"], "--limits"),
        (["own", "cap-users", "--limits", "20/60s"], "'20/60s': write ENDPOINT="),
        (["own", "cap-users", "--limits", "embed=1/1s;embed=none"], "each endpoint once"),
        (["own", "set-key"], "there is no key on standard input"),
        (["own", "set-key", "--key-file", "none"], "none cannot be read"),
        (["own", "set-key", "sk-secret"], "millpond own set-key < FILE"),
        (["desk", "approve", "a", "--why", "x"], "not ticked: use_case_clear, risks_addressed"),
        (["desk", "approve", "a", "--why", "x", "--tick", "all"], "'all' is no item"),
        (["events", "--after", "1-0"], "goes with --follow"),
        (["events", "acme", "--follow"], "with --follow it is the key's"),
        (["audit", "acme", "--own"], "name one of ORG, --org"),
        (["audit", "--url", "http://x"], "goes with --org, --operators or --own"),
        (["completion", "csh"], "bash"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_told_before_anybody_is_asked(command: list[str], said: str) -> None:
    result = invoke(*command)

    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert said in " ".join(result.stderr.split())


def test_a_key_on_the_command_line_is_not_repeated() -> None:
    assert "secretpart" not in invoke("keys", "revoke", "mpk_abc_secretpart").output
    assert "secretpart" not in invoke("own", "set-key", "sk-secretpart").output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mpk_secretpart", "that is a key of a millpond, which no provider knows"),
        ("two secretparts", "it holds no key"),
        ("secretpart" * 51, "it holds no key"),
        ("", "it holds no key"),
    ],
)
def test_a_file_that_holds_no_providers_key_is_told_before_it_is_sent(
    folder: Path, text: str, said: str
) -> None:
    (folder / "key").write_text(text)

    result = invoke("own", "set-key", "--key-file", "key")

    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert "secretpart" not in result.output


# ------------------------------------------------------------ help, the page, completion


def commands(
    command: Any = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group."""
    command = get_command(app) if command is None else command
    yield path, command
    if isinstance(command, TyperGroup):
        for name, one in command.commands.items():
            yield from commands(one, (*path, name))


OURS = [
    *("generate", "embed", "classify", "jobs", "usage", "users", "keys", "access"),
    *("orgs", "desk", "operators", "config", "doctor", "completion", "events", "audit", "own"),
    "explain",
]


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_the_help_of_every_command_fits_80_columns(path: tuple[str, ...]) -> None:
    result = invoke(*path, "-h", columns=80)

    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []


def test_every_command_of_the_service_can_tell_json_and_takes_no_key_as_an_option() -> None:
    for path, command in commands():
        if path and path[0] in OURS and not isinstance(command, TyperGroup):
            options = {option for param in command.params for option in param.opts}
            assert "--json" in options or path[0] == "completion", path
            assert not {"--api-key", "--operator-key", "--key"} & options, path


def test_the_page_names_every_command_of_the_service_and_no_other() -> None:
    rows = [row.split("`")[1] for row in DOC.read_text().splitlines() if row.startswith("| `mill")]
    there = {" ".join(path) for path, one in commands() if not isinstance(one, TyperGroup)}
    named = set()
    for row in rows:
        words = row.split()[1:]
        name = " ".join(words[:2]) if " ".join(words[:2]) in there else words[0]
        assert name in there, row
        named.add(name)

    assert named == {name for name in there if name.split()[0] in OURS}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("millpond job", {"job", "jobs"}),
        ("millpond jobs re", {"retry"}),
        ("millpond keys make x --ex", {"--expires-in"}),
        ("millpond users role anna a", {"admin"}),
        ("millpond own se", {"set-key"}),
        ("millpond orgs pur", {"purge"}),
        ("millpond orgs purge acme --con", {"--confirm"}),
    ],
)
def test_bash_completes_commands_options_and_values(words: str, offered: set[str]) -> None:
    count = len(words.split()) - 1
    script = (
        'source <("$0" completion bash 2>/dev/null); PATH="$(dirname "$0"):$PATH"; '
        f"COMP_WORDS=({words}); COMP_CWORD={count}; "
        '_millpond_completion millpond; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    program = str(Path(sys.executable).parent / "millpond")
    done = subprocess.run(
        ["bash", "--norc", "-c", script, program], capture_output=True, text=True, timeout=30
    )

    assert set(done.stdout.split()) == offered, done.stderr


@pytest.mark.parametrize(("shell", "part"), [("zsh", "#compdef millpond"), ("fish", "complete")])
def test_other_shells_have_a_script(shell: str, part: str) -> None:
    result = invoke("completion", shell)

    assert result.exit_code == 0
    assert part in result.stdout


def test_the_command_line_loads_nothing_heavy_at_its_start() -> None:
    code = "import sys, millpond.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    mine = {"aiohttp", "arq", "millpond.client.transport", "rich.table"}
    assert mine & set(done.stdout.split()) == set()


# ------------------------------------------------------------ config


def test_every_setting_is_shown_with_where_it_is_from(monkeypatch: Patch) -> None:
    monkeypatch.setenv("MILLPOND_SLOTS", "7")

    rows = [json.loads(row) for row in invoke("config", "show", "--json").stdout.splitlines()]
    found = {row["name"]: row for row in rows}

    names = {f"MILLPOND_{name.upper()}" for name in Settings.model_fields} | set(VARIABLES)
    assert set(found) == names
    assert (found["MILLPOND_SLOTS"]["value"], found["MILLPOND_SLOTS"]["origin"]) == (
        "7",
        "environment",
    )
    assert found["MILLPOND_LEASE_MS"]["value"] == "30000"
    assert all(row["meaning"] for row in rows)


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("MILLPOND_REDIS_URL", "redis://:secret@db:6379/0", "redis://***@db:6379/0"),
        ("MILLPOND_REDIS_URL", "redis://anna:se@cret@db", "redis://***@db"),
        ("MILLPOND_REDIS_URL", "redis://db:6379?password=secret&x=1", "redis://db:6379?password=***&x=1"),
        ("MILLPOND_REDIS_URL", "redis://db:6379", "redis://db:6379"),
        ("MILLPOND_MASTER_KEY", "secret", "***"),
        ("MILLPOND_PROVIDER_KEY", "secret", "***"),
        ("MILLPOND_API_KEY", "mpk_secret", "***"),
        ("MILLPOND_OPERATOR_KEY", "mpo_secret", "***"),
        ("MILLPOND_URL", "http://x:80", "http://x:80"),
        ("MILLPOND_MISSPELT", "secret", "***"),
    ],
)  # fmt: skip
def test_secrets_are_masked(name: str, text: str, shown: str) -> None:
    [one] = [one for one in read({name: text}) if one.origin != "default"]

    assert (one.name, one.value) == (name, shown)


def test_a_value_that_cannot_be_used_and_a_name_that_is_none_end_with_1(monkeypatch: Patch) -> None:
    monkeypatch.setenv("MILLPOND_SLOTS", "many")
    monkeypatch.setenv("MILLPOND_SLOT", "7")

    result = invoke("config", "show")

    assert result.exit_code == 1
    assert "MILLPOND_SLOTS: Input should be a valid integer" in result.stderr
    assert "MILLPOND_SLOT: no such setting" in result.stderr


def test_variables_of_callers_stop_no_process(monkeypatch: Patch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "x")

    read_settings()
    assert unknown(os.environ) == []


# ------------------------------------------------------------ doctor


def test_an_old_python_fails() -> None:
    assert doctor.python((3, 10, 1)).state == "fail"
    assert doctor.python((3, 11, 0)).state == "ok"


@pytest.mark.parametrize(("free", "state"), [(5 * 2**30, "ok"), (2**29, "warn"), (2**20, "fail")])
def test_a_disk_that_is_nearly_full_is_told(monkeypatch: Patch, free: int, state: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("U", (), {"free": free}))

    assert doctor.disk(Path()).state == state


async def test_a_port_that_somebody_else_has_fails() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = await doctor.port("port", f"127.0.0.1:{other.getsockname()[1]}")
    assert taken.state == "fail"
    assert "MILLPOND_LISTEN" in taken.way_out
    assert (await doctor.port("port", "127.0.0.1:0")).state == "ok"


def test_a_master_key_that_others_can_read_fails(folder: Path) -> None:
    key = folder / "key"
    key.write_text("A" * 43 + "=\n")
    settings = Settings(master_key_file=key)

    key.chmod(0o644)
    assert doctor.master_key(settings, Place()).state == "fail"
    key.chmod(0o600)
    assert doctor.master_key(settings, Place()).state == "ok"
    assert doctor.master_key(Settings(), Place()).state == "warn"


async def test_a_named_server_is_looked_at_and_not_written_to(server_url: str) -> None:
    found = [check async for check in doctor.named(Settings(redis_url=server_url))]

    assert [(one.name, one.state) for one in found] == [
        ("server", "ok"),
        ("durable", "ok"),
        ("clock", "ok"),
        ("layout", "ok"),
    ]
    [gone] = [check async for check in doctor.named(Settings(redis_url="redis://127.0.0.1:1"))]
    assert (gone.name, gone.state) == ("server", "fail")


def test_a_doctor_that_finds_a_fault_ends_with_1(monkeypatch: Patch) -> None:
    monkeypatch.setenv("MILLPOND_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("MILLPOND_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("MILLPOND_OPERATOR_LISTEN", "127.0.0.1:0")

    result = invoke("doctor", "--json")

    found = {row["name"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert result.exit_code == 1
    assert found["server"]["state"] == "fail"
    assert found["service"]["state"] == "warn"
    assert all(row["way_out"] for row in found.values() if row["state"] != "ok")


# ------------------------------------------------------------ how it is told


def test_what_would_steer_a_terminal_does_not_reach_it() -> None:
    assert plain("a\x1b[31mb\x07\u202ec\td\n") == "a\ufffd[31mb\ufffd\ufffdc\td\n"


def test_a_table_has_its_columns_also_when_it_is_empty_and_a_row_is_a_line() -> None:
    assert list(table(("id", ">used"), [])) == ["ID  USED"]
    assert list(table(("id", ">used"), [["a\nb[red]", "1,000"], ["x" * 200, "2"]])) == [
        "ID" + " " * 200 + " USED",
        "a b[red]" + " " * 194 + "1,000",
        "x" * 200 + "      2",
    ]

"""What is refused on the command line: the option is named, what is wrong, and what would be right.

Nothing of it starts a server, and nothing is written.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

from millpond import __version__
from millpond.cli import app

Patch = pytest.MonkeyPatch


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """Where the command runs: a folder with one file, q.jsonl."""
    (tmp_path / "q.jsonl").write_text('{"prompt": "x"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


def refused(folder: Path, *arguments: str) -> str:
    """What a command tells that is refused as wrong usage, in one line."""
    result = invoke(*arguments)

    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert [path.name for path in folder.iterdir()] == ["q.jsonl"]
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--limits", "60/60s"], ["--limits", "'60/60s'", "generate=60/60s,50000/1d"]),
        (["--limits", "generate=x"], ["--limits", "'x' is no limit", "for example 60/60s"]),
        (["--limits", "generate=9words/1s"], ["--limits", "counts words", "inputs, characters"]),
        (["--limits", "generate=0/1s"], ["--limits", "'0/1s'", "1 to 1,000,000,000"]),
        (["--limits", ""], ["--limits", "no limit is named", "for example"]),
        (["--quota", "5k"], ["--quota", "'5k'", "a whole number of characters, or none"]),
        (["--quota", "-5"], ["--quota", "'-5'", "a whole number of characters, or none"]),
        (["--param", "temperature"], ["--param", "'temperature'", "KEY=JSON"]),
        (["--param", "=3"], ["--param", "'=3'", "KEY=JSON"]),
        (["--param", "stop=now"], ["--param", "no JSON", "--param 'stop=\"now\"'"]),
        (["--base-url", "localhost:80"], ["--base-url", "'localhost:80'", "http://HOST:PORT"]),
        (["--base-url", "ftp://host"], ["--base-url", "'ftp://host'", "http://HOST:PORT"]),
        (["--base-url", "http://"], ["--base-url", "'http://'", "http://HOST:PORT"]),
        (["--provider", "cohere"], ["cohere needs a key", "CO_API_KEY", "--api-key-file"]),
        (["--provider", "openai", "--model", "m"], ["openai needs a key", "OPENAI_API_KEY"]),
        (["--provider", "acme"], ["--provider", "'acme'", "cohere", "openai"]),
        (["--endpoint", "classify"], ["--examples", "text and label", "two of each label"]),
        (["--examples", "e.csv"], ["--examples", "only classify has examples"]),
        (["--api-key-file", "none"], ["--api-key-file", "none cannot be read", "No such file"]),
        # How a range is told differs from one version of typer to the next.
        (["--workers", "0"], ["--workers", "1"]),
        (["--workers", "65"], ["--workers", "64"]),
        (["--concurrency", "0"], ["--concurrency", "1"]),
        (["--sample", "0"], ["--sample", "1"]),
        (["--attempts", "0"], ["--attempts", "1"]),
        (["--timeout", "0"], ["--timeout", "0.1"]),
        (["--max-tokens", "0"], ["--max-tokens", "1"]),
        (["--mode", "half"], ["--mode", "'half'", "limited", "full"]),
        (["--format", "xml"], ["--format", "'xml'", "auto", "jsonl", "csv", "text", "openai"]),
        (["--endpoint", "chat"], ["--endpoint", "'chat'", "generate", "embed", "classify"]),
        (["--out", "q.jsonl"], ["--out", "q.jsonl is FILE already; name another file"]),
        (["--out", "a", "--errors", "./a"], ["--errors", "is --out already"]),
        (["--errors", "e", "--ledger", "e"], ["--ledger", "e is --errors already"]),
        (["--outt", "a"], ["No such option", "--outt", "--out"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_a_wrong_option_is_named_with_what_is_wrong_and_what_would_be_right(
    folder: Path, options: list[str], told: list[str]
) -> None:
    message = refused(folder, "run", "q.jsonl", *options)

    assert [part for part in told if part not in message] == []


@pytest.mark.parametrize(
    "text", ["mode=half", "full", "quota=", "quota=5k", "limits=60/60s", "concurrency=0", "a=b", ""]
)
def test_a_what_if_that_cannot_be_is_refused(folder: Path, text: str) -> None:
    assert "--what-if" in refused(folder, "run", "q.jsonl", "--dry-run", "--what-if", text)


def test_a_what_if_goes_with_a_dry_run(folder: Path) -> None:
    message = refused(folder, "run", "q.jsonl", "--what-if", "mode=full")

    assert "goes with --dry-run" in message


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["org", "set", "--quota", "5k"], "a whole number of characters, or none"),
        (["org", "set", "--mode", "full"], "--mode full --provider cohere"),
        (["org", "set", "--provider", "cohere"], "--mode full --provider cohere"),
        (["org", "set", "--weight", "anna"], "write USER=W"),
        (["org", "set", "--weight", "anna=0"], "0.001 to 1000"),
        (["org", "set", "--weight", "an na=1"], "is no name"),
        (["lane", "set", "a.embed", "--limits", "embed=5/1s"], "without it"),
        (["lane", "set", "a.embed", "--limits", "5"], "is no limit"),
        (["lane", "set", "a.embed", "--for-interactive", "5"], "is no limit"),
        (["lane", "set", "a.embed", "--pause", " "], "write why"),
        (["lane", "set", "a.embed", "--pause", "x", "--resume"], "goes without --resume"),
        (["lane", "set"], "LANE"),
        (["flow", "set"], "FLOW"),
        (["flow", "set", "r", "--weight", "0"], "--weight"),
        (["quota", "settle", "--used", "5"], "--why"),
        (["quota", "settle", "--why", "x"], "--call ID --characters N, or --used N"),
        (["quota", "settle", "--why", "x", "--call", "1"], "--call ID --characters N"),
        (["quota", "settle", "--why", "x", "--call", "1", "--used", "5"], "goes without --call"),
        (["quota", "settle", "--why", "", "--used", "5"], "write why"),
        (["quota", "enter", "--why", "x"], "--characters"),
        (["quota", "ledger", "--most", "0"], "--most"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_of_an_operator_is_refused(
    folder: Path, command: list[str], told: str
) -> None:
    assert told in refused(folder, *command).replace("│ │ ", "")


@pytest.mark.parametrize(
    "command",
    [
        ["explain"],
        ["explain", "r1"],
        ["events"],
        ["audit"],
        ["quota", "show"],
        ["quota", "ledger", "--verify"],
        ["quota", "unknown"],
        ["quota", "enter", "--characters", "5", "--why", "x"],
        ["org", "set", "--suspend"],
        ["lane", "set", "a.embed", "--paced"],
        ["flow", "set", "r1", "--pause"],
    ],
    ids=" ".join,
)
def test_without_a_run_and_a_server_an_operator_is_told_what_to_name(
    folder: Path, command: list[str]
) -> None:
    result = invoke(*command)

    assert (result.exit_code, result.stdout) == (69, "")
    assert "no run is alive here (.millpond); name a server" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["q.jsonl"]


def test_a_file_that_holds_no_key_is_refused_without_showing_it(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text("two words")

    message = refused(folder, "run", "q.jsonl", "--provider", "cohere", "--api-key-file", str(key))

    assert "--api-key-file" in message
    assert "is it the right file?" in message
    assert "two words" not in message


@pytest.mark.parametrize(
    ("examples", "told"),
    [
        ("text,label\nquack,duck\nmoo,cow\nmuh,cow\n", "line 2: at least 2 examples of each label"),
        ("text,label\nquack,duck\nquak,duck\n", "at least 2 labels are needed"),
        ("text\nquack\n", 'the example has no "label"'),
        (None, "there is no file"),
    ],
)
def test_examples_that_classify_cannot_learn_from_are_refused_with_what_is_wrong(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, examples: str | None, told: str
) -> None:
    path = tmp_path_factory.mktemp("examples") / "e.csv"
    if examples is not None:
        path.write_text(examples)

    message = refused(folder, "run", "q.jsonl", "--endpoint", "classify", "--examples", str(path))

    assert "--examples" in message
    assert told in message.replace("│ │ ", "")


def test_a_run_without_a_file_is_refused(folder: Path) -> None:
    assert "FILE" in refused(folder, "run")


def test_a_command_that_does_not_exist_is_refused(folder: Path) -> None:
    assert "No such command" in refused(folder, "walk")


def test_a_misspelt_setting_stops_the_program_and_the_known_ones_are_told(
    folder: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("MILLPOND_REDIS", "redis://localhost")

    message = refused(folder, "run", "q.jsonl")

    assert "MILLPOND_REDIS: no such setting" in message
    assert "MILLPOND_REDIS_URL" in message


@pytest.mark.parametrize("command", ["worker", "scheduler"])
def test_a_process_without_a_server_says_which_variable_it_needs(
    folder: Path, command: str
) -> None:
    assert "needs MILLPOND_REDIS_URL" in refused(folder, command)


def test_the_version_is_shown() -> None:
    result = invoke("--version")

    assert (result.exit_code, result.stdout) == (0, f"millpond {__version__}\n")


def test_help_names_every_option_of_a_run_with_its_default() -> None:
    result = invoke("run", "--help")

    assert result.exit_code == 0
    for option in (
        *("--format", "--template", "--endpoint", "--model", "--param", "--max-tokens"),
        *("--provider", "--base-url", "--api-key-file", "--mode", "--limits", "--quota"),
        *("--workers", "--concurrency", "--timeout", "--attempts", "--data-dir", "--out"),
        *("--errors", "--ledger", "--json", "--quiet", "--examples", "--sample", "--strict"),
        *("--dry-run", "--ephemeral"),
    ):
        assert option in result.stdout
    for default in ("256", "200", "120", "default: 5;", "FILE.answers.jsonl", ".millpond"):
        assert default in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["models"],
        ["config", "show"],
        ["limits", "--json"],
        ["completion", "bash"],
        ["run", "q.jsonl", "--dry-run", "--json"],
    ],
    ids=" ".join,
)
def test_output_that_nobody_reads_any_more_ends_without_a_word(
    folder: Path, words: list[str]
) -> None:
    """As `millpond … | head` has it, once head has seen enough."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as nobody:
        ended = subprocess.run(
            [sys.executable, "-m", "millpond", *words],
            cwd=folder,
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )

    assert ended.returncode == 141
    assert "Broken pipe" not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("words", [["run", "q.jsonl", "--mode", "boss"], ["limits", "--mode", "x"]])
def test_a_choice_that_is_none_is_refused_in_our_words(folder: Path, words: list[str]) -> None:
    told = refused(folder, *words)

    assert f"Invalid value for '--mode': '{words[-1]}' is not one of 'limited', 'full'" in told


#: Commands that print no data, or data that is no JSON, and why.
WITHOUT_JSON = {
    "demo": "a first look, for people; run --json tells the same of a file",
    "worker": "serves until it is told to stop; what it tells is its log",
    "scheduler": "serves until it is told to stop; what it tells is its log",
    "producer": "serves until it is told to stop; what it tells is its log",
    "simulator": "serves until it is told to stop; its report has --json",
    "local-model": "serves until it is told to stop",
    "alive": "tells by its exit code alone",
    "completion": "a script for a shell",
}


def test_every_command_that_prints_data_can_print_it_as_json() -> None:
    without = {
        " ".join(path)
        for path, command in every_command(get_command(app))
        if "--json" not in {option for param in command.params for option in param.opts}
    }

    assert without == set(WITHOUT_JSON)


def every_command(
    command: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Those that do something: of a group, only if it does something by itself."""
    if not isinstance(command, TyperGroup) or command.invoke_without_command:
        yield path, command
    if isinstance(command, TyperGroup):
        for name, one in command.commands.items():
            yield from every_command(one, (*path, name))


def test_the_limits_of_a_run_are_told_to_programs_by_the_same_keys_always(folder: Path) -> None:
    cohere = json.loads(invoke("limits", "--json").stdout)
    (folder / "key").write_text("sk-x")
    openai = invoke("limits", "--json", "--provider", "openai", "--api-key-file", "key")

    assert cohere == {
        "provider": "simulator",
        "mode": "limited",
        "endpoints": {
            "generate": {"limits": "60/60s,50000/1d", "from": "profile"},
            "embed": {"limits": "500/60s,100000/1d", "from": "profile"},
            "classify": {"limits": "500/60s,100000/1d", "from": "profile"},
        },
        "quota": 500_000,
    }
    unknown = {"limits": None, "from": None}
    assert json.loads(openai.stdout) == {
        "provider": "openai",
        "mode": "limited",
        "endpoints": {"generate": unknown, "embed": unknown, "classify": unknown},
        "quota": None,
    }
    assert invoke("limits").stdout.splitlines() == [
        "generate\t60/60s,50000/1d\tthe profile of simulator, limited access",
        "embed\t500/60s,100000/1d\tthe profile of simulator, limited access",
        "classify\t500/60s,100000/1d\tthe profile of simulator, limited access",
        "quota\t500,000 characters\tfor generate, in all",
    ]


def test_the_commands_of_a_group_name_the_org_in_one_way() -> None:
    """As an argument where they are about an org, else as --org."""
    ways = {group: way for group, way in ways_to_name_the_org() if group != "simulator"}

    assert {group for group, way in ways.items() if way == {"argument"}} == {"", "quota", "org"}
    assert {group for group, way in ways.items() if way == {"option"}} == {"key", "models", "dead"}
    assert {len(way) for way in ways.values()} == {0, 1}


def ways_to_name_the_org() -> Iterator[tuple[str, set[str]]]:
    """Of each group of commands, by the word before them; '' are those without one."""
    whole = get_command(app)
    assert isinstance(whole, TyperGroup)
    alone = []
    for name, command in whole.commands.items():
        if isinstance(command, TyperGroup):
            yield name, of_org(command, *command.commands.values())
        else:
            alone.append(command)
    yield "", of_org(*alone)


def of_org(*commands: Any) -> set[str]:
    return {
        param.param_type_name
        for command in commands
        for param in command.params
        if param.name == "org"
    }

"""The command line of the service, as a new user meets it: docs/cli.md is followed word by word."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from millpond.cli import app

DOC = Path(__file__).parents[2] / "docs" / "cli.md"
MILLPOND = str(Path(sys.executable).parent / "millpond")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which `millpond up` runs."""
    folder = tmp_path_factory.mktemp("home")
    with subprocess.Popen(
        [MILLPOND, "up", "--json", "--port", "0", "--operator-port", "0"],
        cwd=folder,
        env=clean(),
        stdout=subprocess.PIPE,
        text=True,
    ) as up:
        try:
            assert up.stdout is not None
            assert json.loads(up.stdout.readline())["org"] == "demo"
            yield folder
        finally:
            up.terminate()
            up.wait(timeout=60)


@pytest.fixture(autouse=True)
def _here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def clean() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith("MILLPOND_")}


def millpond(
    *arguments: str, code: int = 0, stdin: str = "", env: dict[str, str] | None = None
) -> Result:
    result = CliRunner().invoke(app, arguments, input=stdin, env=env)
    assert result.exit_code == code, result.output
    return result


# ------------------------------------------------------------ the page


def story() -> list[tuple[str, list[str]]]:
    """The commands of the page's story, each with the lines that it shows."""
    text = DOC.read_text().partition("## From nothing to full access")[2]
    blocks = text.partition("## Completion")[0].split("```")[1::2]
    steps: list[tuple[str, list[str]]] = []
    for line in "".join(blocks).replace("\\\n", " ").strip().splitlines():
        if not line:
            continue
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


#: What differs from one day or machine to the next.
VOLATILE = [
    (r"…", r".*"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", r"\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ"),
    (r"job_[0-9a-f]{32}", r"job_[0-9a-f]{32}"),
    (r"a4xy2j35wdy4", r"[a-z2-7]{12}"),
    (r"\b(?:[0-9a-f]{16}|[0-9a-f]{13})\b", r"[0-9a-f]{13,16}"),
    (r"2026-11-24", r"\\d{4}-\\d\\d-\\d\\d"),
    (r"\d+(\.\d+)+(:\d+)?", r"[\\d.:]+"),
]


def pattern(line: str) -> str:
    """A line of the page, as what it may be elsewhere."""
    mark = re.compile("|".join(f"(?P<v{n}>{one})" for n, (one, _) in enumerate(VOLATILE)))
    parts, at = [], 0
    for found in mark.finditer(line):
        assert found.lastgroup is not None
        name = next(n for n in range(len(VOLATILE)) if found[f"v{n}"] is not None)
        parts += [re.escape(line[at : found.start()]), VOLATILE[name][1].replace("\\\\", "\\")]
        at = found.end()
    parts.append(re.escape(line[at:]))
    return re.sub(r"(\\ ){2,}", r" +", "".join(parts))


def test_the_story_of_the_page_is_what_happens(home: Path) -> None:
    steps = story()
    assert len(steps) == 30
    Path("provider.key").write_text("sk-of-the-provider\n")
    for command, shown in steps:
        words = shlex.split(command)
        env = {"MILLPOND_LISTEN": "127.0.0.1:0", "MILLPOND_OPERATOR_LISTEN": "127.0.0.1:0"}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        if words[1] != "doctor" and words[1] != "config":
            env = {}
        result = millpond(*words[1:], env=env)
        told = (result.stderr + result.stdout).splitlines()
        missing = [
            line
            for line in shown
            if not any(re.fullmatch(pattern(line), one.rstrip()) for one in told)
        ]
        assert missing == [], (command, told)


# ------------------------------------------------------------ asking


def test_a_text_comes_from_stdin_and_the_job_goes_to_programs_as_json() -> None:
    result = millpond("generate", "-", "--json", "--param", "max_tokens=5", stdin="Hello\n")

    job = json.loads(result.stdout)
    assert (job["state"], job["result"]["characters"]["input"]) == ("succeeded", 5)
    assert result.stderr == ""
    assert json.loads(millpond("embed", "a text").stdout)[0] < 1
    Path("e.csv").write_text("text,label\nquack,duck\nquak,duck\nmoo,cow\nmuh,cow\n")
    assert millpond("classify", "moo", "--examples", "e.csv").stdout in {"duck\n", "cow\n"}


def test_a_job_is_listed_shown_explained_waited_for_and_deleted() -> None:
    made = json.loads(millpond("generate", "One more.", "--json").stdout)
    id = made["id"]

    rows = millpond("jobs", "list", "--json", "--search", id).stdout.splitlines()
    assert [json.loads(row)["id"] for row in rows] == [id]
    assert millpond("jobs", "list", "--state", "failed").stdout.split()[0] == "ID"
    assert f"job {id}: succeeded" in millpond("jobs", "show", id).stdout
    assert f"job {id}: succeeded" in millpond("jobs", "explain", id).stdout
    assert f"job {id}: succeeded" in millpond("explain", id).stdout
    assert millpond("jobs", "wait", id).stdout.strip() == made["result"]["text"].strip()
    assert "409" in millpond("jobs", "retry", id, code=1).stderr
    assert millpond("jobs", "cancel", id).stdout == f"{id}\tsucceeded\n"
    assert millpond("jobs", "delete", id).stdout == ""
    told = millpond("jobs", "show", id, code=1).stderr
    assert re.match(r"millpond: there is no job .* \[404 unknown_part, request \S+\]\n", told)


def test_what_waits_says_so_and_its_job_goes_on_or_is_cancelled_when_interrupted() -> None:
    millpond("orgs", "suspend", "demo", "--why", "a test")
    told = millpond("generate", "x", code=77).stderr
    assert "suspended" in told
    millpond("orgs", "lift", "demo", "--why", "over")
    time.sleep(1.1)  # the API believes an org's state for a second
    millpond("orgs", "limits", "demo", "--limits", "embed=1/1d", "--why", "to see one wait")
    CliRunner().invoke(app, ["embed", "x", "--timeout", "1.5"])  # now the window is full
    result = millpond("embed", "x", "--timeout", "1.5", code=75)
    assert re.search(r"queued: waits for 1/1d \(\d of 1 calls\), next at ", result.stderr)
    found = re.search(r"millpond jobs wait (job_\w+)", result.stderr)
    assert found
    assert millpond("jobs", "cancel", found[1]).stdout == f"{found[1]}\tcancelled\n"
    assert "was cancelled" in millpond("jobs", "wait", found[1], code=1).stderr
    new = millpond("jobs", "retry", found[1]).stdout.strip()
    millpond("jobs", "delete", new)

    with subprocess.Popen(
        [MILLPOND, "embed", "x"], env=clean(), stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stderr is not None
        assert "queued: waits for 1/1d" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        told = waiting.stderr.read()
        assert waiting.wait(timeout=20) == 130
    assert re.search(r"interrupted; job job_\w+ is cancelled", told)


def test_events_are_followed_until_interrupted() -> None:
    with subprocess.Popen(
        [MILLPOND, "events", "--follow", "--json", "--after", "0-0"],
        env=clean(),
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["event"] in {"job", "reset", "quota"}
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=20) == 130


# ------------------------------------------------------------ accounts


def test_a_users_own_key_works_until_it_is_revoked(tmp_path: Path) -> None:
    millpond("users", "add", "ben")
    key = millpond("keys", "make", "phone", "--user", "ben", "--expires-in", "12h").stdout
    (tmp_path / "key").write_text(key)
    ben = ("--api-key-file", str(tmp_path / "key"))

    assert re.fullmatch(r"mpk_[a-z2-7]{12}_\w+\n", key)
    assert millpond("keys", "list", *ben).stdout.count("\n") == 2
    assert "[403 forbidden" in millpond("users", "add", "carl", *ben, code=77).stderr
    assert millpond("users", "role", "ben", "admin").stdout == "user ben (ben): admin\n"
    assert "suspended" in millpond("users", "suspend", "ben", "--why", "away").stdout
    assert "suspended" not in millpond("users", "lift", "ben").stdout
    id = key.split("_")[1]
    assert millpond("keys", "revoke", id).stdout == ""
    assert "revoked" in millpond("keys", "list", "--user", "ben").stdout
    (tmp_path / "nobodys").write_text(key[:17] + "x" * (len(key) - 18))
    refused = millpond("usage", "--api-key-file", str(tmp_path / "nobodys"), code=77).stderr
    assert "set MILLPOND_API_KEY, or name a file that holds a good one" in refused
    assert "Bearer" not in refused
    removed = millpond("users", "remove", "ben", "--content", "--json").stdout
    assert json.loads(removed) == {"id": "ben", "removed": True, "erased": 0}


def test_an_org_applies_withdraws_is_rejected_and_goes_back(tmp_path: Path) -> None:
    key = millpond("orgs", "make", "acme", "--admin", "ann", "--quota", "900").stdout
    (tmp_path / "key").write_text(key)
    (tmp_path / "use").write_text("Letters.\nAnd more.\n")
    ann = ("--api-key-file", str(tmp_path / "key"))
    form = ("--accept", "2026-11", "--commit", "--use-case-file", str(tmp_path / "use"))

    assert "accepted by ann" in millpond("access", "accept", "2026-11", *ann).stdout
    assert "2026-11" in millpond("access", "accept", "1999", *ann, code=1).stderr
    assert "  1. " in millpond("access", "show", "--guidelines", *ann).stdout
    millpond("access", "apply", *form, "--risks", "None.", *ann)
    assert "withdrawn" in millpond("access", "withdraw", "--why", "too soon", *ann).stdout
    millpond("access", "apply", *form, "--risks", "Few.", *ann)
    assert "application 2 of acme: open" in millpond("desk", "show", "acme").stdout
    assert "withdrawn" in millpond("desk", "show", "acme", "--number", "1").stdout
    rejected = millpond("desk", "reject", "acme", "--why", "say more", "--tick", "use_case_clear")
    assert "rejected by operator you: say more" in rejected.stdout
    assert "before: application 1, withdrawn" in millpond("access", "show", *ann).stdout
    told = millpond("orgs", "limits", "acme", "--quota", "none", "--weight", "ann=2").stdout
    assert "no quota" in told
    assert "user ann: weight 2" in told
    told = millpond("orgs", "to-limited", "acme", "--why", "a test").stdout
    assert "of 500,000 characters" in told
    rows = millpond("orgs", "list", "--json").stdout.splitlines()
    assert [json.loads(row)["id"] for row in rows] == ["acme", "demo"]
    assert "ann" in millpond("audit", "--own", *ann).stdout
    assert "acme" not in millpond("desk", "list", "--asked").stdout


def test_an_operators_key_is_made_used_and_revoked(tmp_path: Path) -> None:
    key = millpond("operators", "make", "olga", "--why", "new here").stdout
    (tmp_path / "key").write_text(key)
    olga = ("--operator-key-file", str(tmp_path / "key"))

    assert key.startswith("mpo_")
    assert "olga" in millpond("operators", "list", *olga).stdout
    assert "olga" in millpond("audit", "--operators", *olga).stdout
    assert "is revoked" in millpond("operators", "revoke", key.split("_")[1]).stderr
    listed = millpond("operators", "list", "--json").stdout.splitlines()
    assert {json.loads(row)["name"]: json.loads(row)["state"] for row in listed} == {
        "olga": "revoked",
        "you": "good",
    }


def test_no_list_and_no_check_shows_a_key(home: Path) -> None:
    known = json.loads((home / ".millpond/up/credentials.json").read_text())
    told = "".join(
        millpond(*words.split()).output
        for words in ("keys list --json", "operators list --json", "config show", "access show")
    )
    told += CliRunner().invoke(app, ["doctor"]).output

    assert known["api_key"] not in told
    assert known["operator_key"] not in told


def test_a_folder_that_others_can_read_is_not_believed(home: Path) -> None:
    credentials = home / ".millpond/up/credentials.json"
    credentials.chmod(0o644)
    try:
        assert "chmod 600" in millpond("usage", code=77).stderr
    finally:
        credentials.chmod(0o600)


# ------------------------------------------------------------ what one's org has


def test_an_admin_looks_after_models_and_the_key_at_the_provider(tmp_path: Path) -> None:
    ann = ("--api-key-file", str(org_with_admin("corp", "ann", tmp_path)))
    millpond("users", "add", "mel", *ann)
    key = millpond("keys", "make", "k", "--user", "mel", *ann).stdout
    (tmp_path / "mel").write_text(key)
    mel = ("--api-key-file", str(tmp_path / "mel"))

    told = json.loads(millpond("own", "show", "--json", *mel).stdout)
    assert (told["user"]["id"], told["org"]["id"]) == ("mel", "corp")
    limits = json.loads(millpond("own", "limits", "--json", *mel).stdout)
    assert limits["endpoints"]["embed"]["limits"][0]["amount"] == 500
    capped = millpond("own", "cap-users", "--limits", "embed=7/60s;generate=none", *ann).stdout
    assert re.search(r"embed +7/60s per user +0 +7 +calls +now", capped)
    limits = json.loads(millpond("own", "limits", "--json", *mel).stdout)
    assert [one.get("scope") for one in limits["endpoints"]["embed"]["limits"]][-1] == "user"
    millpond("own", "cap-users", "--limits", "embed=none", "--why", "over", *ann)
    assert "per user" not in millpond("own", "limits", *mel).stdout

    added = json.loads(
        millpond("own", "add-model", "corp-1", "--base", "command", "--json", *ann).stdout
    )
    assert added == {"id": "corp-1", "base": "command"}
    refused = millpond("own", "add-model", "corp-2", "--base", "none", *ann, code=1)
    assert "there is no such model" in refused.stderr
    rows = millpond("own", "models", "--json", *mel).stdout.splitlines()
    assert json.loads(rows[-1])["id"] == "corp-1"
    removed = millpond("own", "remove-model", "corp-1", "--json", *ann).stdout
    assert json.loads(removed) == {"id": "corp-1", "removed": True}
    assert "[404" in millpond("own", "remove-model", "corp-1", *ann, code=1).stderr

    assert "tells of no key" in millpond("own", "key", *ann).stdout
    kept = json.loads(millpond("own", "set-key", "--json", *ann, stdin="sk-corp\n").stdout)
    told = json.loads(millpond("own", "key", "--json", *ann).stdout)
    assert told["change"]["fingerprint"] == kept["fingerprint"]
    assert told["paused"] == {}
    assert json.loads(millpond("own", "remove-key", "--json", *ann).stdout) == {"removed": True}
    assert "no key: removed by ann" in millpond("own", "key", *ann).stdout
    assert "has no key" in millpond("own", "remove-key", *ann, code=1).stderr
    for words in ("key", "remove-key", "remove-model corp-1", "cap-users --limits embed=none"):
        assert "[403 forbidden" in millpond("own", *words.split(), *mel, code=77).stderr


def test_calls_that_stand_still_for_want_of_a_key_go_on_with_a_new_one(tmp_path: Path) -> None:
    ann = ("--api-key-file", str(org_with_admin("dent", "ann", tmp_path)))
    millpond("own", "set-key", *ann, stdin="sk-dent-1\n")
    millpond("own", "remove-key", *ann)

    assert CliRunner().invoke(app, ["embed", "x", "--timeout", "8", *ann]).exit_code == 75
    assert "embed stands still: key: " in millpond("own", "key", *ann).stdout
    assert "embed waits for" in millpond("own", "limits", *ann).stderr
    told = millpond("own", "set-key", *ann, stdin="sk-dent-2\n").stdout
    assert "dent.embed goes on" in told
    assert json.loads(millpond("embed", "y", "--timeout", "30", *ann).stdout)


def test_operators_help_an_org_in_read_its_books_and_erase_it(tmp_path: Path) -> None:
    millpond("orgs", "make", "earl")
    user = json.loads(millpond("orgs", "add-user", "earl", "eve", "--json").stdout)
    assert (user["role"], user["by"]) == ("admin", "operator you")
    assert "409" in millpond("orgs", "add-user", "earl", "eve", code=1).stderr
    made = millpond("orgs", "make-key", "earl", "k", "--user", "eve", "--expires-in", "1h").stdout
    (tmp_path / "key").write_text(made)
    eve = ("--api-key-file", str(tmp_path / "key"))
    assert "404" in millpond("orgs", "make-key", "earl", "k", "--user", "nobody", code=1).stderr

    for prompt in ("One.", "Two."):
        millpond("generate", prompt, *eve)
    rows = [
        json.loads(row) for row in millpond("orgs", "ledger", "earl", "--json").stdout.splitlines()
    ]
    assert [row["outcome"] for row in rows] == ["known", "known"]
    assert rows[0]["used"] < rows[1]["used"]
    assert "404" in millpond("orgs", "ledger", "nobody", code=1).stderr

    assert "404" in millpond("orgs", "receipt", "earl", code=1).stderr
    purge = ("orgs", "purge", "earl", "--why", "they left")
    assert "--confirm earl" in " ".join(millpond(*purge, code=2).stderr.split())
    assert millpond("orgs", "show", "earl").stdout.startswith("org earl (earl): limited access\n")
    told = json.loads(millpond(*purge, "--confirm", "earl", "--json").stdout)
    assert told["erased"]["jobs"] == 2
    assert told["ended_at"]
    assert json.loads(millpond("orgs", "receipt", "earl", "--json").stdout) == told
    assert json.loads(millpond(*purge, "--confirm", "earl", "--json").stdout) == told
    assert "404" in millpond("orgs", "show", "earl", code=1).stderr
    # A key is believed for 5 s.
    assert CliRunner().invoke(app, ["own", "show", *eve]).exit_code in {1, 77}


def org_with_admin(org: str, user: str, folder: Path) -> Path:
    """Made by an operator; where its admin's key is."""
    place = folder / user
    place.write_text(millpond("orgs", "make", org, "--admin", user).stdout)
    return place

"""What holds for every script: its head, and that it leaves another layout's data alone."""

import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import pytest
from redis.asyncio import Redis

from conftest import PARTITION, TestTime
from millpond.domain.job import ARROWS, State
from millpond.errors import WrongLayout
from millpond.store.gateway import SCRIPTS, Argument, Gateway
from millpond.store.store import Store
from store.pond import PREFIX, Pond

FOLDER = resources.files("millpond.store") / "scripts"
TEXTS = {
    file.name.removesuffix(".lua"): file.read_text()
    for file in FOLDER.iterdir()
    if file.name.endswith(".lua")
}
LIBRARIES = {
    file.name.removesuffix(".lua"): file.read_text() for file in (FOLDER / "lib").iterdir()
}

_SUBMIT: list[Argument] = ["acme", "", "", 60, 1_000, 1_000, 1_000, 1_000]
_SUBMITTED: list[Argument] = ["j9", "f", 100, 0, 0, "", "note", "", 0, 0, "", "payload", "", ""]
#: Plausible arguments of each script.
ARGUMENTS: dict[str, Sequence[Argument]] = {
    "accept": ["f", "j2", 100, 0, 0, "", "note", 0, "", "payload"],
    "adjust": ["acme", "ann", "a typing error", "add", 100, ""],
    "apply": ["ann", "acme", "2026-11", "mail triage", "spam"],
    "cancel": ["j1"],
    "claim": ["w", 2, 10],
    "enlist": ["ann", "acme", "tuned", "command"],
    "explain": ["acme.generate", "", ""],
    "flushed": ["f", "9-9", 1],
    "forget": ["acme", 0, 200],
    "give_back": ["w", 1, "1"],
    "heartbeat": ["w", "acme", 10, 0, 30_000, 1],
    "hello": [""],
    "again": ["acme", "j1", "j9", 1_000, 1_000, 1_000, 1_000],
    "erase": ["acme", "j1"],
    "purge": [1_000, 200],
    "submit": [
        "acme",
        "",
        "",
        "60",
        "1000",
        "1000",
        "j9",
        "f",
        "100",
        "0",
        "0",
        "",
        "note",
        "0",
        "0",
        "",
        "payload",
    ],
    "leave": ["w", ""],
    "mend": ["0", 20],
    "identify": ["aaaaaaaaaaaa"],
    "look": ["f"],
    "mint": ["ann", "", "", "", "aaaaaaaaaaaa", "ops", "m1", "ab12", 0, 100, ""],
    "new_life": ["another run"],
    "pause": ["f", 0],
    "promote": [200],
    "raze": ["ops", "they asked for it", "acme", 200],
    "reap": [20, 1_000, "{}", "{}"],
    "release": [200],
    "replay": ["acme", "j1", "j9"],
    "review": ["ann", "acme", 1, "ask", "What for?", "", 100],
    "revoke": ["ann", "", "", "", "aaaaaaaaaaaa"],
    "seal": ["ann", "acme", "keep", "", "m1", "f1", "c2VhbGVk", '{"m1":"f1"}'],
    "set": ["ann", '{"org":{"id":"acme","quota":500}}', ""],
    "settle": [
        '{"id":"1","lane":"acme.generate","flow":"f","need":100,"need_tokens":0,"inputs":1,"bulk":1,'
        '"job_ids":"j1","since_ms":0,"credit_ms":0,"used":70,"tokens":null,"refused":false,'
        '"shut_ms":0,"trouble":false,"split":false,"pause":"","told":null,"said":null,"jobs":[]}'
    ],
    "used": ["aaaaaaaaaaaa", "ab12", "m2", "cd34"],
    "user": ["ann", "", "acme", "bob", "create", "member", "Bob", 10_000],
}


def head(text: str) -> list[str]:
    """The comment at the top of a script, without its first line and without the dashes."""
    lines: list[str] = []
    for line in text.splitlines()[1:]:
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").removeprefix(" "))
    return lines


def test_every_file_of_the_folder_is_loaded() -> None:
    assert set(TEXTS) == set(SCRIPTS)
    assert set(ARGUMENTS) == set(SCRIPTS)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_script_begins_with_its_shebang_and_its_name(name: str) -> None:
    first, second = TEXTS[name].splitlines()[:2]

    assert first in {"#!lua", "#!lua flags=allow-oom"}
    assert second.startswith(f"-- {name}: ")


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_the_head_of_a_script_is_its_contract(name: str) -> None:
    told = head(TEXTS[name])

    assert any(line.startswith("uses base") for line in told)
    assert any(re.match(r"ARGV +4 (\w+|\.\.\.)", line) for line in told)
    assert any(re.match(r"Replies +\{'\w+'", line) for line in told)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_every_word_that_a_script_replies_is_in_its_head(name: str) -> None:
    replied = set(re.findall(r"reply\('(\w+)'", TEXTS[name]))
    told = set(re.findall(r"\{'(\w+)'", "\n".join(head(TEXTS[name]))))

    assert replied == told


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_script_uses_libraries_that_exist(name: str) -> None:
    [uses] = [line for line in head(TEXTS[name]) if line.startswith("uses ")]

    assert set(uses.split()[1:]) <= set(LIBRARIES)


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_a_library_says_first_what_it_is_for(name: str) -> None:
    assert LIBRARIES[name].startswith(f"-- {name}: ")


def test_what_every_script_is_given_stands_in_the_base() -> None:
    told = "\n".join(head("\n" + LIBRARIES["base"]))

    assert re.search(r"^KEYS +1 prefix", told, re.MULTILINE)
    for number, argument in enumerate(("seen", "quiet_ms", "test_ms"), start=1):
        assert re.search(rf"^(ARGV)? +{number} {argument} ", told, re.MULTILINE)
    assert re.search(r"^Replies +\{now, life, word, ...\}", told, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(ARROWS))
def test_the_head_of_a_script_names_the_arrow_that_the_states_name(name: str) -> None:
    line = head(TEXTS[name])[0].removeprefix(f"{name}: ")
    before, after = re.sub(r"\([^)]*\)", "", line).split("->")

    assert states(before) == ARROWS[name][0]
    assert states(after) == ARROWS[name][1]


def states(text: str) -> frozenset[State]:
    return frozenset(State(word.strip()) for word in text.split("|"))


@pytest.mark.parametrize("name", sorted(SCRIPTS))
async def test_of_another_layout_a_script_changes_nothing_and_says_so(
    store: Store, redis: Redis, time: TestTime, name: str
) -> None:
    pond = Pond(store, redis, time)
    await pond.open()
    await pond.run("j1")
    await pond.accept("j2")
    await pond.release()
    await pond.command("HSET", f"{PREFIX}m", "layout", "3")
    time.advance(1_000)
    before = await whole(redis)

    with pytest.raises(WrongLayout) as refused:
        await Gateway(redis, PARTITION, time=time).run(name, *ARGUMENTS[name])

    assert "layout 3" in str(refused.value)
    assert "layout 2" in str(refused.value)
    assert await whole(redis) == before


async def whole(redis: Redis) -> dict[bytes, Any]:
    """Every key as the server would save it, the clock too."""
    return {key: await redis.dump(key) for key in sorted(await redis.keys("*"))}

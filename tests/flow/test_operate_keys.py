"""Provider keys and models, as operators handle them: real processes on a server of their own."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from rig import Ended, Rows, Simulator, prompts, read_rows, run, server, simulator, write_rows

DURABLE = ("--appendonly", "yes", "--maxmemory-policy", "noeviction")
CANARY = "co-canary-5b1f9e77"
OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
FILE, ANSWERS, ERRORS = "q.jsonl", "q.jsonl.answers.jsonl", "q.jsonl.errors.jsonl"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with simulator(tmp_path_factory.mktemp("provider"), "--limits", "none") as one:
        yield one


class Place:
    """A folder with a server of its own, and everything that was ever shown in it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.shown = ""

    def ask(self, *arguments: str | Path, stdin: str | None = None, **env: str) -> Ended:
        told = {"MILLPOND_REDIS_URL": self.url, "MILLPOND_LOG_LEVEL": "DEBUG", **env}
        ended = run(
            self.folder, *arguments, env=told, stdin=None if stdin is None else stdin.encode()
        )
        self.shown += ended.out + ended.err
        return ended

    def told(self, *arguments: str, **env: str) -> Rows:
        ended = self.ask(*arguments, "--json", **env)
        assert ended.code == 0, ended.err
        return [json.loads(line) for line in ended.out.splitlines()]

    def ask_provider(self, provider: Simulator, key: str, *options: str, file: str = FILE) -> Ended:
        """A run of one line, with a key of its own."""
        prompts(self.folder / file, 1)
        (self.folder / "key").write_text(key)
        where = ("--base-url", provider.url, "--api-key-file", "key", "--data-dir", f"data-{key}")
        return self.ask("run", file, *where, *options)

    def orgs(self) -> list[str]:
        return [org["id"] for org in self.told("explain")[0]["orgs"]]

    def everything(self) -> str:
        """All that the server holds, as text."""
        with Redis.from_url(self.url) as redis:
            read = {
                "string": lambda key: redis.get(key),
                "hash": lambda key: redis.hgetall(key),
                "list": lambda key: redis.lrange(key, 0, -1),
                "set": lambda key: redis.smembers(key),
                "zset": lambda key: redis.zrange(key, 0, -1),
                "stream": lambda key: redis.xrange(key),
            }
            return "".join(
                f"{key!r} {read[redis.type(key).decode()](key)!r}\n" for key in redis.keys("*")
            )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with server(*DURABLE) as url:
        yield Place(tmp_path, url)


@pytest.mark.slow
def test_a_key_is_set_listed_sealed_anew_and_removed_and_is_nowhere_in_clear(
    place: Place, provider: Simulator
) -> None:
    assert place.ask_provider(provider, "one").code == 0
    [one] = place.orgs()
    assert place.ask_provider(provider, "two", file="q2.jsonl").code == 0
    [two] = set(place.orgs()) - {one}
    with Redis.from_url(place.url) as redis:
        redis.hset(f"mp:0:l:{one}.generate", "paused", "key: invalid api token (401)")

    done = place.ask("key", "set", "--org", one, "--json", stdin=CANARY, MILLPOND_MASTER_KEY=OLD)
    assert done.code == 0, done.err
    taken = place.ask("key", "set", "--org", two, stdin=CANARY, MILLPOND_MASTER_KEY=OLD)
    hidden = place.ask("key", "set", "--org", two, stdin=CANARY, MILLPOND_MASTER_KEY=NEW)
    no_master = place.ask("key", "set", "--org", two, stdin=CANARY)
    [listed] = place.told("key", "list", MILLPOND_MASTER_KEY=OLD)
    [elsewhere] = place.told("key", "list", MILLPOND_MASTER_KEY=NEW)
    lost = place.ask("key", "rotate", "--json", MILLPOND_MASTER_KEY=NEW)
    [rotated] = place.told("key", "rotate", MILLPOND_MASTER_KEY=f"{NEW},{OLD}")
    [again] = place.told("key", "rotate", MILLPOND_MASTER_KEY=NEW)
    audit = place.told("audit", one)
    events = place.told("events", one)
    for command in (("key", "list"), ("audit", one), ("events", one), ("explain", one)):
        assert place.ask(*command).code == 0
    kept = place.everything()
    [removed] = place.told("key", "remove", "--org", one)
    [gone] = place.told("key", "list")

    set_ = json.loads(done.out)
    assert set_["resumed"] == [f"{one}.generate"]
    assert (listed["org"], listed["state"], listed["opens"]) == (one, "set", True)
    assert listed["fingerprint"] == set_["fingerprint"]
    assert listed["master"] == set_["master"] != rotated["master"]
    assert listed["at"]["in_s"] <= 0
    assert elsewhere["opens"] is False
    for refusal, told in ((taken, f"org {one} has this key"), (hidden, listed["master"])):
        assert (refusal.code, told in refusal.err) == (2, True), refusal.err
    assert "MILLPOND_MASTER_KEY" in no_master.err
    assert (lost.code, json.loads(lost.out)["unreadable"]) == (
        1,
        [{"org": one, "master": listed["master"]}],
    )
    assert (rotated["sealed_again"], rotated["already"]) == (1, 0)
    assert (again["sealed_again"], again["already"], again["unreadable"]) == (0, 1, [])
    fields = [c["field"] for row in audit for c in row["changes"] if c["what"] == "key"]
    assert fields == ["fingerprint", "master", "fingerprint", "master"]
    assert [row["change"] for row in events if row["event"] == "key"] == ["set", "sealed anew"]
    assert removed["org"] == one
    assert (gone["state"], gone["fingerprint"]) == ("removed", None)

    assert len(kept) > 1_000
    everywhere = place.shown + kept + place.everything()
    everywhere += "".join(path.read_text() for path in place.folder.rglob("*.jsonl"))
    for secret in (CANARY, OLD, NEW):
        assert secret not in everywhere
        assert secret.encode().hex() not in everywhere
        assert base64.b64encode(secret.encode()).decode().rstrip("=") not in everywhere


def test_a_key_on_the_command_line_is_refused_and_not_shown(place: Place) -> None:
    ended = place.ask("key", "set", CANARY, "--org", "a", stdin="", MILLPOND_MASTER_KEY=OLD)

    assert ended.code == 2
    assert "standard input" in ended.err
    assert CANARY not in ended.err + ended.out


@pytest.mark.parametrize("key", ["", "two words", "tab\tulated", "k" * 5_000])
def test_what_is_no_key_is_refused_and_not_shown(place: Place, key: str) -> None:
    ended = place.ask("key", "set", "--org", "a", stdin=key, MILLPOND_MASTER_KEY=OLD)

    assert ended.code == 2
    assert not key or key not in ended.err


def test_a_master_key_that_is_none_is_refused_before_anything_is_asked(place: Place) -> None:
    for command in (["set", "--org", "a"], ["list"], ["rotate"]):
        ended = place.ask("key", *command, stdin=CANARY, MILLPOND_MASTER_KEY="not-a-master-key")

        assert (ended.code, "is not 32 bytes in base64" in ended.err) == (2, True)
        assert "not-a-master-key" not in ended.err


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_model_that_writes_no_text_is_not_asked_for_any(
    tmp_path: Path, provider: Simulator, more: list[str]
) -> None:
    prompts(tmp_path / FILE, 1)
    (tmp_path / "key").write_text("of-nobody")
    where = ("--base-url", provider.url, "--api-key-file", "key")
    model = ("--model", "embed-english-v3.0", "--endpoint", "generate")

    ended = run(tmp_path, "run", FILE, *where, *model, *more)

    assert ended.code == 2
    assert "model 'embed-english-v3.0' is a representation model" in ended.err
    assert "command (large)" in ended.err
    assert provider.calls("of-nobody") == []
    assert not (tmp_path / ANSWERS).exists()


@pytest.mark.slow
def test_a_fine_tuned_model_is_used_by_its_org_and_unknown_to_others(
    place: Place, provider: Simulator
) -> None:
    assert place.ask_provider(provider, "one").code == 0
    [one] = place.orgs()
    unknown = place.ask_provider(provider, "two", "--model", "tuned-7")
    place.told("models", "add", "tuned-7", "--org", one, "--base", "command-light")
    no_base = place.ask("models", "add", "tuned-8", "--org", one, "--base", "comand")

    used = place.ask_provider(provider, "one", "--model", "tuned-7", file="more.jsonl")
    as_texts = ("--endpoint", "embed", "--template", "{prompt}")
    wrong = place.ask_provider(provider, "one", "--model", "tuned-7", *as_texts, file="more.jsonl")
    of_another = place.ask_provider(provider, "two", "--model", "tuned-7")
    unchecked = place.ask_provider(
        provider, "two", "--model", "tuned-9", "--model-unchecked", file="third.jsonl"
    )
    own = place.told("models", "--org", one)[-1]

    assert unknown.code == of_another.code == 2
    assert unknown.err == of_another.err
    assert "model 'tuned-7' is unknown" in unknown.err
    assert (no_base.code, "--base 'comand' is unknown" in no_base.err) == (2, True)
    assert used.code == 0, used.err
    [row] = read_rows(place.folder / "more.jsonl.answers.jsonl")
    assert row["model"] == "tuned-7"
    assert (wrong.code, "is a generation model" in wrong.err) == (2, True)
    assert unchecked.code == 0, unchecked.err
    assert (own["model"], own["base"], own["endpoints"]) == (
        *("tuned-7", "command-light"),
        ["generate"],
    )
    [removed] = place.told("models", "remove", "tuned-7", "--org", one)
    assert (removed["org"], removed["model"]) == (one, "tuned-7")


def test_a_line_that_names_a_model_is_checked_like_the_command(
    tmp_path: Path, provider: Simulator
) -> None:
    bodies = [{"model": "gpt"}, {"model": "gpt-5"}, {}]
    write_rows(
        tmp_path / FILE,
        [
            {
                "custom_id": f"c{n}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {**body, "messages": [{"role": "user", "content": "Hi"}]},
            }
            for n, body in enumerate(bodies)
        ],
    )
    models = tmp_path / "models.toml"
    models.write_text('[openai.models.gpt]\nkind = "generation"\nsize = "small"\n')

    ended = run(
        *(tmp_path, "run", FILE, "--provider", "openai", "--base-url", provider.url + "/v1"),
        *("--model", "gpt", "--max-tokens", "9", "--limits", "generate=60/60s"),
        env={"OPENAI_API_KEY": "of-lines", "MILLPOND_MODELS": str(models)},
    )

    assert ended.code == 3, ended.err
    assert {row["custom_id"] for row in read_rows(tmp_path / ANSWERS)} == {"c0", "c2"}
    [error] = read_rows(tmp_path / ERRORS)
    assert (error["custom_id"], error["error"]["code"]) == ("c1", "model_refused")
    assert error["error"]["pointer"] == "/body/model"
    assert len(provider.calls("of-lines")) == 2


def test_models_are_listed_for_people_and_programs(tmp_path: Path) -> None:
    limited = run(tmp_path, "models", "--mode", "limited", "--json")
    full = run(tmp_path, "models", "--mode", "full")
    unknown = run(tmp_path, "models", "--provider", "openai")

    rows = {row["model"]: row for row in map(json.loads, limited.out.splitlines())}
    assert "command-nightly" not in rows
    assert rows["embed-english-light-v3.0"] == {
        "model": "embed-english-light-v3.0",
        "kind": "representation",
        "size": "small",
        "endpoints": ["embed", "classify"],
        "modes": ["limited", "full"],
        "base": None,
    }
    assert "command-nightly\tgeneration\tlarge\tgenerate\tfull" in full.out
    assert "the models of openai are not known" in unknown.out


def test_a_file_of_models_that_is_wrong_is_refused_with_the_field(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 1)
    models = tmp_path / "models.toml"
    models.write_text('[cohere.models.x]\nkind = "generation"\n')
    env = {"MILLPOND_MODELS": str(models)}

    for command in (("run", FILE), ("models",)):
        ended = run(tmp_path, *command, env=env)

        assert (ended.code, "cohere.models.x.size: field required" in ended.err) == (2, True)

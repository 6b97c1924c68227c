"""Everything that can be asked of a file: other formats, packed, a part of it, or only a look."""

import csv
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import Ended, Rows, Simulator, prompts, read_rows, run, simulator, write_rows

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PREVIEW_KEYS = [
    *("lines", "bad_lines", "calls", "characters_max", "fits_quota", "seconds", "ends_at"),
    "reason",
]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with simulator(tmp_path_factory.mktemp("provider"), "--limits", "none") as one:
        yield one


class Folder:
    """Where runs take place, with a key of its own."""

    def __init__(self, path: Path, provider: Simulator) -> None:
        self.path = path
        self.provider = provider
        self.key = path.name

    def run(self, *arguments: str | Path, stdin: bytes | None = None) -> Ended:
        command = ("run", *arguments, "--base-url", self.provider.url, "--json")
        more = ("--max-tokens", "9", "--limits", "generate=1000/1s;classify=1000/1s")
        ended = run(self.path, *command, *more, env={"CO_API_KEY": self.key}, stdin=stdin)
        assert "Traceback" not in ended.err
        return ended

    def calls(self) -> Rows:
        return self.provider.calls(self.key)

    def rows(self, name: str) -> Rows:
        """The rows of a file, by line."""
        return sorted(read_rows(self.path / name), key=lambda row: int(row["line"]))


@pytest.fixture
def folder(provider: Simulator, tmp_path: Path) -> Folder:
    return Folder(tmp_path, provider)


def test_texts_are_classified_by_examples(folder: Folder) -> None:
    rows = [{"text": "quack quack", "custom_id": "a"}, {"text": "muh"}]
    write_rows(folder.path / "q.jsonl", rows)
    (folder.path / "e.csv").write_text("text,label\nquack,duck\nquak,duck\nmoo,cow\nmuh,cow\n")

    ended = folder.run("q.jsonl", "--endpoint", "classify", "--examples", "e.csv")

    assert ended.code == 0, ended.err
    first, second = folder.rows("q.jsonl.answers.jsonl")
    assert list(first) == [
        *("line", "custom_id", "endpoint", "status", "label", "confidence", "confidences"),
        *("model", "characters", "attempts", "simulated"),
    ]
    assert (first["custom_id"], second["custom_id"]) == ("a", None)
    assert (first["label"], second["label"]) == ("duck", "cow")
    assert set(first["confidences"]) == {"duck", "cow"}
    assert first["confidences"]["duck"] == first["confidence"]
    assert {call["endpoint"] for call in folder.calls()} == {"classify"}


def test_lines_of_an_openai_batch_file_are_asked_in_openais_way(folder: Folder) -> None:
    body = {"model": "gpt", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 3}
    lines = [
        {"custom_id": f"id-{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for n in range(3)
    ]
    write_rows(folder.path / "b.jsonl", [*lines, {**lines[0], "custom_id": "x", "body": {}}])

    ended = run(
        *(
            folder.path,
            "run",
            "b.jsonl",
            "--provider",
            "openai",
            "--json",
        ),  # its lines name the model
        *("--base-url", folder.provider.url + "/v1", "--limits", "generate=1000/1s"),
        env={"OPENAI_API_KEY": folder.key},
    )

    assert ended.code == 3, ended.err
    answers = folder.rows("b.jsonl.answers.jsonl")
    assert [(row["line"], row["custom_id"]) for row in answers] == [
        (n + 1, f"id-{n}") for n in range(3)
    ]
    assert all(len(row["text"].split()) == 3 for row in answers)
    (error,) = folder.rows("b.jsonl.errors.jsonl")
    assert (error["line"], error["custom_id"]) == (4, "x")
    assert error["error"]["pointer"] == "/body/messages"
    assert len(folder.calls()) == 3


def test_a_provider_without_a_default_model_asks_for_one(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("Why?\n")

    ended = run(tmp_path, "run", "q.txt", "--provider", "openai", env={"OPENAI_API_KEY": "k"})

    assert ended.code == 2
    assert "openai has no default model: name one with --model" in ended.err


def test_an_answer_table_is_made_of_a_table(folder: Folder) -> None:
    (folder.path / "q.csv").write_text('id,prompt\n1,"Why, so?"\n2,\n3,Because\n')
    arguments = ("q.csv", "--out", "a.csv")

    ended = folder.run(*arguments)

    assert ended.code == 3, ended.err
    with (folder.path / "a.csv").open(newline="") as file:
        rows = {row["line"]: row for row in csv.DictReader(file)}
    assert {line: (row["id"], row["status"]) for line, row in rows.items()} == {
        "2": ("1", "succeeded"),
        "4": ("3", "succeeded"),
    }
    assert all(row["text"] for row in rows.values())
    (folder.path / "a.csv").unlink()
    assert folder.run(*arguments).code == 3
    with (folder.path / "a.csv").open(newline="") as file:
        assert {row["line"]: row for row in csv.DictReader(file)} == rows


def test_a_table_that_is_asked_for_late_holds_every_answer(folder: Folder) -> None:
    (folder.path / "q.csv").write_text("id,prompt\n1,Why?\n2,Because\n")
    assert folder.run("q.csv", "--out", "a.jsonl").code == 0

    assert folder.run("q.csv", "--out", "a.csv").code == 0

    with (folder.path / "a.csv").open(newline="") as file:
        assert [(row["line"], row["id"]) for row in csv.DictReader(file)] == [
            ("2", "1"),
            ("3", "2"),
        ]


def test_only_a_table_becomes_a_table(folder: Folder) -> None:
    (folder.path / "q.txt").write_text("Why?\n")

    ended = folder.run("q.txt", "--out", "a.csv")

    assert ended.code == 2
    assert "only a CSV file becomes a CSV file" in ended.err


def test_the_limits_that_hold_are_shown_with_their_source(tmp_path: Path) -> None:
    shown = run(tmp_path, "limits", "--provider", "cohere", env={"CO_API_KEY": "k"})

    assert shown.code == 0
    assert "generate\t60/60s,50000/1d\tthe profile of cohere, limited access" in shown.out


def test_a_simulator_of_our_own_speaks_openais_way_to_a_batch_file(tmp_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 3}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    write_rows(tmp_path / "b.jsonl", [line])

    ended = run(tmp_path, "run", "b.jsonl")

    assert ended.code == 0, ended.err
    (row,) = read_rows(tmp_path / "b.jsonl.answers.jsonl")
    assert (row["custom_id"], len(row["text"].split()), row["simulated"]) == ("a", 3, True)


@pytest.mark.parametrize(
    ("name", "packed"), [("q.jsonl.gz", gzip.compress), ("q.jsonl.zst", zstd.compress)]
)
def test_a_packed_file_is_unpacked_first(folder: Folder, name: str, packed: object) -> None:
    plain = prompts(folder.path / "q", 4).read_bytes()
    assert callable(packed)
    (folder.path / name).write_bytes(packed(plain))

    ended = folder.run(name)

    assert ended.code == 0, ended.err
    assert [row["line"] for row in folder.rows(f"{name}.answers.jsonl")] == [1, 2, 3, 4]
    assert len(folder.calls()) == 4


def test_a_packed_csv_file_is_a_csv_file(folder: Folder) -> None:
    (folder.path / "q.csv.gz").write_bytes(gzip.compress(b'custom_id,prompt\na,"one\ntwo"\n'))

    assert folder.run("q.csv.gz").code == 0
    (row,) = folder.rows("q.csv.gz.answers.jsonl")
    assert (row["line"], row["custom_id"], row["characters"]["input"]) == (2, "a", 7)


def test_standard_input_is_kept_so_that_the_run_can_go_on(folder: Folder) -> None:
    plain = prompts(folder.path / "q", 4).read_bytes()

    first = folder.run("-", stdin=plain)
    again = folder.run("-", stdin=plain)

    assert first.code == again.code == 0, first.err
    assert [row["line"] for row in folder.rows("stdin.answers.jsonl")] == [1, 2, 3, 4]
    assert "this run has finished" in again.err
    assert len(folder.calls()) == 4


def test_a_sample_is_of_so_many_lines_the_same_of_the_same_file(folder: Folder) -> None:
    prompts(folder.path / "q.jsonl", 20)

    first = folder.run("q.jsonl", "--sample", "5", "--out", "1")
    again = folder.run("q.jsonl", "--sample", "5", "--out", "2", "--data-dir", "other")

    assert first.code == again.code == 0, first.err
    lines = [row["line"] for row in folder.rows("1")]
    assert len(set(lines)) == 5
    assert set(lines) < set(range(1, 21))
    assert [row["line"] for row in folder.rows("2")] == lines
    assert (first.summary["lines"], first.summary["waiting"]) == (5, 0)
    assert len(folder.calls()) == 10


def test_a_sample_larger_than_the_file_is_all_of_it(folder: Folder) -> None:
    prompts(folder.path / "q.jsonl", 3)

    assert folder.run("q.jsonl", "--sample", "5").code == 0
    assert len(folder.rows("q.jsonl.answers.jsonl")) == 3


def test_a_bad_line_is_enough_for_a_strict_run_to_send_nothing(folder: Folder) -> None:
    write_rows(folder.path / "q.jsonl", [{"prompt": "a"}, {"prompt": 7}, {"prompt": "b"}])

    strict = folder.run("q.jsonl", "--strict")

    assert (strict.code, strict.out) == (2, "")
    assert "1 of 3 lines cannot be asked" in strict.err
    assert folder.calls() == []
    assert folder.run("q.jsonl").code == 3
    assert len(folder.calls()) == 2


def test_a_strict_run_of_good_lines_is_like_any_other(folder: Folder) -> None:
    prompts(folder.path / "q.jsonl", 3)

    assert folder.run("q.jsonl", "--strict").code == 0


def test_a_dry_run_says_what_it_would_come_to_and_sends_nothing(folder: Folder) -> None:
    rows = [{"prompt": "four"}, {"prompt": 7}, {"prompt": "ü🦆", "params": {"max_tokens": 2}}]
    write_rows(folder.path / "q.jsonl", rows)

    dry = folder.run("q.jsonl", "--dry-run")

    assert dry.code == 0, dry.err
    told = json.loads(dry.out)
    assert list(told) == PREVIEW_KEYS
    ends_at = told.pop("ends_at")
    assert (ends_at[4], ends_at[-1]) == ("-", "Z")
    assert told == {
        "lines": 3,
        "bad_lines": 1,
        "calls": 2,
        "characters_max": 4 + 9 * 6 + 2 + 2 * 6,
        "fits_quota": True,
        # Both go at once; a call that nobody has measured is taken to last a second.
        "seconds": 1.0,
        "reason": None,
    }
    assert folder.calls() == []
    assert folder.run("q.jsonl").code == 3
    assert len(folder.calls()) == 2


def test_a_dry_run_of_more_than_the_quota_ends_with_75(folder: Folder) -> None:
    prompts(folder.path / "q.jsonl", 10)

    dry = folder.run("q.jsonl", "--dry-run", "--quota", "699")
    enough = folder.run("q.jsonl", "--dry-run", "--quota", "700")

    # "What is 0 and 0?" has 16 characters; an answer 9 tokens at most, of 6 characters each.
    assert (dry.code, dry.summary["characters_max"]) == (75, 700)
    assert (dry.summary["fits_quota"], dry.summary["reason"]) == (False, "quota")
    assert "more than the quota has left" in dry.err
    assert (enough.code, enough.summary["fits_quota"]) == (0, True)
    assert folder.calls() == []


def test_a_parameter_that_is_wrong_for_every_line_is_refused_at_once(folder: Folder) -> None:
    prompts(folder.path / "q.jsonl", 3)

    refused = folder.run("q.jsonl", "--param", 'temperature="hot"')

    assert (refused.code, refused.out) == (2, "")
    assert "parameter 'temperature' must be a number from 0 to 5" in refused.err
    assert folder.calls() == []


def test_a_file_of_errors_asks_again_what_failed(folder: Folder, tmp_path: Path) -> None:
    rows = [{"prompt": "a", "custom_id": "first"}, {"prompt": "b"}, {"prompt": 7}]
    write_rows(folder.path / "q.jsonl", rows)
    with simulator(tmp_path / "broken", "--limits", "none", "--fault", "500=1") as broken:
        failed = Folder(tmp_path, broken).run("q.jsonl", "--attempts", "1")
    assert (failed.code, failed.summary["failed"]) == (3, 3)

    again = folder.run("q.jsonl.errors.jsonl")

    # The third is no text this time either.
    assert again.code == 3, again.err
    answers = folder.rows("q.jsonl.errors.jsonl.answers.jsonl")
    assert {row["custom_id"] for row in answers} == {"first", None}
    (error,) = folder.rows("q.jsonl.errors.jsonl.errors.jsonl")
    assert (error["error"]["code"], error["input"]) == ("wrong_type", {"prompt": 7})
    assert len(folder.calls()) == 2

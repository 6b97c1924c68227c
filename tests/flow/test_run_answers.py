"""A file of prompts becomes a file of answers: what is written, told and exited with."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from rig import (
    SUMMARY_KEYS,
    Ended,
    Simulator,
    prompts,
    read_rows,
    run,
    simulator,
    write_rows,
)

ANSWER_KEYS = [
    *("line", "custom_id", "endpoint", "status", "text", "model", "characters"),
    # The one that is more than was asked for: COMPLETE, or MAX_TOKENS for an answer cut short.
    "finish_reason",
    *("attempts", "simulated"),
]
ERROR_KEYS = ["line", "custom_id", "endpoint", "status", "error", "attempts", "input"]

#: Four good lines, and one of each way to be bad.
MIXED = b"""\
{"prompt": "one"}
{"prompt": "two", "custom_id": "the second"}
{"prompt": "three", "custom_id": 3, "params": {"max_tokens": 2}}
{"prompt": "torn

[1, 2]
{"question": "no prompt", "custom_id": "q"}
{"prompt": "", "custom_id": "e"}
{"prompt": "x", "params": {"max_tokens": 0}}
{"prompt": "x", "params": {"model": "other"}}
{"prompt": "x", "params": []}
{"prompt": "f\xc3\xbcnf \xf0\x9f\xa6\x86"}
"""


class Done:
    """A run that has ended with some error rows, and where."""

    def __init__(self, folder: Path, provider: Simulator) -> None:
        self.folder = folder
        self.provider = provider
        self.file = folder / "q.jsonl"
        self.file.write_bytes(MIXED)
        self.out = folder / "q.jsonl.answers.jsonl"
        self.errors = folder / "q.jsonl.errors.jsonl"
        self.ended = self.run("--ledger", "ledger.jsonl")

    def run(self, *options: str, folder: Path | None = None) -> Ended:
        command = ("run", "q.jsonl", "--base-url", self.provider.url, "--json", *options)
        return run(folder or self.folder, *command)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with simulator(tmp_path_factory.mktemp("provider"), "--limits", "none") as one:
        yield one


@pytest.fixture(scope="module")
def done(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return Done(tmp_path_factory.mktemp("done"), provider)


@pytest.fixture
def copied(done: Done, tmp_path: Path) -> Path:
    """The folder of the run as it was left, to be spoiled."""
    return Path(shutil.copytree(done.folder, tmp_path / "copied"))


def test_each_good_line_gets_a_row_of_answers_with_the_keys_in_order(done: Done) -> None:
    rows = {row["line"]: row for row in read_rows(done.out)}

    assert sorted(rows) == [1, 2, 3, 12]
    assert all(list(row) == ANSWER_KEYS for row in rows.values())
    text = rows[12].pop("text")
    assert rows[12] == {
        "line": 12,
        "custom_id": None,
        "endpoint": "generate",
        "status": "succeeded",
        "model": "command",
        "characters": {"input": len("fünf 🦆"), "output": len(text)},
        "finish_reason": "COMPLETE",
        "attempts": 1,
        "simulated": True,
    }


def test_a_lines_custom_id_comes_back_and_its_params_are_sent(done: Done) -> None:
    rows = {row["line"]: row for row in read_rows(done.out)}

    assert (rows[2]["custom_id"], rows[3]["custom_id"]) == ("the second", "3")
    assert len(rows[3]["text"].split()) == 2
    assert rows[3]["finish_reason"] == "MAX_TOKENS"


def test_each_bad_line_gets_a_row_of_errors_that_says_what_and_where(done: Done) -> None:
    rows = {row["line"]: row for row in read_rows(done.errors)}

    assert all(list(row) == ERROR_KEYS for row in rows.values())
    assert all(row["status"] == "invalid" and row["attempts"] == 0 for row in rows.values())
    assert {
        line: (row["error"]["code"], row["error"]["pointer"]) for line, row in rows.items()
    } == {
        4: ("invalid_json", None),
        5: ("empty_line", None),
        6: ("not_an_object", None),
        7: ("missing_field", "/prompt"),
        8: ("empty_prompt", "/prompt"),
        9: ("bad_parameter", "/params/max_tokens"),
        10: ("bad_parameter", "/params/model"),
        11: ("wrong_type", "/params"),
    }
    assert list(rows[7]["error"]) == ["code", "message", "pointer", "provider_status"]
    assert rows[7]["input"] == {"question": "no prompt", "custom_id": "q"}
    assert [rows[line]["custom_id"] for line in (7, 8)] == ["q", "e"]


def test_a_run_with_error_rows_exits_with_3_and_a_summary_that_adds_up(done: Done) -> None:
    summary = done.ended.summary

    assert done.ended.code == 3
    assert list(summary) == SUMMARY_KEYS
    assert (summary["lines"], summary["succeeded"], summary["failed"]) == (12, 4, 8)
    assert (summary["waiting"], summary["waiting_reason"], summary["resume_command"]) == (
        (0, None, None)
    )
    assert (summary["calls"], summary["refusals"]) == (4, 0)
    assert (summary["estimated_characters"], summary["reserved_characters"]) == (0, 0)
    assert summary["seconds"] > 0


def test_the_characters_are_those_that_the_provider_counted(done: Done) -> None:
    counted = {row["attempt"]: row["characters"] for row in done.provider.calls()}
    ledger = read_rows(done.folder / "ledger.jsonl")

    assert [list(row) for row in ledger] == [["attempt", "lines", "outcome", "characters"]] * 4
    assert {row["attempt"]: row["characters"] for row in ledger} == counted
    assert {row["outcome"] for row in ledger} == {"known"}
    assert sorted(row["lines"] for row in ledger) == [[1], [2], [3], [12]]
    assert done.ended.summary["used_characters"] == sum(counted.values())


def test_people_are_told_on_stderr_and_data_alone_is_on_stdout(done: Done) -> None:
    assert len(done.ended.out.splitlines()) == 1
    assert "12 lines (8 of them cannot be asked), 4 calls, at most " in done.ended.err
    assert "; limited access: for testing" in done.ended.err
    assert "4 answered, 8 failed, 0 waiting" in done.ended.err


def test_a_finished_run_again_sends_nothing_and_tells_the_same(done: Done) -> None:
    journal = done.provider.journal.read_bytes()
    before = done.out.read_bytes(), done.errors.read_bytes()

    again = done.run()

    assert again.code == 3
    assert "this run has finished: 4 answered, 8 failed; nothing was sent" in again.err
    assert {**again.summary, "seconds": 0} == {**done.ended.summary, "seconds": 0}
    assert (done.out.read_bytes(), done.errors.read_bytes()) == before
    assert done.provider.journal.read_bytes() == journal


def test_options_that_do_not_change_the_questions_do_not_make_another_run(done: Done) -> None:
    options = ["--workers", "3", "--attempts", "2", "--timeout", "9", "--mode", "full", "--quiet"]

    again = done.run(*options, "--limits", "generate=1/1d", "--quota", "7")

    assert (again.code, again.err) == (3, "")


def test_a_deleted_answer_file_is_written_again_from_the_data_folder(
    done: Done, copied: Path
) -> None:
    whole = done.out.read_bytes()
    (copied / done.out.name).unlink()
    (copied / done.errors.name).unlink()

    again = done.run("--out", "elsewhere/new.jsonl", folder=copied)

    assert again.code == 3
    assert (copied / "elsewhere/new.jsonl").read_bytes() == whole
    assert (copied / done.errors.name).read_bytes() == done.errors.read_bytes()


def test_answers_that_were_torn_off_are_completed(done: Done, copied: Path) -> None:
    whole = done.out.read_bytes()
    (copied / done.out.name).write_bytes(whole[:-7])

    done.run(folder=copied)

    assert (copied / done.out.name).read_bytes() == whole


@pytest.mark.parametrize("option", ["--out", "--errors"])
def test_a_file_of_somebody_else_is_refused_and_left_alone(
    done: Done, copied: Path, option: str
) -> None:
    mine = copied / "mine.jsonl"
    mine.write_bytes(b"my own notes\n")

    refused = done.run(option, "mine.jsonl", folder=copied)

    assert (refused.code, refused.out) == (2, "")
    assert "mine.jsonl holds something else" in refused.err
    assert mine.read_bytes() == b"my own notes\n"


def test_the_ledger_is_written_at_the_end_wherever_it_is_asked_for(
    done: Done, copied: Path
) -> None:
    done.run("--ledger", "again.jsonl", folder=copied)

    assert (copied / "again.jsonl").read_bytes() == (done.folder / "ledger.jsonl").read_bytes()


def test_a_csv_file_is_embedded_and_both_files_exist_though_one_is_empty(
    provider: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "texts.csv").write_text('custom_id,text\na,"two\nlines"\n,three\n')

    ended = run(
        *(tmp_path, "run", "texts.csv", "--endpoint", "embed", "--base-url", provider.url),
        *("--json", "--quiet", "--out", "a", "--errors", "e"),
        env={"CO_API_KEY": "of-the-csv"},
    )

    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "e").read_bytes() == b""
    rows = sorted(read_rows(tmp_path / "a"), key=lambda row: int(row["line"]))
    assert [(row["line"], row["custom_id"]) for row in rows] == [(2, "a"), (4, None)]
    assert all(len(row.pop("embedding")) > 1 for row in rows)
    assert rows[0] == {
        "line": 2,
        "custom_id": "a",
        "endpoint": "embed",
        "status": "succeeded",
        "model": "embed-english-v3.0",
        "characters": {"input": 9, "output": 0},
        "attempts": 1,
        "simulated": True,
    }
    assert ended.summary["used_characters"] == 14
    assert {call["endpoint"] for call in provider.calls("of-the-csv")} == {"embed"}


def test_a_text_file_is_a_prompt_a_line_for_a_simulator_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text('Why?\n{"is": "text"}\n')

    ended = run(
        *(tmp_path, "run", "p.txt", "--format", "text", "--param", "k=3", "--max-tokens", "1"),
        env={"CO_API_KEY": "a real one"},
    )

    assert ended.code == 0
    # A simulator that is our own has no need of a key.
    (journal,) = (tmp_path / ".millpond").glob("simulator-*.jsonl")
    assert {row["org"] for row in read_rows(journal) if "org" in row} == {"demo"}
    assert ended.out == ""
    rows = read_rows(tmp_path / "p.txt.answers.jsonl")
    assert sorted(row["line"] for row in rows) == [1, 2]
    assert all(len(row["text"].split()) == 1 for row in rows)
    assert "2 answered, 0 failed, 0 waiting" in ended.err


def test_a_template_makes_the_prompt_of_the_records_fields(
    provider: Simulator, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "q", [{"n": 7, "word": "seven"}, {"n": 8}])
    key = tmp_path / "key"
    key.write_text("of-the-template\n")

    ended = run(
        *(tmp_path, "run", file, "--template", "Spell {n}: {word}", "--base-url", provider.url),
        *("--api-key-file", key, "--model", "command-light", "--param", 'stop_sequences=["."]'),
    )

    assert ended.code == 3
    (row,) = read_rows(tmp_path / "q.answers.jsonl")
    assert (row["line"], row["model"]) == (1, "command-light")
    assert row["characters"]["input"] == len("Spell 7: seven")
    (error,) = read_rows(tmp_path / "q.errors.jsonl")
    assert (error["line"], error["error"]["pointer"]) == (2, "/word")
    assert len(provider.calls("of-the-template")) == 1


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        (b"", [], "is empty: it has no records"),
        (b'{"question": "x", "answer": "y"}\n', [], "answer, question"),
        (b'{"question": "x"}\n', ["--template", "{quest}"], 'no field "quest"'),
        (b'{"prompt": "x"}\n', ["--template", "{a.b}"], "takes an attribute"),
        (None, [], "there is no file q.jsonl"),
    ],
)
def test_a_file_that_is_of_no_use_is_refused_before_anything_starts(
    tmp_path: Path, content: bytes | None, options: list[str], told: str
) -> None:
    if content is not None:
        (tmp_path / "q.jsonl").write_bytes(content)

    ended = run(tmp_path, "run", "q.jsonl", *options)

    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / ".millpond/server").exists()


def test_every_record_of_a_longer_file_is_answered_once(
    provider: Simulator, tmp_path: Path
) -> None:
    """More lines than go into the server in one portion, over several workers."""
    prompts(tmp_path / "q.jsonl", 1_000)

    ended = run(
        *(tmp_path, "run", "q.jsonl", "--base-url", provider.url, "--json", "--max-tokens", "1"),
        *("--limits", "generate=10000/1s", "--quota", "none", "--workers", "2"),
        env={"CO_API_KEY": "of-the-longer-file"},
    )

    assert ended.code == 0
    rows = read_rows(tmp_path / "q.jsonl.answers.jsonl")
    assert sorted(row["line"] for row in rows) == list(range(1, 1_001))
    calls = provider.calls("of-the-longer-file")
    assert len({call["body_sha256"] for call in calls}) == len(calls) == 1_000
    assert ended.summary["calls"] == 1_000
    assert orjson.loads(ended.out)["used_characters"] == sum(call["characters"] for call in calls)

"""A provider that refuses, breaks, hangs up or hangs: what it costs and what is told."""

from pathlib import Path
from typing import Any

from rig import Rows, Simulator, prompts, read_rows, run, simulator

FILE = "q.jsonl"


class Outcome:
    """A run of some prompts against a provider with faults, to its end."""

    def __init__(self, folder: Path, *options: str, count: int, fault: str, **more: str) -> None:
        prompts(folder / FILE, count)
        settings = [word for name, value in more.items() for word in (f"--{name}", value)]
        with simulator(
            folder / "provider", "--limits", "none", "--fault", fault, "--seed", "3"
        ) as provider:
            command = ("run", FILE, "--base-url", provider.url, "--json", "--max-tokens", "9")
            ledger = ("--ledger", "ledger.jsonl")
            self.ended = run(folder, *command, *ledger, *options, *settings)
            self.calls = provider.calls()
            self.provider: Simulator = provider
        self.answers = read_rows(folder / "q.jsonl.answers.jsonl")
        self.errors = read_rows(folder / "q.jsonl.errors.jsonl")
        self.ledger = read_rows(folder / "ledger.jsonl")
        self.summary: dict[str, Any] = self.ended.summary

    def outcomes(self) -> dict[str, str]:
        return {row["attempt"]: row["outcome"] for row in self.ledger}

    def check_books(self) -> None:
        """Each call of the journal is in the ledger once; what is known equals the provider's."""
        counted = {call["attempt"]: call["characters"] for call in self.calls}
        assert len(self.outcomes()) == len(self.ledger)
        sent = [row for row in self.ledger if row["outcome"] != "unsent"]
        assert {row["attempt"] for row in sent} == set(counted)
        assert all(
            row["characters"] == counted[row["attempt"]]
            for row in sent
            if row["outcome"] == "known"
        )
        assert self.summary["calls"] == len(sent)
        assert self.summary["reserved_characters"] == 0


def statuses(calls: Rows, status: int | None) -> int:
    return sum(call["status"] == status for call in calls)


def test_refusals_are_counted_apart_and_burn_no_attempt(tmp_path: Path) -> None:
    one = Outcome(tmp_path, count=12, fault="429=0.4,retry_after=1", attempts="1")

    refused = statuses(one.calls, 429)
    assert one.ended.code == 0
    assert len(one.answers) == 12
    assert one.summary["refusals"] == refused > 0
    assert one.summary["calls"] == 12 + refused
    # The rows count how often each line was sent.
    assert sum(row["attempts"] for row in one.answers) == 12 + refused
    assert one.summary["estimated_characters"] == 0
    one.check_books()


def test_a_provider_in_trouble_is_asked_again_and_every_line_is_answered(tmp_path: Path) -> None:
    one = Outcome(tmp_path, count=25, fault="503=0.3", attempts="20")

    assert one.ended.code == 0
    assert sorted(row["line"] for row in one.answers) == list(range(1, 26))
    assert statuses(one.calls, 503) > 0
    assert sum(row["attempts"] for row in one.answers) == len(one.calls)
    # 503 says that nothing was done: nothing is kept back for it.
    assert one.summary["estimated_characters"] == 0
    one.check_books()


def test_a_line_whose_attempts_are_used_up_is_an_error_row_with_the_providers_status(
    tmp_path: Path,
) -> None:
    one = Outcome(tmp_path, count=4, fault="500=1", attempts="1")

    assert one.ended.code == 3
    assert one.answers == []
    errors = sorted(one.errors, key=lambda row: int(row["line"]))
    assert [row["line"] for row in errors] == [1, 2, 3, 4]
    assert errors[0] == {
        "line": 1,
        "custom_id": None,
        "endpoint": "generate",
        "status": "failed",
        "error": {
            "code": "provider_error",
            "message": "internal server error",
            "pointer": None,
            "provider_status": 500,
        },
        "attempts": 1,
        "input": {"prompt": "What is 0 and 0?"},
    }
    # The provider may have done the work before it broke.
    assert set(one.outcomes().values()) == {"unknown"}
    assert one.summary["estimated_characters"] == sum(row["characters"] for row in one.ledger) > 0
    assert one.summary["failed"] == 4
    one.check_books()


def test_attempts_are_failures_in_all(tmp_path: Path) -> None:
    one = Outcome(tmp_path, count=2, fault="500=1", attempts="2")

    assert one.ended.code == 3
    assert [row["attempts"] for row in one.errors] == [2, 2]
    assert len(one.calls) == 4


def test_an_answer_that_does_not_come_in_time_stays_charged_as_unknown(tmp_path: Path) -> None:
    one = Outcome(tmp_path, count=3, fault="hang=1", attempts="1", timeout="0.5")

    assert one.ended.code == 3
    assert {row["error"]["code"] for row in one.errors} == {"no_answer"}
    assert {row["error"]["message"] for row in one.errors} == {"no answer within 0.5 s"}
    assert {row["error"]["provider_status"] for row in one.errors} == {None}
    assert [row["outcome"] for row in one.ledger] == ["unknown"] * 3
    assert one.summary["estimated_characters"] == sum(row["characters"] for row in one.ledger)


def test_a_connection_that_breaks_after_sending_is_tried_again_and_stays_charged(
    tmp_path: Path,
) -> None:
    one = Outcome(tmp_path, count=20, fault="reset_after=0.3", attempts="20")

    broken = statuses(one.calls, None)
    assert one.ended.code == 0
    assert len(one.answers) == 20
    assert broken > 0
    assert list(one.outcomes().values()).count("unknown") == broken
    assert one.summary["estimated_characters"] > 0
    one.check_books()


def test_a_request_that_the_provider_will_never_take_is_not_tried_again(tmp_path: Path) -> None:
    one = Outcome(tmp_path, "--param", 'seed="lucky"', count=2, fault="500=0")

    assert one.ended.code == 3
    assert len(one.calls) == 2
    (first, second) = one.errors
    assert (first["error"]["code"], first["error"]["provider_status"]) == ("rejected", 400)
    assert "seed" in first["error"]["message"]
    assert (first["attempts"], second["attempts"]) == (1, 1)
    assert one.summary["used_characters"] == one.summary["estimated_characters"] == 0
    one.check_books()

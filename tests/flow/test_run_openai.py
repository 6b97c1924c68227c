"""`--provider openai`: limits that the provider tells, and whatever else it may answer."""

import json
from pathlib import Path

import pytest

from rig import Ended, Rows, Simulator, prompts, read_rows, run, simulator

FILE, ANSWERS, ERRORS = "q.jsonl", "q.jsonl.answers.jsonl", "q.jsonl.errors.jsonl"
TOLD = "limits, as the provider says: "


def ask(folder: Path, provider: Simulator, *options: str, file: str = FILE) -> Ended:
    """A run of a file, in OpenAI's way."""
    ended = run(
        *(folder, "run", file, "--provider", "openai", "--base-url", provider.url + "/v1"),
        *("--model", "gpt", "--max-tokens", "9", "--json", *options),
        env={"OPENAI_API_KEY": "demo"},
    )
    log = folder / ".millpond/log.jsonl"
    assert "Traceback" not in ended.err
    assert "Traceback" not in (log.read_text() if log.exists() else "")
    return ended


def answered(folder: Path, name: str = ANSWERS) -> list[int]:
    return sorted(row["line"] for row in read_rows(folder / name))


def refused(calls: Rows) -> int:
    return sum(call["status"] == 429 for call in calls)


def test_limits_are_taken_from_the_first_reply_and_remembered(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 25)
    prompts(tmp_path / "more.jsonl", 5)
    prompts(tmp_path / "many.jsonl", 100)
    limits = ("--limits", "generate=40/60s,9000tokens/60s")
    with simulator(tmp_path / "provider", *limits) as provider:
        unknown = ask(tmp_path, provider, "--dry-run", file="many.jsonl")
        first = ask(tmp_path, provider)
        second = ask(tmp_path, provider, file="more.jsonl")
        foreseen = ask(tmp_path, provider, "--dry-run", file="many.jsonl")

    assert json.loads(unknown.out)["seconds"] is None
    assert first.code == second.code == 0, first.err + second.err
    assert f"{TOLD}40/60s,9000tokens/60s" in first.err
    assert TOLD not in second.err
    assert answered(tmp_path) == list(range(1, 26))
    calls = provider.calls()
    assert (len(calls), refused(calls)) == (30, 0)
    # Until the limits were known there was one call at a time.
    begun, ended = (sorted(call[key] for call in calls) for key in ("at_ms", "headers_ms"))
    assert begun[1] > ended[0]
    # A hundred at 40/60s: at once, after 61 s and after 122 s, and the last one's answer.
    told = json.loads(foreseen.out)
    assert (told["reason"], told["seconds"]) == ("40/60s", pytest.approx(123.0))


def test_a_provider_that_does_not_tell_its_limits_needs_them_named(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 60)
    with simulator(tmp_path / "provider", "--limits", "none") as provider:
        ended = ask(tmp_path, provider)
        sent = len(provider.calls())
        named = ask(tmp_path, provider, "--limits", "generate=20@once")

    assert (ended.code, ended.out) == (2, "")
    assert "--limits 'generate=60/60s'" in ended.err
    assert sent < 60
    assert named.code == 0, named.err
    assert answered(tmp_path) == list(range(1, 61))


def test_under_a_limit_of_tokens_no_call_is_refused(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 60)
    limits = ("--limits", "generate=600tokens/2s")
    with simulator(tmp_path / "provider", *limits, "--tokens", "9") as provider:
        ended = ask(tmp_path, provider, *limits)

    assert ended.code == 0, ended.err
    assert answered(tmp_path) == list(range(1, 61))
    calls = provider.calls()
    assert (len(calls), refused(calls), ended.summary["refusals"]) == (60, 0, 0)
    # They need more than one window: it was the tokens that were waited for.
    assert sum(call["tokens"] for call in calls) > 600


def test_a_spent_credit_ends_the_run_with_75_and_can_be_gone_on_with(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, 20)
    folder = tmp_path / "provider"
    limits = ("--limits", "generate=2@once")
    with simulator(folder, "--limits", "none", "--quota", "300", "--tokens", "9") as provider:
        ended = ask(tmp_path, provider, *limits)

    assert ended.code == 75, ended.err
    assert ended.summary["waiting_reason"]["limit"].startswith("quota: You exceeded")
    assert ended.summary["succeeded"] > 0
    assert ended.summary["succeeded"] + ended.summary["waiting"] == 20
    assert refused(provider.calls()) <= 2

    (folder / "ready").unlink()
    more = ("--limits", "none", "--port", str(provider.port))
    with simulator(folder, *more) as provider:
        ended = ask(tmp_path, provider, *limits)

    assert ended.code == 0, ended.err
    assert answered(tmp_path) == list(range(1, 21))


FAULTS = ["short_body", "garbage", "wrong_types", "error_200", "stream_cut", "drip"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reply_that_is_none_is_asked_for_again_until_every_line_is_answered(
    tmp_path: Path, fault: str
) -> None:
    prompts(tmp_path / FILE, 10)
    limits = ("--limits", "generate=1000/60s")
    faults = ("--fault", f"{fault}=0.4", "--limits", "none", "--seed", "3")
    with simulator(tmp_path / "provider", *faults) as provider:
        ended = ask(tmp_path, provider, *limits, "--attempts", "20", "--timeout", "1.5")

    assert ended.code == 0, ended.err
    assert answered(tmp_path) == list(range(1, 11))
    assert len(provider.calls()) > 10
    # Nobody knows whether the provider charged for what it did not answer.
    assert ended.summary["estimated_characters"] > 0
    assert ended.summary["reserved_characters"] == 0


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("wire", ["openai", "cohere"])
def test_a_reply_that_is_never_one_is_an_error_row(tmp_path: Path, fault: str, wire: str) -> None:
    prompts(tmp_path / FILE, 3)
    given_up = ("--limits", "generate=1000/60s", "--attempts", "1", "--timeout", "1")
    with simulator(tmp_path / "provider", "--fault", f"{fault}=1", "--limits", "none") as provider:
        if wire == "openai":
            ended = ask(tmp_path, provider, *given_up)
        else:
            ended = run(tmp_path, "run", FILE, "--base-url", provider.url, "--json", *given_up)

    assert ended.code == 3, ended.err
    assert answered(tmp_path) == []
    assert answered(tmp_path, ERRORS) == [1, 2, 3]
    assert {row["error"]["code"] for row in read_rows(tmp_path / ERRORS)} == {"no_answer"}
    assert "Traceback" not in ended.err

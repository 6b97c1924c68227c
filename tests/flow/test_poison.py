"""A job that makes its worker die, or never come out of it: it ends after three workers, and nobody
else has to."""

from pathlib import Path

import pytest

from rig import read_rows, run, simulator

POISON = "poison"
#: Runs in every process of ours as it starts: who has the poison to write does not live on.
FATAL = """
import ctypes, os, resource, signal, sys
import millpond.providers.cohere as cohere

harmless = cohere.Cohere.wire

def eat():
    held = []
    while True:
        held.append(bytearray(2**24))

def wire(self, common, asks):
    if any("poison" in ask.text for ask in asks):
        HOW
    return harmless(self, common, asks)

cohere.Cohere.wire = wire
"""


HOWS = {
    "segfault": "ctypes.string_at(0)",
    "exit": "os._exit(0)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "endless": "while True: pass",
    "memory": "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)); eat()",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "endpoint"),
    [
        *((how, "generate") for how in HOWS),
        ("segfault", "embed"),  # where it shares its first call with all others
    ],
)
def test_it_ends_after_three_workers_and_harms_no_other(
    tmp_path: Path, how: str, endpoint: str
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FATAL.replace("HOW", HOWS[how]))
    texts = [f"What is {n}?" for n in range(40)]
    texts[17] = POISON
    (tmp_path / "q.txt").write_text("".join(f"{text}\n" for text in texts))
    env = {"PYTHONPATH": str(tmp_path / "site"), "MILLPOND_LEASE_MS": "3000"}

    with simulator(tmp_path / "provider", "--limits", "none") as provider:
        command = ("run", "q.txt", "--base-url", provider.url, "--json", "--workers", "2")
        limits = ("--limits", f"{endpoint}=1000/1s", "--quota", "none")
        ended = run(tmp_path, *command, *limits, "--endpoint", endpoint, env=env)

    assert ended.code == 3, ended
    answered = {row["line"] for row in read_rows(tmp_path / "q.txt.answers.jsonl")}
    [error] = read_rows(tmp_path / "q.txt.errors.jsonl")
    assert error["line"] == 18
    assert error["error"]["code"] == "worker_died"
    assert error["attempts"] == 3
    assert answered == set(range(1, 41)) - {18}

"""A run under every fault of the simulator at once, for long: nothing grows, nothing is stuck.

SOAK_PROMPTS=180000 pytest -s tests/flow/test_soak.py        ten minutes and more
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from millpond.embedded import server as embedded
from millpond.simulator.faults import KINDS
from rig import Command, prompts, read_rows, running, simulator

PROMPTS = int(os.environ.get("SOAK_PROMPTS", "6000"))
FILE = "q.jsonl"
ANSWERS = "q.jsonl.answers.jsonl"
SLOTS = 150
#: Two in a hundred of each. Refusals, which stop a lane for a second and make it careful for long,
#: are rarer: with as many the run would do little else than wait.
FAULTS = [
    word
    for kind in KINDS
    for word in (
        "--fault",
        "429=0.0003,retry_after=1"
        if kind == "429"
        else f"{kind}={0.0003 if kind == '429_garbage' else 0.02}",
    )
]
#: What the allocator may keep, or a longer history may take.
GROWTH_MB = 24
DESCRIPTORS_MOST = SLOTS + 40


@dataclass(frozen=True)
class Size:
    """Of the processes of a run, together by role: memory of their own, open files; and keys, and
    what had to be put back into its place."""

    memory_mb: dict[str, float]
    descriptors: dict[str, int]
    keys: int
    repairs: int


def size_of(command: Command, redis: "Redis") -> Size:
    roles = ("worker", "scheduler", "server")
    pids = {"run": [command.process.pid]} | {role: command.children(role) for role in roles}
    memory_mb = {role: sum(map(_own_memory_mb, of)) for role, of in pids.items()}
    # What the server's process takes beside what it holds is its allocator's (docs/operate.md).
    memory_mb["server"] = redis.info("memory")["used_memory"] / 2**20  # type: ignore[index]
    return Size(
        memory_mb,
        {role: max(map(_descriptors, of), default=0) for role, of in pids.items()},
        redis.dbsize(),  # type: ignore[arg-type]
        int(redis.hget("mp:0:m", "repairs") or 0),  # type: ignore[arg-type]
    )


def _own_memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no memory")


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.slow
def test_under_every_fault_at_once_nothing_grows_and_nothing_is_stuck(tmp_path: Path) -> None:
    prompts(tmp_path / FILE, PROMPTS)
    sizes: list[Size] = []
    with simulator(
        tmp_path / "provider", "--limits", "none", "--service", "0.05", "--seed", "5", *FAULTS
    ) as provider:
        command = ("run", FILE, "--base-url", provider.url, "--json", "--max-tokens", "9")
        more = ("--limits", "generate=300/1s", "--quota", "none", "--timeout", "5")
        many = ("--workers", "1", "--concurrency", str(SLOTS), "--attempts", "5")
        began = time.monotonic()
        with running(tmp_path, *command, *more, *many) as going:
            while going.process.poll() is None:
                url = embedded.address(tmp_path / ".millpond" / "server")
                if url and going.children("worker") and (tmp_path / ANSWERS).exists():
                    with Redis.from_url(url) as redis:
                        sizes.append(size_of(going, redis))
                time.sleep(1)
            ended = going.wait()
        seconds = time.monotonic() - began
        calls = provider.calls()
    print(f"{len(calls)} calls, {seconds:.0f} s, {len(calls) / seconds:.0f} a second", sizes[-1])

    answers = read_rows(tmp_path / ANSWERS)
    errors = read_rows(tmp_path / "q.jsonl.errors.jsonl")
    assert ended.code in {0, 3}, ended
    assert sorted(row["line"] for row in [*answers, *errors]) == list(range(1, PROMPTS + 1))
    assert ended.summary["waiting"] == ended.summary["reserved_characters"] == 0
    warm, last = sizes[len(sizes) // 3], sizes[-2]
    for role, memory_mb in last.memory_mb.items():
        assert memory_mb <= warm.memory_mb[role] + GROWTH_MB, (role, warm, last)
    assert max(last.descriptors.values()) <= DESCRIPTORS_MOST
    assert last.repairs == 0
    assert last.keys <= max(size.keys for size in sizes[: len(sizes) // 2]) * 1.2, (warm, last)

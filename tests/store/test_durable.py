"""Which servers may hold the books: real ones, started with options good and bad."""

from pathlib import Path

import pytest

from millpond.errors import StoreUnavailable
from millpond.store.durable import NotDurable, check_durable
from millpond.store.gateway import connect
from rig import server

APPEND_ONLY = ("--appendonly", "yes")
NOTHING_KEPT = ("--appendonly", "no", "--save", "")
SNAPSHOTS = ("--appendonly", "no", "--save", "3600 1")
EVICTS = ("--maxmemory-policy", "allkeys-lru")
LIMITED = ("--maxmemory", "100mb")
#: As managed servers have it.
NO_CONFIG = ("--rename-command", "CONFIG", "")
NO_INFO = ("--rename-command", "INFO", "")


async def refusal(*options: str) -> str:
    """What is told of a server with these options that is refused."""
    with server(*options) as url, pytest.raises(NotDurable) as refused:
        async with connect(url) as redis:
            await check_durable(redis)
    assert refused.value.code == "not_durable"
    return str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        APPEND_ONLY,
        (*APPEND_ONLY, "--save", ""),
        SNAPSHOTS,
        (*APPEND_ONLY, *NO_CONFIG),
        (*APPEND_ONLY, *LIMITED, "--maxmemory-policy", "noeviction"),
        # Without a limit nothing is ever thrown away.
        (*APPEND_ONLY, *EVICTS, "--maxmemory", "0"),
    ],
    ids=" ".join,
)
async def test_a_server_that_keeps_what_it_is_told_may_hold_the_books(
    options: tuple[str, ...],
) -> None:
    with server(*options) as url:
        async with connect(url) as redis:
            await check_durable(redis)


async def test_the_embedded_server_may_and_syncs_its_file_every_second(server_url: str) -> None:
    async with connect(server_url) as redis:
        await check_durable(redis)

        assert await redis.config_get("appendonly") == {"appendonly": "yes"}
        assert await redis.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert await redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


async def test_a_server_that_keeps_nothing_is_refused_with_the_risk_and_the_ways_out() -> None:
    told = await refusal(*NOTHING_KEPT)

    assert "keeps nothing on disk: after a restart, calls that were made would be forgotten" in told
    assert "throws keys away" not in told
    for way in ("appendonly yes", "appendfsync everysec", "--ephemeral", "MILLPOND_EPHEMERAL=true"):
        assert way in told


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_refused_by_the_name_of_its_policy(policy: str) -> None:
    told = await refusal(*APPEND_ONLY, *LIMITED, "--maxmemory-policy", policy)

    assert f"(maxmemory-policy {policy})" in told
    assert "maxmemory-policy noeviction" in told
    assert "on disk" not in told


async def test_all_that_is_wrong_is_told_at_once() -> None:
    told = await refusal(*NOTHING_KEPT, *LIMITED, *EVICTS)

    assert "keeps nothing on disk" in told
    assert "; and it throws keys away" in told


async def test_a_server_without_such_a_file_that_does_not_tell_of_snapshots_is_refused() -> None:
    told = await refusal(*SNAPSHOTS, *NO_CONFIG)

    assert "has no append-only file and does not tell whether it makes snapshots" in told
    assert "--ephemeral" in told


async def test_a_server_that_tells_nothing_is_refused() -> None:
    assert "allow this user the command INFO" in await refusal(*APPEND_ONLY, *NO_INFO)


async def test_a_server_that_does_not_answer_is_waited_for(tmp_path: Path) -> None:
    async with connect(f"unix://{tmp_path}/nothing") as redis:
        with pytest.raises(StoreUnavailable):
            await check_durable(redis)

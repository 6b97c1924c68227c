"""The gateway: scripts a server has forgotten, and servers that are started again."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from conftest import PARTITION, TestTime
from millpond.embedded.server import EmbeddedServer
from millpond.errors import StoreUnavailable
from millpond.store.gateway import Gateway, connect
from millpond.store.store import Store
from store.pond import PREFIX, Pond, everything


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


class Restartable:
    """A server of the test's own that can be killed and started again, and a pond on it."""

    def __init__(self, folder: Path) -> None:
        self.server = EmbeddedServer(folder)
        self.time = TestTime()

    async def kill(self) -> None:
        process = self.server.process
        assert process is not None
        process.kill()
        await process.wait()

    async def start(self) -> None:
        await self.server.start()

    async def restart(self, pond: Pond) -> None:
        """Killed and started again; the pond has noticed."""
        await self.kill()
        await self.start()
        with pytest.raises(StoreUnavailable):
            await pond.tick()


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Restartable]:
    own = Restartable(tmp_path / "data")
    await own.start()
    yield own
    await own.kill()


@pytest.fixture
async def own_pond(own: Restartable) -> AsyncIterator[Pond]:
    async with connect(own.server.url) as redis:
        await redis.hset(f"{PREFIX}m", "test", "1")  # type: ignore[misc]
        store = Store(Gateway(redis, PARTITION, time=own.time))
        await store.hello()
        yield Pond(store, redis, own.time)


async def test_scripts_that_the_server_has_forgotten_are_loaded_without_a_new_life(
    own_pond: Pond,
) -> None:
    await own_pond.open()
    await own_pond.accept("j1")
    await own_pond.beat()
    life = own_pond.store.gateway.life
    before = await everything(own_pond.redis)

    await own_pond.command("SCRIPT", "FLUSH")

    assert await own_pond.accept("j1") == 1
    assert own_pond.store.gateway.life == life
    assert await everything(own_pond.redis) == before


async def test_a_pipeline_of_forgotten_scripts_runs_once_and_in_order(own_pond: Pond) -> None:
    await own_pond.open()
    await own_pond.beat()
    await own_pond.command("SCRIPT", "FLUSH")

    replies = await own_pond.store.gateway.run_all(
        [
            ("accept", ["f", "j1", 100, 0, 0, "", "note", 0, "", "payload"]),
            ("release", [10]),
            ("claim", ["w", 1, 10]),
        ]
    )

    assert replies[0] == [b"accepted", 1, 1]
    assert replies[1] == [b"released", 1, -1]
    assert replies[2][0] == b"claimed"
    assert len(replies[2]) == 2


async def test_a_server_that_was_killed_and_started_again_has_lost_nothing_and_lives_anew(
    own: Restartable, own_pond: Pond
) -> None:
    await own_pond.open()
    [call] = await own_pond.run("j1")
    await own_pond.accept("j2", "j3")
    life = own_pond.store.gateway.life
    before = await everything(own_pond.redis, without=["m"])

    await own.restart(own_pond)

    assert own_pond.store.gateway.life == life + 1
    assert await everything(own_pond.redis, without=["m"]) == before
    assert await own_pond.release() == (0, 100)
    await own_pond.beat(free=9, seq=1, held=[call])
    await own_pond.jump(100)
    assert await own_pond.release() == (2, None)


async def test_while_the_server_is_away_the_store_says_so(own: Restartable, own_pond: Pond) -> None:
    await own_pond.open()
    await own.kill()

    with pytest.raises(StoreUnavailable):
        await own_pond.accept("j1")
    with pytest.raises(StoreUnavailable):
        await own_pond.store.rows("f", block_ms=1)
    with pytest.raises(StoreUnavailable):
        await own_pond.store.orgs()

    await own.start()
    with pytest.raises(StoreUnavailable):  # what we say may rest on what the server has forgotten
        await own_pond.accept("j1")
    assert await own_pond.accept("j1") == 1


async def test_ids_of_calls_are_never_given_twice(own: Restartable, own_pond: Pond) -> None:
    await own_pond.open()
    given: list[str] = []
    for life in range(3):
        calls = await own_pond.run(f"a{life}", f"b{life}")
        given += [call.id for call in calls]
        for call in calls:
            await own_pond.settle(call)
        own_pond.seqs.clear()
        await own_pond.store.leave("w")
        await own_pond.store.reap()
        await own.restart(own_pond)

    assert len(given) == 6
    assert len(set(given)) == 6


async def test_a_life_begins_once_however_many_processes_notice(
    own: Restartable, own_pond: Pond
) -> None:
    other = own_pond.another_store()
    await other.hello()
    life = own_pond.store.gateway.life

    await own.restart(own_pond)
    await other.promote(200)

    assert own_pond.store.gateway.life == life + 1
    assert other.gateway.life == life + 1


async def test_new_life_for_the_same_run_changes_nothing(pond: Pond, redis: Redis) -> None:
    await pond.store.gateway.run("new_life", "run 1")
    before = await everything(redis)

    assert await pond.store.gateway.run("new_life", "run 1") == [b"same"]

    assert await everything(redis) == before


async def test_new_life_for_another_run_counts_lives_and_skips_ids_of_calls(pond: Pond) -> None:
    await pond.store.gateway.run("new_life", "run 1")
    life, call = await pond.number("m", "life"), await pond.number("m", "call")
    assert call == 1_700_000_000 * 2**20

    assert await pond.store.gateway.run("new_life", "run 2") == [b"new"]

    assert await pond.number("m", "life") == life + 1
    assert await pond.number("m", "call") == 1_700_000_001 * 2**20


async def test_ids_of_calls_are_not_given_again_by_a_server_that_comes_back_with_nothing(
    pond: Pond, redis: Redis, time: TestTime
) -> None:
    await pond.open()
    await pond.new_life()
    [call] = await pond.run("j1")
    time.advance(1_000)

    await pond.forget_since({f"{PREFIX}m".encode(): await redis.dump(f"{PREFIX}m")})
    await pond.command("HDEL", f"{PREFIX}m", "call", "run_id")
    await pond.new_life()

    assert await pond.number("m", "call") > int(call.id, 16)

"""How long rows of what happened are kept."""

from redis.asyncio import Redis

from millpond.store.store import Store

OPERATORS = "mp:t:audit"
DAY_S = 86_400


async def test_the_operators_own_audit_is_kept_as_long_as_the_orgs(
    redis: Redis, store: Store
) -> None:
    seconds, _ = await redis.time()
    for stream in (OPERATORS, "mp:t:o:acme:audit"):
        for age_days in (6, 2, 0):
            await redis.xadd(
                stream, {"n": age_days}, id=f"{(seconds - age_days * DAY_S) * 1_000}-1"
            )

    await store.trim("acme", ledger_ms=DAY_S * 1_000, audit_ms=3 * DAY_S * 1_000)

    for stream in (OPERATORS, "mp:t:o:acme:audit"):
        assert [row[b"n"] for _, row in await redis.xrange(stream)] == [b"2", b"0"]

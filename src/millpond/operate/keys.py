"""The orgs' keys at their provider: kept, removed, listed, sealed anew; never shown."""

import asyncio
from collections.abc import Iterator, Sequence

from millpond.operate.changes import operator
from millpond.operate.commands import Asked
from millpond.operate.reach import org_of
from millpond.standing.moments import Clock, Told
from millpond.store.keyring import KNOWN_MS, let_go_on
from millpond.store.sealing import MasterKeys, read_master_keys
from millpond.store.store import Store
from millpond.store.vault import KeyRecord, Vault


async def set_key(asked: Asked, org: str | None, secret: str) -> int:
    """Keep a key, and let go on what an earlier one has stopped.

    Lanes are looked at when every worker knows the new key: until then one of them may still be
    refused with the old one.
    """
    vault_of = _Vaults(asked)
    async with asked.store() as (store, _):
        name = await org_of(store, org)
        version, sealed = await vault_of(store).keep(name, secret, by=operator())
        resumed: list[str] = []
        if await store.lanes(name):
            await asyncio.sleep(KNOWN_MS / 1_000)
            resumed = await let_go_on(store, name, by=operator())
    told = {
        "org": name,
        "version": version,
        "fingerprint": sealed.fingerprint,
        "master": sealed.master,
        "resumed": resumed,
    }
    asked.tell(told, _set_lines(told))
    return 0


async def remove_key(asked: Asked, org: str | None) -> int:
    vault_of = _Vaults(asked)
    async with asked.store() as (store, _):
        name = await org_of(store, org)
        version = await vault_of(store).remove(name, by=operator())
    told = {"org": name, "version": version}
    asked.tell(told, _removed_lines(told))
    return 0


async def list_keys(asked: Asked) -> int:
    vault_of = _Vaults(asked)
    async with asked.store() as (store, clock):
        vault = vault_of(store)
        records = vault.records(await store.orgs())
        rows = [_row(record, vault.masters, clock) async for record in records]
    asked.tell(rows, _list_lines(rows))
    return 0


async def rotate_keys(asked: Asked) -> int:
    """Seal every key with the newest master key; 1 if one of them cannot be opened.

    It may be said again at any time: what is sealed with the newest one already stays.
    """
    vault_of = _Vaults(asked)
    again, already, unreadable = 0, 0, []
    async with asked.store() as (store, _):
        vault = vault_of(store)
        newest = vault.needs_masters().newest.name
        async for record in vault.records(await store.orgs()):
            if record.sealed is None:
                continue
            if record.sealed.master == newest:
                already += 1
            elif await vault.seal_again(record, by=operator()):
                again += 1
            else:
                unreadable.append({"org": record.org, "master": record.sealed.master})
    told = {"master": newest, "sealed_again": again, "already": already, "unreadable": unreadable}
    asked.tell(told, _rotated_lines(told))
    return 1 if unreadable else 0


class _Vaults:
    """Reads the master keys before a server is asked for, so that a bad one changes nothing."""

    def __init__(self, asked: Asked) -> None:
        self._masters = read_master_keys(asked.settings)

    def __call__(self, store: Store) -> Vault:
        return Vault(store.gateway, self._masters)


def _row(record: KeyRecord, masters: MasterKeys | None, clock: Clock) -> Told:
    sealed = record.sealed
    return {
        "org": record.org,
        "state": "removed" if sealed is None else "set",
        "fingerprint": sealed and sealed.fingerprint,
        "master": sealed and sealed.master,
        "opens": sealed and masters is not None and masters.open(record.org, sealed) is not None,
        "at": clock.at(record.at_ms),
        "by": record.by,
    }


def _list_lines(rows: Sequence[Told]) -> Iterator[str]:
    if not rows:
        yield "no org has a key here: workers use their own"
    for row in rows:
        text = f"{row['at']['at']}\t{row['org']}\t{row['state']} by {row['by']}"
        if row["state"] == "set":
            text += f"\tfingerprint {row['fingerprint']}\tmaster key {row['master']}"
            text += "" if row["opens"] else ", which is not among those that are set here"
        yield text


def _set_lines(told: Told) -> Iterator[str]:
    yield f"org {told['org']} has the key {told['fingerprint']}: version {told['version']}"
    for lane in told["resumed"]:
        yield f"  lane {lane} goes on"


def _removed_lines(told: Told) -> Iterator[str]:
    yield f"org {told['org']} has no key any more: version {told['version']}"
    yield f"  its calls stand still within {KNOWN_MS // 1_000} s, until one is set"


def _rotated_lines(told: Told) -> Iterator[str]:
    yield (
        f"{told['sealed_again']:,} keys sealed with master key {told['master']}, "
        f"{told['already']:,} were already"
    )
    for one in told["unreadable"]:
        yield (
            f"  org {one['org']}: its master key {one['master']} is not set here, or its record "
            "was changed"
        )

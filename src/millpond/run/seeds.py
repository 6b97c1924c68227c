"""What an empty data folder is given, so that it can be used at once: a master key, an org with a
user and a key, and the first operator's key. They stay the same from start to start, and what was
changed since stays changed: nobody is made again who was removed.

    master.key         opens what is sealed, and makes the marks of API keys
    credentials.json   the keys of the demo user and of the operator

Both can be read by their owner alone.
"""

import base64
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import orjson

from millpond.domain.account import Role
from millpond.domain.job import Endpoint
from millpond.errors import Refused, UnknownPart
from millpond.settings import Settings
from millpond.store.access import Terms
from millpond.store.api_keys import ApiKeys, UserSuspended
from millpond.store.directory import Directory, TooMany, UnknownUser
from millpond.store.purge import Purge
from millpond.store.sealing import MasterKeys, read_master_keys
from millpond.store.store import Store
from millpond.store.vault import Vault

MASTER, CREDENTIALS = "master.key", "credentials.json"
ORG, USER, OPERATOR = "demo", "you", "you"
_BY = "millpond up"


@dataclass(frozen=True, slots=True)
class Seeds:
    """Whose keys they are, and the keys. `api_key` is empty if the user has none that is good."""

    org: str
    user: str
    api_key: str = field(repr=False)
    operator_key: str = field(repr=False)


def master_key_of(folder: Path) -> MasterKeys:
    """The folder's master key; it is made if there is none."""
    path = folder / MASTER
    with suppress(FileExistsError):
        _write(path, base64.b64encode(secrets.token_bytes(32)) + b"\n", new=True)
    masters = read_master_keys(Settings(master_key=None, master_key_file=path))
    assert masters is not None
    return masters


async def seed(store: Store, folder: Path, terms: Terms, provider_key: str | None) -> Seeds:
    """The seeds of a folder, made at its first start. `terms`: of the org, if it is made;
    `provider_key`: its own, if one was given."""
    masters = master_key_of(folder)
    api_keys = ApiKeys(store.gateway, masters)
    if await _has_org(store, terms):
        await _seed_org(store, masters, provider_key)
    known = _read(folder / CREDENTIALS) or Seeds(ORG, USER, "", "")
    seeds = known
    if not await _is_good(api_keys, known.api_key):
        seeds = replace(seeds, api_key=await _new_key(api_keys))
    if not await _is_good(api_keys, known.operator_key):
        made = await api_keys.make_operator(OPERATOR, by=_BY)
        seeds = replace(seeds, operator_key=made.text)
    if seeds != known:
        _write(folder / CREDENTIALS, orjson.dumps(asdict(seeds), option=orjson.OPT_INDENT_2))
    return seeds


async def _has_org(store: Store, terms: Terms) -> bool:
    """Whether the demo org is there. It is made if there never was one."""
    with suppress(UnknownPart):
        await Purge(store).receipt(ORG)
        return False  # it was erased, or is being erased
    with suppress(UnknownPart):
        await store.org(ORG)
        return True
    unknown = [endpoint for endpoint in Endpoint if endpoint not in terms.limits]
    if unknown:
        raise Refused(
            f"this provider's limits are not known for {', '.join(unknown)}: name them with "
            f"--limits '{';'.join(f'{endpoint}=60/60s' for endpoint in unknown)}'"
        )
    await Directory(store).create_org(
        ORG,
        "Demo",
        limits=terms.limits,
        quota=terms.quota,
        mode=terms.mode,
        pool="http",
        by=_BY,
    )
    return True


async def _seed_org(store: Store, masters: MasterKeys, provider_key: str | None) -> None:
    directory, vault = Directory(store), Vault(store.gateway, masters)
    # Its last admin cannot be removed: without users, it was just made.
    if not (await directory.users(ORG, most=1)).entries:
        await directory.create_user(ORG, USER, "You", Role.ADMIN, by=_BY)
    # A simulated account of its own, or the real one. Of a key that was removed there is a record.
    if provider_key or await vault.find(ORG) is None:
        await vault.keep(ORG, provider_key or f"simulated-{ORG}", by=_BY)


async def _new_key(api_keys: ApiKeys) -> str:
    """Empty: the user is suspended or removed, or has as many as may be."""
    try:
        return (await api_keys.make(ORG, USER, "made by up", by=_BY)).text
    except (UnknownPart, UnknownUser, UserSuspended, TooMany):
        return ""


async def _is_good(api_keys: ApiKeys, text: str) -> bool:
    return await api_keys.check(text) is not None


def _read(path: Path) -> Seeds | None:
    try:
        return Seeds(**orjson.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, text: bytes, *, new: bool = False) -> None:
    """In one step, and readable by its owner alone."""
    half = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if not new:
        half.replace(path)
        return
    try:
        os.link(half, path)
    finally:
        half.unlink()

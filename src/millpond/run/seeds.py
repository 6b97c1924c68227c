"""What an empty data folder is given, so that it can be used at once: a master key, an org with a
user and a key, and the first operator's key. They stay the same from start to start.

    master.key         opens what is sealed, and makes the marks of API keys
    credentials.json   the keys of the demo user and of the operator

Both can be read by their owner alone.
"""

import base64
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from millpond.domain.account import Role
from millpond.domain.job import Endpoint
from millpond.errors import Refused
from millpond.providers.profile import Profile
from millpond.settings import Settings
from millpond.store.api_keys import ApiKeys
from millpond.store.directory import Directory, UserKnown
from millpond.store.sealing import MasterKeys, read_master_keys
from millpond.store.store import OrgKnown, Store
from millpond.store.vault import Vault

MASTER, CREDENTIALS = "master.key", "credentials.json"
ORG, USER, OPERATOR = "demo", "you", "you"
_BY = "millpond up"


@dataclass(frozen=True, slots=True)
class Seeds:
    """Whose keys they are, and the keys."""

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


async def seed(store: Store, folder: Path, profile: Profile, provider_key: str | None) -> Seeds:
    """The seeds of a folder, made at its first start. `provider_key`: the demo org's own."""
    masters = master_key_of(folder)
    api_keys = ApiKeys(store.gateway, masters)
    directory = Directory(store)
    limits = profile.limits or {}
    with suppress(OrgKnown):
        if not limits:
            raise Refused("this provider's limits are not known: name them with --limits")
        await directory.create_org(
            ORG,
            "Demo",
            limits={endpoint: limits["limited"][endpoint] for endpoint in Endpoint},
            quota=profile.quota["limited"],
            pool="http",
            by=_BY,
        )
    with suppress(UserKnown):
        await directory.create_user(ORG, USER, "You", Role.ADMIN, by=_BY)
    # A simulated account of its own, or the real one.
    await Vault(store.gateway, masters).keep(ORG, provider_key or f"simulated-{ORG}", by=_BY)
    known = _read(folder / CREDENTIALS)
    if known is not None and await _are_good(api_keys, known):
        return known
    made = await api_keys.make(ORG, USER, "made by up", by=_BY)
    operator = await api_keys.make_operator(OPERATOR, by=_BY)
    seeds = Seeds(ORG, USER, made.text, operator.text)
    _write(folder / CREDENTIALS, orjson.dumps(asdict(seeds), option=orjson.OPT_INDENT_2))
    return seeds


async def _are_good(api_keys: ApiKeys, seeds: Seeds) -> bool:
    found = [await api_keys.check(text) for text in (seeds.api_key, seeds.operator_key)]
    return None not in found


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

"""Where the orgs' keys at their provider are kept: sealed, each with its fingerprint."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import orjson
from redis.exceptions import RedisError

from millpond.errors import Refused, StoreUnavailable, UnknownPart
from millpond.store import keys
from millpond.store.gateway import Gateway
from millpond.store.sealing import MasterKeys, NoMasterKey, Sealed

_AT_ONCE = 200


class KeyTaken(Refused):
    """Two orgs with one key would each use the whole of its limits."""

    code = "key_taken"

    def __init__(self, org: str) -> None:
        super().__init__(
            f"org {org} has this key: one account at a provider has one org, whose limits and "
            f"quota count it. Send its jobs as {org}, or first: millpond key remove --org {org}"
        )


class KeysHidden(Refused):
    """It cannot be told whether another org has the same key."""

    code = "keys_hidden"

    def __init__(self, masters: str) -> None:
        super().__init__(
            f"keys of other orgs are sealed with master key {masters}, which is not among those "
            "that are set, so that nobody can tell whether one of them is this key. Set that "
            "master key as well, behind the newest; if it is lost, remove those keys: "
            "millpond key list, millpond key remove --org ORG"
        )


class NoKey(Refused):
    """The org has no key."""

    code = "no_key"

    def __init__(self, org: str) -> None:
        super().__init__(f"org {org} has no key: millpond key set --org {org}")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of an org's key. `sealed` None: it was removed."""

    org: str
    sealed: Sealed | None = field(repr=False)
    at_ms: int
    by: str


class Vault:
    """The sealed keys of one partition. Without master keys they can be listed and removed."""

    def __init__(self, gateway: Gateway, masters: MasterKeys | None) -> None:
        self._gateway = gateway
        self.masters = masters

    async def keep(self, org: str, secret: str, *, by: str) -> tuple[int, Sealed]:
        """Keep a key for an org, in place of any other; the version of the org's record.

        Raises UnknownPart, NoMasterKey, KeyTaken and KeysHidden.
        """
        masters = self.needs_masters()
        sealed = masters.seal(org, secret)
        marks = masters.fingerprints(secret)
        return await self._seal(org, "keep", by, sealed, marks=marks), sealed

    async def seal_again(self, record: KeyRecord, *, by: str) -> bool:
        """Seal a key with the newest master key. False: none of ours opens it."""
        masters = self.needs_masters()
        assert record.sealed is not None
        secret = masters.open(record.org, record.sealed)
        if secret is None:
            return False
        again = masters.seal(record.org, secret)
        with suppress(NoKey):  # it was changed or removed meanwhile, and so is sealed anew
            await self._seal(record.org, "again", by, again, was=record.sealed.text)
        return True

    async def remove(self, org: str, *, by: str) -> int:
        """The org has no key any more; the version of its record. Raises UnknownPart and NoKey."""
        return await self._seal(org, "remove", by, Sealed("", "", ""))

    async def _seal(
        self,
        org: str,
        how: str,
        by: str,
        sealed: Sealed,
        *,
        was: str = "",
        marks: dict[str, str] | None = None,
    ) -> int:
        told = (sealed.master, sealed.fingerprint, sealed.text, orjson.dumps(marks or {}))
        match await self._gateway.run("seal", by, org, how, was, *told):
            case [b"sealed", version]:
                return int(version)
            case [b"unknown", part]:
                raise UnknownPart(part.decode(), org)
            case [b"none"]:
                raise NoKey(org)
            case [b"taken", owner]:
                raise KeyTaken(owner.decode())
            case [b"hidden", names]:
                raise KeysHidden(names.decode().replace(",", ", "))
            case other:
                raise AssertionError(f"seal.lua replied {other}")

    async def find(self, org: str) -> KeyRecord | None:
        """What is known of an org's key; None: it never had one."""
        return (await self._find([org]))[0]

    async def records(self, orgs: list[str]) -> AsyncIterator[KeyRecord]:
        """What is known of the keys of these orgs, of those that ever had one."""
        for first in range(0, len(orgs), _AT_ONCE):
            for record in await self._find(orgs[first : first + _AT_ONCE]):
                if record is not None:
                    yield record

    async def _find(self, orgs: list[str]) -> list[KeyRecord | None]:
        pipe = self._gateway.redis.pipeline(transaction=False)
        for org in orgs:
            pipe.hgetall(keys.provider_key(self._gateway.partition, org))
        try:
            found = await pipe.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the server does not answer: {error}") from error
        return [_record(org, told) for org, told in zip(orgs, found, strict=True)]

    def needs_masters(self) -> MasterKeys:
        """Raises NoMasterKey."""
        if self.masters is None:
            raise NoMasterKey
        return self.masters


def _record(org: str, told: dict[bytes, bytes]) -> KeyRecord | None:
    if not told:
        return None
    fields = {name.decode(): value.decode() for name, value in told.items()}
    sealed = None
    if "sealed" in fields:
        sealed = Sealed(fields["master"], fields["mark"], fields["sealed"])
    return KeyRecord(org, sealed, int(fields["at"]), fields["by"])

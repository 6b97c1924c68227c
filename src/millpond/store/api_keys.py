"""API keys: who a caller is. Of a key its mark is kept, which nobody can make the key of.

make ─▶ text, told once         check ◀─ text
  └─ HMAC under the newest master key ─▶ mark ◀─ the same HMAC, compared in constant time
"""

import hashlib
import hmac
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from millpond.clock import monotonic_ms
from millpond.domain.account import Identity, Role, name_fault, text_fault
from millpond.errors import Refused, StoreUnavailable, UnknownPart
from millpond.store import keys
from millpond.store.directory import TooMany, UnknownUser
from millpond.store.gateway import Gateway
from millpond.store.key_text import KeyName, Kind, make_key_text, read_key_text
from millpond.store.reading import read_all, refuse, texts
from millpond.store.sealing import MasterKeys, NoMasterKey

KEYS_MOST = 100

#: What `good_ms` may be at most: ten years.
GOOD_MOST_MS = 3_653 * 86_400_000
#: A key that was good is believed for so long, one that was not for so long.
GOOD_MS, BAD_MS = 5_000, 1_000
#: Keys that are remembered, of each kind.
_KNOWN_MOST = 10_000

_DAY_MS = 86_400_000
#: What a key that does not exist is compared with: no HMAC comes out so.
_NO_MARK = "0" * 64

T = TypeVar("T")

log = structlog.get_logger()


class UnknownKey(Refused):
    """There is no such API key, or it is somebody else's."""

    code = "unknown_key"

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no API key {key!r}")


class UserSuspended(Refused):
    """Somebody who is suspended gets no key."""

    code = "user_suspended"

    def __init__(self, org: str, user: str) -> None:
        super().__init__(f"user {user} of org {org} is suspended: lift that first")


class NotFirst(Refused):
    """There was an operator before."""

    code = "not_first"

    def __init__(self) -> None:
        super().__init__(
            "there is an operator's key already, or there was one: the first is made once. "
            "Whoever has a good one makes more"
        )


class LastOperator(Refused):
    """The last operator's key that does not end stays: nobody could make another."""

    code = "last_operator"

    def __init__(self) -> None:
        super().__init__("it is the last operator's key that does not end: make another one first")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key: all but its mark. `org` and `user` are empty for an operator's, and
    `name` is the operator's. `expires_ms`, `revoked_ms` and `used_ms` (the day of its last use) are
    0 where they are not so; `master` names the master key that its mark is made with."""

    id: str
    kind: Kind
    org: str
    user: str
    name: str
    created_ms: int
    expires_ms: int
    revoked_ms: int
    used_ms: int
    by: str
    master: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. Nobody can tell its text again."""

    id: str
    created_ms: int
    expires_ms: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Checked:
    """A key is good; for how long at most, None: until it is revoked."""

    identity: Identity
    left_ms: int | None


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of a key, and whose it is."""

    org: str
    user: str
    name: str
    expires_ms: int
    revoked_ms: int
    used_ms: int
    master: str
    mark: str = field(repr=False)
    role: str
    status: str

    def is_good(self, now_ms: int) -> bool:
        return (
            not self.revoked_ms
            and (not self.expires_ms or self.expires_ms > now_ms)
            and (not self.org or self.status == "active")
        )

    def identity(self, key: str) -> Identity:
        if not self.org:
            return Identity(key, Role.OPERATOR, name=self.name)
        return Identity(key, Role(self.role), self.org, self.user)


class ApiKeys:
    """The API keys of one partition. Without master keys they can be listed and revoked."""

    def __init__(self, gateway: Gateway, masters: MasterKeys | None) -> None:
        self._gateway = gateway
        self._masters = masters

    # ------------------------------------------------------------ users' keys

    async def make(
        self, org: str, user: str, name: str, *, by: str, good_ms: int = 0, why: str = ""
    ) -> NewKey:
        """Make a key for a user, good for so long (0: until it is revoked).

        Raises NoMasterKey, UnknownPart, UnknownUser, UserSuspended, TooMany and BadValue.
        """
        refuse(name_fault("the key's name", name))
        return await self._make(Kind.USER, org, user, name, by, why, good_ms)

    async def of(self, org: str, user: str) -> list[ApiKey]:
        """A user's keys, the latest first; those that are revoked or over as well."""
        return await self._list(keys.users_api_keys(self._gateway.partition, org, user))

    async def revoke(self, key: str, *, org: str, by: str, user: str = "", why: str = "") -> None:
        """The key of a user of the org is good no more; `user`: it must be this one's.

        Raises UnknownKey.
        """
        if not org:  # an operator's key is revoked as such
            raise UnknownKey(key)
        await self._revoke(key, org, user, by, why)

    # ------------------------------------------------------------ operators' keys

    async def make_operator(self, name: str, *, by: str, good_ms: int = 0, why: str = "") -> NewKey:
        """Make a key for an operator. Raises NoMasterKey, TooMany and BadValue."""
        refuse(name_fault("the operator's name", name))
        return await self._make(Kind.OPERATOR, "", "", name, by, why, good_ms)

    async def first_operator(self, name: str, *, by: str, why: str = "") -> NewKey:
        """The key that all else begins with. Raises NotFirst if there ever was an operator's, and
        NoMasterKey and BadValue."""
        refuse(name_fault("the operator's name", name))
        return await self._make(Kind.OPERATOR, "", "", name, by, why, 0, first="first")

    async def operators(self) -> list[ApiKey]:
        """Operators' keys, the latest first; those that are revoked or over as well."""
        return await self._list(keys.operators(self._gateway.partition))

    async def revoke_operator(self, key: str, *, by: str, why: str = "") -> None:
        """Raises UnknownKey."""
        await self._revoke(key, "", "", by, why)

    # ------------------------------------------------------------ checking

    async def check(self, text: str) -> Checked | None:
        """Whose a key is; None: it is nobody's, or not good any more.

        A text that is no key is refused without asking the server; for all others the same work is
        done. Raises NoMasterKey.
        """
        name = read_key_text(text)
        if name is None:
            return None
        masters = self.needs_masters()
        kept = await self._find(name)
        known = kept is not None and kept.master in masters
        master = kept.master if kept is not None and known else masters.newest.name
        mark = masters.mark_api_key(text, master) or ""
        same = hmac.compare_digest(mark, kept.mark if kept is not None else _NO_MARK)
        if kept is not None and not known:
            log.warning("api_key_unreadable", key=name.id, master=kept.master)
        if kept is None or not known or not same or not kept.is_good(self._gateway.now_ms):
            return None
        await self._note_use(name, text, kept)
        left_ms = kept.expires_ms - self._gateway.now_ms if kept.expires_ms else None
        return Checked(kept.identity(name.id), left_ms)

    def needs_masters(self) -> MasterKeys:
        """Raises NoMasterKey."""
        if self._masters is None:
            raise NoMasterKey("of API keys only marks are kept that a master key makes")
        return self._masters

    async def _find(self, name: KeyName) -> _Kept | None:
        match await self._gateway.run("identify", name.id):
            case [b"unknown"]:
                return None
            case [b"found", *told]:
                org, user, label, expires, revoked, used, master, mark, role, status = (
                    one.decode() for one in told
                )
                times = int(expires), int(revoked), int(used)
                return _Kept(org, user, label, *times, master, mark, role, status)
            case other:
                raise AssertionError(f"identify.lua replied {other}")

    async def _note_use(self, name: KeyName, text: str, kept: _Kept) -> None:
        """Once a day the day, and once a mark under the newest master key."""
        newest = self.needs_masters().newest
        day_ms = self._gateway.now_ms // _DAY_MS * _DAY_MS
        if kept.used_ms >= day_ms and kept.master == newest.name:
            return
        mark = kept.mark if kept.master == newest.name else newest.mark_api_key(text)
        with suppress(StoreUnavailable):  # the key is good nevertheless
            await self._gateway.run("used", name.id, kept.mark, newest.name, mark)

    # ------------------------------------------------------------ the scripts

    async def _make(
        self,
        kind: Kind,
        org: str,
        user: str,
        name: str,
        by: str,
        why: str,
        good_ms: int,
        *,
        first: str = "",
    ) -> NewKey:
        refuse(_why_fault(why) or _good_fault(good_ms))
        newest = self.needs_masters().newest
        key, text = make_key_text(kind)
        mark = newest.mark_api_key(text)
        told = (org, user, key.id, name, newest.name, mark, good_ms, KEYS_MOST, first)
        match await self._gateway.run("mint", by, why, *told):
            case [b"minted", created, expires]:
                return NewKey(key.id, int(created), int(expires), text)
            case [b"unknown", b"org"]:
                raise UnknownPart("org", org)
            case [b"unknown", b"user"]:
                raise UnknownUser(org, user)
            case [b"suspended"]:
                raise UserSuspended(org, user)
            case [b"full"]:
                whose = f"user {user} of org {org} has" if org else "operators have"
                raise TooMany(
                    f"{whose} {KEYS_MOST} keys that are good or were made today, as many as may "
                    "be: revoke those that nobody uses; they make room when they are a day old"
                )
            case [b"not_first"]:
                raise NotFirst
            case other:  # an id that is known: one of 2^60
                raise AssertionError(f"mint.lua replied {other}")

    async def _revoke(self, key: str, org: str, user: str, by: str, why: str) -> None:
        refuse(_why_fault(why))
        match await self._gateway.run("revoke", by, why, org, user, key):
            case [b"revoked", _]:
                return
            case [b"unknown"]:
                raise UnknownKey(key)
            case [b"last"]:
                raise LastOperator
            case other:
                raise AssertionError(f"revoke.lua replied {other}")

    async def _list(self, owner: str) -> list[ApiKey]:
        pipe = self._gateway.redis.pipeline(transaction=False)
        pipe.zrevrange(owner, 0, KEYS_MOST - 1)
        [found] = await read_all(pipe)
        ids = [id.decode() for id in found]
        pipe = self._gateway.redis.pipeline(transaction=False)
        for id in ids:
            pipe.hgetall(keys.api_key(self._gateway.partition, id))
        return [
            _api_key(id, texts(told))
            for id, told in zip(ids, await read_all(pipe), strict=True)
            if told
        ]


class KeyChecker:
    """Whose keys are, remembered for a few seconds: a key that is revoked or over, or whose user is
    suspended or removed, is believed no longer than that."""

    def __init__(self, api_keys: ApiKeys, clock: Callable[[], float] = monotonic_ms) -> None:
        api_keys.needs_masters()
        self._api_keys = api_keys
        self._clock = clock
        self._good: _Remembered[Identity] = _Remembered(_KNOWN_MOST)
        self._bad: _Remembered[bool] = _Remembered(_KNOWN_MOST)

    async def identity(self, text: str) -> Identity | None:
        """Whose a key is; None: nobody's. Raises StoreUnavailable.

        (Two that ask at once may both ask the server; that does no harm.)
        """
        if read_key_text(text) is None:
            return None
        asked_ms, known_by = self._clock(), hashlib.sha256(text.encode()).digest()
        known = self._good.get(known_by, asked_ms)
        if known is not None or self._bad.get(known_by, asked_ms):
            return known
        checked = await self._api_keys.check(text)
        if checked is None:
            self._bad.put(known_by, True, asked_ms + BAD_MS)
            return None
        left_ms = GOOD_MS if checked.left_ms is None else min(GOOD_MS, checked.left_ms)
        self._good.put(known_by, checked.identity, asked_ms + left_ms)
        return checked.identity


class _Remembered(Generic[T]):
    """Values that are good until a time; where there are too many, the oldest is forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[bytes, tuple[float, T]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, known_by: bytes, now_ms: float) -> T | None:
        until_ms, value = self._values.get(known_by, (0.0, None))
        return value if now_ms < until_ms else None

    def put(self, known_by: bytes, value: T, until_ms: float) -> None:
        self._values.pop(known_by, None)
        while len(self._values) >= self._most:
            del self._values[next(iter(self._values))]
        self._values[known_by] = (until_ms, value)


def _why_fault(why: str) -> str | None:
    return text_fault("why", why) if why else None


def _good_fault(good_ms: int) -> str | None:
    if 0 <= good_ms <= GOOD_MOST_MS:
        return None
    return f"a key is good for 1 to {GOOD_MOST_MS:,} ms, or until it is revoked: 0"


def _api_key(id: str, told: dict[str, str]) -> ApiKey:
    return ApiKey(
        id=id,
        kind=Kind(told["kind"]),
        org=told["org"],
        user=told["user"],
        name=told["name"],
        created_ms=int(told["created"]),
        expires_ms=int(told["expires"]),
        revoked_ms=int(told["revoked"]),
        used_ms=int(told["used"]),
        by=told["by"],
        master=told["master"],
    )

"""A worker's view of the vault: which key an org's calls go with, asked before each of them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from millpond.clock import monotonic_ms
from millpond.errors import Unavailable, UnknownPart
from millpond.settings import Settings
from millpond.store.sealing import MasterKeys, read_master_keys
from millpond.store.store import Changes, Store
from millpond.store.vault import KeyRecord, Vault

#: A key that was changed or removed is used for so long at most.
KNOWN_MS = 5_000
_ORGS_MOST = 1_000
#: How the pause of a lane begins whose key is of no use. It ends runs, as a refused key does.
HELD = "key: "

log = structlog.get_logger()


class KeyUnusable(Unavailable):
    """An org's key is there and cannot be used, or was taken away: no other is sent instead."""

    code = "key_unusable"

    def __init__(self, org: str, reason: str) -> None:
        super().__init__(reason)
        self.org = org


@dataclass(frozen=True, slots=True)
class _Known:
    """`fault`: why there is no usable key; both None: the org never had one here."""

    until_ms: float
    key: str | None = field(default=None, repr=False)
    fault: str | None = None


class Keyring:
    """Opens keys for a worker, and remembers each for a few seconds.

    Where a key cannot be opened the org's lanes are paused with the reason: their calls stand
    still until somebody says that they go on.
    """

    def __init__(
        self,
        store: Store,
        masters: MasterKeys | None,
        *,
        clock: Callable[[], float] = monotonic_ms,
    ) -> None:
        self._store = store
        self._vault = Vault(store.gateway, masters)
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._holding: set[str] = set()

    async def key_of(self, org: str) -> str | None:
        """The key of an org; None: it has none here, and the worker's own is meant.

        Raises Unavailable: KeyUnusable, or StoreUnavailable while the server is away. (Two calls
        may ask the server at once; that does no harm.)
        """
        known = self._known.get(org)
        if known is None or self._clock() >= known.until_ms:
            known = await self._look(org)
        if known.fault is not None:
            await self._hold(org, known.fault)
            raise KeyUnusable(org, known.fault)
        return known.key

    async def _look(self, org: str) -> _Known:
        self._known.pop(org, None)
        until_ms = self._clock() + KNOWN_MS
        record = await self._vault.find(org)
        known = _Known(until_ms) if record is None else self._opened(record, until_ms)
        if known.fault is not None:
            log.error("provider_key_unusable", org=org, reason=known.fault)
        while len(self._known) >= _ORGS_MOST:
            del self._known[next(iter(self._known))]
        self._known[org] = known
        return known

    def _opened(self, record: KeyRecord, until_ms: float) -> _Known:
        org, sealed = record.org, record.sealed
        if sealed is None:
            return _Known(until_ms, fault=f"the key of org {org} was removed by {record.by}")
        masters = self._vault.masters
        if masters is None or sealed.master not in masters:
            fault = (
                f"the key of org {org} is sealed with master key {sealed.master}, which the "
                f"worker does not have ({masters or 'it has none'})"
            )
            return _Known(until_ms, fault=fault)
        key = masters.open(org, sealed)
        if key is None:
            fault = f"the key of org {org} does not open: its record was changed by other means"
            return _Known(until_ms, fault=fault)
        return _Known(until_ms, key)

    async def _hold(self, org: str, reason: str) -> None:
        """Pause those lanes of the org that go, so that its calls are not tried over and over."""
        if org in self._holding:
            return
        self._holding.add(org)
        try:
            for lane in await self._store.lanes(org):
                with suppress(UnknownPart):
                    if (await self._store.explain(lane=lane)).lane.paused is None:
                        held = Changes(lane=lane, paused=HELD + reason)
                        await self._store.change(org, held, by="worker")
        finally:
            self._holding.discard(org)


def keyring_of(store: Store, settings: Settings) -> Keyring | None:
    """The keyring of a worker. None: it has a key of its own and no master key, and uses that one
    for every org. Raises BadMasterKey."""
    masters = read_master_keys(settings)
    if masters is None and settings.provider_key.get_secret_value():
        return None
    return Keyring(store, masters)


async def let_go_on(store: Store, org: str, *, by: str) -> list[str]:
    """Lanes of an org that were paused for its key go on; which."""
    resumed = []
    for lane in await store.lanes(org):
        paused = (await store.explain(lane=lane)).lane.paused
        if paused is not None and paused.startswith(HELD):
            await store.change(org, Changes(lane=lane, paused=""), by=by)
            resumed.append(lane)
    return resumed

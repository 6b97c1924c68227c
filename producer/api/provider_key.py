"""Routes of the org's key at the provider: it is kept sealed, and what stood still goes on."""

import asyncio
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from millpond.producer.http.table import Call, Model, Reply, Route, Who
from millpond.store.keyring import HELD, KNOWN_MS, let_go_on
from millpond.store.store import Store
from millpond.store.vault import Vault


class SecretAsked(Model):
    """The org's key at the provider."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[!-~]+$")] = (
        Field(repr=False)
    )


class SecretKept(Model):
    """The key is kept sealed, and nobody can read it back. `resumed`: lanes that go on with it."""

    fingerprint: str
    resumed: list[str]


class ProviderKeyRoutes:
    """For admins: the key that their org's calls go with."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def routes(self) -> list[Route]:
        admin: dict[str, Any] = {"who": Who.ADMIN, "tags": ("org",)}
        return [
            Route(
                "PUT",
                "/v1/provider-key",
                self.keep_provider_key,
                summary="The org's key at the provider; it can never be read back. Takes 5 s if "
                "lanes stand still for want of it",
                body=SecretAsked,
                replies={200: SecretKept},
                problems=(409,),
                **admin,
            ),
            Route(
                "DELETE",
                "/v1/provider-key",
                self.remove_provider_key,
                summary="The org has no key at the provider any more: its calls stand still",
                replies={204: None},
                **admin,
            ),
        ]

    async def keep_provider_key(self, call: Call) -> SecretKept:
        who = call.caller
        before = await self._vault.find(who.org)
        _, sealed = await self._vault.keep(who.org, call.body.key, by=who.user)
        resumed: list[str] = []
        removed = before is not None and before.sealed is None
        if removed or await self._stands_still(who.org):
            # Until every worker knows the new key, one may still hold a lane for the old one.
            await asyncio.sleep(KNOWN_MS / 1_000)
            resumed = await let_go_on(self._store, who.org, by=who.user)
        return SecretKept(fingerprint=sealed.fingerprint, resumed=resumed)

    async def _stands_still(self, org: str) -> bool:
        """Whether a lane waits for another key."""
        for lane in await self._store.lanes(org):
            paused = (await self._store.explain(lane=lane)).lane.paused
            if paused is not None and paused.startswith(HELD):
                return True
        return False

    async def remove_provider_key(self, call: Call) -> Reply:
        who = call.caller
        await self._vault.remove(who.org, by=who.user)
        return Reply(status=204)

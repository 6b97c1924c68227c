"""The route by which an org sees itself."""

from millpond.producer.api.account_shapes import OrgShape, org_shape
from millpond.producer.api.wall import wall_now
from millpond.producer.http.table import Call, Route, Who
from millpond.store.access import Access
from millpond.store.store import Store


class OwnOrgRoutes:
    """For users: their org."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._access = Access(store)

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/v1/orgs/me",
                self.get_org,
                who=Who.USER,
                tags=("account",),
                summary="The org: its access mode, its quota, where its application stands",
                replies={200: OrgShape},
            ),
        ]

    async def get_org(self, call: Call) -> OrgShape:
        org = call.caller.org
        return await org_shape(
            org, await self._store.org(org), self._access, wall_now(self._store.gateway)
        )

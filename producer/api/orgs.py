"""Routes of operators that make orgs, change what they may use, suspend and lift them."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from millpond.domain.account import Role, org_id_fault
from millpond.domain.job import Endpoint
from millpond.domain.limit import Limits, Unit, write_limit_list
from millpond.producer.api.account_shapes import (
    NewKeyShape,
    OrgShape,
    UserShape,
    new_key_shape,
    org_shape,
    user_shape,
)
from millpond.producer.api.operators import operator_name
from millpond.producer.api.terms import (
    LimitLists,
    LimitsAsked,
    ModeTerms,
    Quota,
    TermsAsked,
    WhyAsked,
    read_limits,
)
from millpond.producer.api.values import Label, Prose, UserId, no_fault
from millpond.producer.api.wall import wall_now
from millpond.producer.http.pages import Page, PageQuery, cursor_of
from millpond.producer.http.problems import invalid
from millpond.producer.http.table import Call, Model, Reply, Route, Who
from millpond.standing.explain import held
from millpond.store.access import Access, bulk_under
from millpond.store.api_keys import ApiKeys
from millpond.store.directory import Directory
from millpond.store.store import Changes, LaneTerms, Store

#: Whose workers make the calls of orgs that operators make.
POOL = "http"

OrgId = Annotated[str, StringConstraints(min_length=1, max_length=63), no_fault(org_id_fault)]


class Admin(Model):
    """The first admin of an org."""

    id: UserId
    name: Label


class OrgAsked(Model):
    """An org to make, in limited mode. Limits and quota that are not named are the provider's."""

    id: OrgId
    name: Label
    limits: LimitLists | None = None
    quota: Quota | None = None
    admin: Admin | None = Field(None, description="With it comes its key, told this once.")
    why: Prose | None = None


class OrgMade(Model):
    """An org that was just made, and its first admin with its key if one was asked for."""

    org: OrgShape
    admin: UserShape | None = None
    key: NewKeyShape | None = None


class OrgTerms(OrgShape):
    """An org with its limits and the weights of its users."""

    limits: dict[str, str]
    weights: dict[str, float]


class OrgRoutes:
    """For operators: all orgs, and what each may use."""

    def __init__(self, store: Store, api_keys: ApiKeys, terms: ModeTerms) -> None:
        self._store = store
        self._directory = Directory(store)
        self._access = Access(store)
        self._api_keys = api_keys
        self._terms = terms

    def routes(self) -> list[Route]:
        told: dict[str, Any] = {"who": Who.OPERATOR, "tags": ("orgs",)}
        one = "/v1/orgs/{org}"
        return [
            Route(
                "GET",
                "/v1/orgs",
                self.list_orgs,
                summary="Orgs, by their id",
                query=PageQuery,
                replies={200: Page[OrgShape]},
                **told,
            ),
            Route(
                "POST",
                "/v1/orgs",
                self.create_org,
                summary="Make an org in limited mode, with its first admin",
                body=OrgAsked,
                replies={201: OrgMade},
                problems=(409,),
                **told,
            ),
            Route(
                "GET",
                one,
                self.get_org,
                summary="An org, its limits and the weights of its users",
                replies={200: OrgTerms},
                **told,
            ),
            Route(
                "PATCH",
                f"{one}/limits",
                self.change_limits,
                summary="Change an org's limits, its quota, the weights of its users",
                body=LimitsAsked,
                replies={200: OrgTerms},
                **told,
            ),
            Route(
                "POST",
                f"{one}/suspend",
                self.suspend_org,
                summary="Nothing of the org goes until that is lifted; nothing is lost",
                body=WhyAsked,
                replies={200: OrgTerms},
                **told,
            ),
            Route(
                "POST",
                f"{one}/lift",
                self.lift_org,
                summary="What waited goes on",
                body=WhyAsked,
                replies={200: OrgTerms},
                problems=(409,),
                **told,
            ),
            Route(
                "POST",
                f"{one}/to-limited",
                self.limit_org,
                summary="Back to limited mode: what was used counts again",
                body=TermsAsked,
                replies={200: OrgTerms},
                **told,
            ),
        ]

    async def list_orgs(self, call: Call) -> Page[OrgShape]:
        query: PageQuery = call.query
        found = await self._directory.orgs(after=query.cursor or "", most=query.limit)
        wall = wall_now(self._store.gateway)
        return Page[OrgShape](
            data=[await org_shape(one.id, one.view, self._access, wall) for one in found.entries],
            next_cursor=found.after and cursor_of(found.after),
        )

    async def create_org(self, call: Call) -> Reply:
        """Org, admin and key are three steps: whoever is cut off between them goes on with
        `POST …/users` and `POST …/keys`."""
        asked, by = call.body, operator_name(call.caller)
        why = asked.why or ""
        limits = self._terms.limits("limited", asked.limits)
        if missing := [endpoint for endpoint in Endpoint if endpoint not in limits]:
            told = f"nobody knows this provider's limits: name those of {', '.join(missing)}"
            raise invalid("/limits", told)
        await self._directory.create_org(
            asked.id,
            asked.name,
            limits=limits,
            quota=self._terms.quota("limited", asked),
            pool=POOL,
            by=by,
            why=why,
        )
        admin, key = None, None
        if asked.admin is not None:
            id, name = asked.admin.id, asked.admin.name
            await self._directory.create_user(asked.id, id, name, Role.ADMIN, by=by, why=why)
            made = await self._api_keys.make(asked.id, id, "the first key", by=by, why=why)
            admin = user_shape(
                await self._directory.user(asked.id, id), wall_now(self._store.gateway)
            )
            key = new_key_shape(made, "the first key", wall_now(self._store.gateway), user=id)
        org = await org_shape(
            asked.id, await self._store.org(asked.id), self._access, wall_now(self._store.gateway)
        )
        headers = {"Location": call.link(f"/v1/orgs/{asked.id}")}
        return Reply(OrgMade(org=org, admin=admin, key=key), status=201, headers=headers)

    async def get_org(self, call: Call) -> OrgTerms:
        return await self._told(call.path["org"])

    async def change_limits(self, call: Call) -> OrgTerms:
        org, asked = call.path["org"], call.body
        told = {name for name in asked.model_fields_set if getattr(asked, name) is not None}
        named = (told | asked.model_fields_set & {"quota"}) - {"why"}
        if not named:
            raise invalid("", "name what to change: limits, quota, weights")
        await self._store.org(org)
        quota: int | Literal["none"] | None = None
        if "quota" in named:
            quota = "none" if asked.quota is None else asked.quota
        changes = Changes(
            quota=quota,
            weights=asked.weights or {},
            lanes=await self._lanes(org, read_limits(asked.limits)),
            why=asked.why or "",
        )
        await self._store.change(org, changes, by=operator_name(call.caller))
        return await self._told(org)

    async def _lanes(self, org: str, limits: Limits) -> list[LaneTerms]:
        """New limits of lanes that are there; what is kept for interactive jobs stays kept."""
        there, found = await self._store.lanes(org), []
        for endpoint, new in limits.items():
            lane = f"{org}.{endpoint}"
            if lane not in there:
                raise invalid(f"/limits/{endpoint}", f"org {org} has no lane for {endpoint}")
            seen = (await self._store.explain(lane=lane)).lane
            found.append(LaneTerms(lane, new, bulk_under(seen, new)))
        return found

    async def suspend_org(self, call: Call) -> OrgTerms:
        org = call.path["org"]
        await self._access.suspend(org, by=operator_name(call.caller), why=call.body.why)
        return await self._told(org)

    async def lift_org(self, call: Call) -> OrgTerms:
        org = call.path["org"]
        await self._access.lift(org, by=operator_name(call.caller), why=call.body.why)
        return await self._told(org)

    async def limit_org(self, call: Call) -> OrgTerms:
        org, asked = call.path["org"], call.body
        terms = self._terms.terms("limited", asked)
        await self._access.to_limited(org, terms, by=operator_name(call.caller), why=asked.why)
        return await self._told(org)

    async def _told(self, org: str) -> OrgTerms:
        view = await self._store.org(org)
        limits = {}
        for lane in await self._store.lanes(org):
            seen = (await self._store.explain(lane=lane)).lane
            own = [limit for limit in held((), seen.windows) if limit.unit != Unit.BULK]
            limits[lane.rpartition(".")[2]] = write_limit_list(own)
        shape = await org_shape(org, view, self._access, wall_now(self._store.gateway))
        weights = await self._store.weights(org)
        return OrgTerms(**shape.model_dump(), limits=limits, weights=weights)

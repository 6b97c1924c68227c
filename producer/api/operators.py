"""Routes of operators: orgs with their limits and first admins, review desk, operators' keys."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from millpond.domain.account import (
    CHECKLIST,
    Identity,
    Role,
    Stage,
    checklist_fault,
    org_id_fault,
)
from millpond.domain.job import Endpoint
from millpond.domain.limit import Limit, Limits, Unit, parse_limit, write_limit_list
from millpond.errors import UnknownPart
from millpond.producer.api.access import ApplicationShape, application_shape
from millpond.producer.api.accounts import (
    AuditRow,
    KeyShape,
    Label,
    Lifetime,
    NewKeyShape,
    OrgShape,
    Prose,
    UserId,
    UserRole,
    UserShape,
    audit_page,
    before_of,
    key_shape,
    new_key_shape,
    no_fault,
    org_shape,
    user_shape,
)
from millpond.producer.api.purge import PurgeRoutes
from millpond.producer.api.shapes import EndpointName
from millpond.producer.api.wall import Wall, wall_now
from millpond.producer.http.pages import Page, PageQuery, cursor_of
from millpond.producer.http.problems import Problem, invalid
from millpond.producer.http.table import Call, Model, Name, Reply, Route, Who
from millpond.providers.profile import Mode, Profile
from millpond.standing.explain import held
from millpond.store.access import Access, Terms, bulk_under
from millpond.store.api_keys import ApiKeys
from millpond.store.directory import Directory
from millpond.store.store import Changes, LaneTerms, Row, Store

#: Whose workers make the calls of orgs that operators make.
POOL = "http"
_NUMBER_DIGITS_MOST = 9


def _limit_list(text: str) -> str:
    _limits_of(text)
    return text


def _limits_of(text: str) -> tuple[Limit, ...]:
    """The limits of one endpoint. Raises ValueError."""
    found = tuple(parse_limit(one) for one in text.split(","))
    if len({(one.window_ms, one.unit) for one in found}) < len(found):
        raise ValueError("two limits have the same window and unit")
    return found


def _checklist(told: dict[str, bool]) -> dict[str, bool]:
    wrong = checklist_fault(told, approves=False)
    if wrong is not None:
        raise ValueError(wrong)
    return told


OrgId = Annotated[str, StringConstraints(min_length=1, max_length=63), no_fault(org_id_fault)]
LimitList = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    AfterValidator(_limit_list),
    Field(examples=["60/60s,50000/1d"]),
]
LimitLists = Annotated[dict[EndpointName, LimitList], Field(min_length=1)]
Quota = Annotated[int, Field(ge=0, le=10**15, description="Characters in all; null: no quota.")]
Weight = Annotated[float, Field(ge=0.001, le=1_000)]
Ticked = Annotated[dict[str, bool], AfterValidator(_checklist)]


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


class WhyAsked(Model):
    """Why it is done: it stands in the org's audit."""

    why: Prose


class TermsAsked(WhyAsked):
    """Limits and quota that are not named are the provider's for the mode."""

    limits: LimitLists | None = None
    quota: Quota | None = None


class ApprovalAsked(TermsAsked):
    """What the reviewer has ticked; every item of the list is needed."""

    checklist: Ticked = Field(description=f"Must have, each true: {', '.join(CHECKLIST)}.")


class RejectionAsked(WhyAsked):
    """What the reviewer has ticked, and why it was not enough."""

    checklist: Ticked = Field(default_factory=dict)


class QuestionAsked(Model):
    """What the reviewer wants to know."""

    question: Prose


class LimitsAsked(Model):
    """What changes of an org, in one step; what is not named stays."""

    limits: LimitLists | None = None
    quota: Quota | None = None
    weights: Annotated[dict[Name, Weight], Field(min_length=1, max_length=1_000)] | None = None
    why: Prose | None = None


class UserOfOrg(Model):
    """A user to make, an admin if nothing else is said."""

    id: UserId
    name: Label
    role: UserRole = Role.ADMIN
    why: Prose | None = None


class KeyOfUser(Model):
    """A key to make for a user of the org."""

    user: Name
    name: Label
    expires_in_s: Lifetime | None = None
    why: Prose | None = None


class OperatorAsked(Model):
    """An operator, who gets a key."""

    name: Label
    expires_in_s: Lifetime | None = None
    why: Prose | None = None


class DeskQuery(PageQuery):
    """Which applications: those that wait for a reviewer, or for an answer."""

    stage: Literal["open", "asked"] = "open"


class LedgerRow(Model):
    """Characters of a call, or that somebody entered; and the org's sums after it."""

    at: str | None
    outcome: str
    characters: int
    used: int
    estimated: int
    call: str | None = None
    lane: str | None = None
    by: str | None = None
    why: str | None = None


class Operators:
    """The handlers, and what they work with."""

    def __init__(self, store: Store, api_keys: ApiKeys, profile: Profile) -> None:
        self._store = store
        self._directory = Directory(store)
        self._access = Access(store)
        self._api_keys = api_keys
        self._profile = profile
        self._purge = PurgeRoutes(store)

    def routes(self) -> list[Route]:
        purge = self._purge.routes()
        return [*self._orgs(), *self._of_org(), *purge, *self._desk(), *self._own()]

    def _orgs(self) -> list[Route]:
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

    def _of_org(self) -> list[Route]:
        told: dict[str, Any] = {"who": Who.OPERATOR, "tags": ("orgs",)}
        one = "/v1/orgs/{org}"
        return [
            Route(
                "POST",
                f"{one}/users",
                self.create_user,
                summary="Make a user of an org: its first admin",
                body=UserOfOrg,
                replies={201: UserShape},
                problems=(409,),
                **told,
            ),
            Route(
                "POST",
                f"{one}/keys",
                self.create_key,
                summary="Make a key for a user of an org; its text is told this once",
                body=KeyOfUser,
                replies={201: NewKeyShape},
                problems=(409,),
                **told,
            ),
            Route(
                "GET",
                f"{one}/audit",
                self.get_org_audit,
                summary="Who changed what of an org, the latest first",
                query=PageQuery,
                replies={200: Page[AuditRow]},
                **told,
            ),
            Route(
                "GET",
                f"{one}/ledger",
                self.get_ledger,
                summary="What an org's calls used, the latest first",
                query=PageQuery,
                replies={200: Page[LedgerRow]},
                **told,
            ),
        ]

    def _desk(self) -> list[Route]:
        told: dict[str, Any] = {"who": Who.OPERATOR, "tags": ("review",)}
        one = "/v1/access/{org}/{number}"
        decided: dict[str, Any] = {
            "replies": {200: ApplicationShape},
            "problems": (409,),
            **told,
        }
        return [
            Route(
                "GET",
                "/v1/access/desk",
                self.list_desk,
                summary="Applications for full access that wait, the oldest first",
                query=DeskQuery,
                replies={200: Page[ApplicationShape]},
                **told,
            ),
            Route(
                "GET",
                one,
                self.get_application,
                summary="An application for full access",
                replies={200: ApplicationShape},
                **told,
            ),
            Route(
                "POST",
                f"{one}/approve",
                self.approve,
                summary="The org has full access from the next decision on",
                body=ApprovalAsked,
                **decided,
            ),
            Route(
                "POST",
                f"{one}/reject",
                self.reject,
                summary="The org stays as it is, and may apply again",
                body=RejectionAsked,
                **decided,
            ),
            Route(
                "POST",
                f"{one}/ask",
                self.ask,
                summary="Ask back",
                body=QuestionAsked,
                **decided,
            ),
        ]

    def _own(self) -> list[Route]:
        told: dict[str, Any] = {"who": Who.OPERATOR, "tags": ("operators",)}
        return [
            Route(
                "GET",
                "/v1/audit",
                self.get_audit,
                summary="Who changed what belongs to no org, the latest first",
                query=PageQuery,
                replies={200: Page[AuditRow]},
                **told,
            ),
            Route(
                "GET",
                "/v1/operators",
                self.list_operators,
                summary="Operators' keys, the latest first",
                replies={200: Page[KeyShape]},
                **told,
            ),
            Route(
                "POST",
                "/v1/operators",
                self.create_operator,
                summary="Make a key for an operator; its text is told this once",
                body=OperatorAsked,
                replies={201: NewKeyShape},
                problems=(409,),
                **told,
            ),
            Route(
                "DELETE",
                "/v1/operators/{key}",
                self.revoke_operator,
                summary="An operator's key is good no more, within 5 s",
                replies={204: None},
                problems=(409,),
                **told,
            ),
        ]

    # ------------------------------------------------------------ orgs

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
        asked, by = call.body, _name(call.caller)
        why = asked.why or ""
        limits = self._limits("limited", asked.limits)
        if missing := [endpoint for endpoint in Endpoint if endpoint not in limits]:
            told = f"nobody knows this provider's limits: name those of {', '.join(missing)}"
            raise invalid("/limits", told)
        await self._directory.create_org(
            asked.id,
            asked.name,
            limits=limits,
            quota=self._quota("limited", asked),
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
        named = asked.model_fields_set - {"why"}
        if not named:
            raise invalid("", "name what to change: limits, quota, weights")
        await self._store.org(org)
        quota: int | Literal["none"] | None = None
        if "quota" in named:
            quota = "none" if asked.quota is None else asked.quota
        changes = Changes(
            quota=quota,
            weights=asked.weights or {},
            lanes=await self._lanes(org, _read(asked.limits)),
            why=asked.why or "",
        )
        await self._store.change(org, changes, by=_name(call.caller))
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
        await self._access.suspend(org, by=_name(call.caller), why=call.body.why)
        return await self._told(org)

    async def lift_org(self, call: Call) -> OrgTerms:
        org = call.path["org"]
        await self._purge.refuse_if_begun(org)
        await self._access.lift(org, by=_name(call.caller), why=call.body.why)
        return await self._told(org)

    async def limit_org(self, call: Call) -> OrgTerms:
        org, asked = call.path["org"], call.body
        terms = self._terms("limited", asked)
        await self._access.to_limited(org, terms, by=_name(call.caller), why=asked.why)
        return await self._told(org)

    # ------------------------------------------------------------ what an org has

    async def create_user(self, call: Call) -> Reply:
        org, asked, by = call.path["org"], call.body, _name(call.caller)
        await self._directory.create_user(
            org, asked.id, asked.name, asked.role, by=by, why=asked.why or ""
        )
        user = await self._directory.user(org, asked.id)
        return Reply(user_shape(user, wall_now(self._store.gateway)), status=201)

    async def create_key(self, call: Call) -> Reply:
        org, asked = call.path["org"], call.body
        made = await self._api_keys.make(
            org,
            asked.user,
            asked.name,
            by=_name(call.caller),
            good_ms=(asked.expires_in_s or 0) * 1_000,
            why=asked.why or "",
        )
        shape = new_key_shape(made, asked.name, wall_now(self._store.gateway), user=asked.user)
        return Reply(shape, status=201)

    async def get_org_audit(self, call: Call) -> Page[AuditRow]:
        return audit_page(
            await self._rows(call, "audit"), call.query, wall_now(self._store.gateway)
        )

    async def get_ledger(self, call: Call) -> Page[LedgerRow]:
        rows, wall = await self._rows(call, "ledger"), wall_now(self._store.gateway)
        more = len(rows) == call.query.limit
        return Page[LedgerRow](
            data=[_ledger_row(row, wall) for row in rows],
            next_cursor=cursor_of(rows[-1].id) if more else None,
        )

    async def _rows(self, call: Call, what: Literal["audit", "ledger"]) -> list[Row]:
        org, query = call.path["org"], call.query
        await self._store.org(org)
        return await self._store.records(org, what, most=query.limit, before=before_of(query))

    # ------------------------------------------------------------ the review desk

    async def list_desk(self, call: Call) -> Page[ApplicationShape]:
        query: DeskQuery = call.query
        stage: Literal[Stage.OPEN, Stage.ASKED] = (
            Stage.OPEN if query.stage == "open" else Stage.ASKED
        )
        found = await self._access.desk(stage, after=query.cursor or "", most=query.limit)
        wall = wall_now(self._store.gateway)
        return Page[ApplicationShape](
            data=[application_shape(one, wall, for_reviewers=True) for one in found.entries],
            next_cursor=found.after and cursor_of(found.after),
        )

    async def get_application(self, call: Call) -> ApplicationShape:
        return await self._application(*_named(call))

    async def approve(self, call: Call) -> ApplicationShape:
        (org, number), asked, by = _named(call), call.body, _name(call.caller)
        if wrong := checklist_fault(asked.checklist, approves=True):
            raise invalid("/checklist", wrong)
        terms = self._terms("full", asked)
        await self._access.approve(org, number, terms, asked.checklist, by=by, why=asked.why)
        return await self._application(org, number)

    async def reject(self, call: Call) -> ApplicationShape:
        (org, number), asked, by = _named(call), call.body, _name(call.caller)
        await self._access.reject(org, number, asked.checklist, by=by, why=asked.why)
        return await self._application(org, number)

    async def ask(self, call: Call) -> ApplicationShape:
        org, number = _named(call)
        await self._access.ask(org, number, call.body.question, by=_name(call.caller))
        return await self._application(org, number)

    async def _application(self, org: str, number: int) -> ApplicationShape:
        found = await self._access.application(org, number)
        return application_shape(found, wall_now(self._store.gateway), for_reviewers=True)

    # ------------------------------------------------------------ operators

    async def get_audit(self, call: Call) -> Page[AuditRow]:
        query: PageQuery = call.query
        rows = await self._directory.audit(most=query.limit, before=before_of(query))
        return audit_page(rows, query, wall_now(self._store.gateway))

    async def list_operators(self, call: Call) -> Page[KeyShape]:
        return Page[KeyShape](data=await self._operators())

    async def create_operator(self, call: Call) -> Reply:
        asked = call.body
        made = await self._api_keys.make_operator(
            asked.name,
            by=_name(call.caller),
            good_ms=(asked.expires_in_s or 0) * 1_000,
            why=asked.why or "",
        )
        return Reply(new_key_shape(made, asked.name, wall_now(self._store.gateway)), status=201)

    async def revoke_operator(self, call: Call) -> Reply:
        """The last one without an end stays: nobody could make another."""
        key = call.path["key"]
        lasting = {
            one.id
            for one in await self._operators()
            if one.state == "good" and one.expires_at is None
        }
        if lasting == {key}:
            told = "it is the last operator's key that does not end: make another one first"
            raise Problem("conflict", told, error_code="last_operator")
        await self._api_keys.revoke_operator(key, by=_name(call.caller))
        return Reply(status=204)

    async def _operators(self) -> list[KeyShape]:
        found = await self._api_keys.operators()
        now_ms, wall = self._store.gateway.logical_ms(), wall_now(self._store.gateway)
        return [key_shape(one, now_ms, wall) for one in found]

    # ------------------------------------------------------------ terms

    def _terms(self, mode: Mode, asked: TermsAsked) -> Terms:
        """What holds in a mode. Limits that nobody knows and nobody names stay as they are."""
        return Terms(mode, self._quota(mode, asked), self._limits(mode, asked.limits))

    def _quota(self, mode: Mode, asked: TermsAsked | OrgAsked) -> int | None:
        return asked.quota if "quota" in asked.model_fields_set else self._profile.quota[mode]

    def _limits(self, mode: Mode, asked: Mapping[Endpoint, str] | None) -> Limits:
        known = self._profile.limits or {}
        return {**known.get(mode, {}), **_read(asked)}

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


def _name(who: Identity) -> str:
    """An operator, for audits: no user's id looks so."""
    return f"operator {who.name}"


def _named(call: Call) -> tuple[str, int]:
    """Which application. Raises UnknownPart for what can be none's number."""
    org, text = call.path["org"], call.path["number"]
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS_MOST):
        raise UnknownPart(f"application of org {org}", text)
    return org, int(text)


def _read(asked: Mapping[Endpoint, str] | None) -> Limits:
    return {endpoint: _limits_of(text) for endpoint, text in (asked or {}).items()}


def _ledger_row(row: Row, wall: Wall) -> LedgerRow:
    fields = row.fields
    return LedgerRow(
        at=wall.at(int(fields["at"])),
        outcome=fields["outcome"],
        characters=int(fields["characters"]),
        used=int(fields["used"]),
        estimated=int(fields["estimated"]),
        **{name: fields.get(name) or None for name in ("call", "lane", "by", "why")},
    )

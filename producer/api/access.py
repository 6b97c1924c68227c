"""Routes of an org's access: the usage guidelines, its application for full access; and what holds
for every request of an org, by the mode and the state that it is in."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field

from millpond.clock import monotonic_ms
from millpond.domain.account import GUIDELINES_VERSION, Form, Identity, Stage
from millpond.errors import StoreUnavailable, UnknownPart
from millpond.producer.api.account_shapes import GuidelinesShape, access_mode, guidelines_shape
from millpond.producer.api.guidelines import GUIDELINES
from millpond.producer.api.values import Prose
from millpond.producer.api.wall import Wall, wall_now
from millpond.producer.http.problems import Problem, invalid
from millpond.producer.http.table import Call, Model, Name, Reply, Route, Who
from millpond.store.access import Access, Application, Word
from millpond.store.singles import Suspended
from millpond.store.store import Store

#: An org's mode and state are believed for so long.
_KNOWN_MS = 1_000
_ORGS_MOST = 10_000
_APPLICATIONS_MOST = 100
HEADER = "Millpond-Access"
#: What an org may write although it is suspended: a key that got about can always be revoked, and
#: what was sent can always be taken back.
_ALWAYS = frozenset({"revoke_key", "cancel_job", "delete_job"})

_mode: ContextVar[str | None] = ContextVar("mode", default=None)


# ---- what holds for every request


@dataclass(frozen=True, slots=True)
class OrgState:
    """How an org stood a moment ago."""

    mode: str
    suspended: bool


class OrgStates:
    """Every reply to an org tells its access mode; one that is suspended changes nothing.

    What is known of an org is a second old at most.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, OrgState]] = {}

    async def of(self, org: str) -> OrgState:
        """Raises UnknownPart and StoreUnavailable."""
        known = self._known.get(org)
        if known is None or monotonic_ms() >= known[0]:
            until_ms = monotonic_ms() + _KNOWN_MS
            view = await self._store.org(org)
            while len(self._known) >= _ORGS_MOST:
                del self._known[next(iter(self._known))]
            known = (until_ms, OrgState(access_mode(view), view.suspended))
            self._known[org] = known
        return known[1]

    def noting(
        self, identity: Callable[[str], Awaitable[Identity | None]]
    ) -> Callable[[str], Awaitable[Identity | None]]:
        """The same, and it is noted for the reply in which mode the caller's org is."""

        async def noted(text: str) -> Identity | None:
            who = await identity(text)
            if who is not None and who.org:
                with suppress(UnknownPart, StoreUnavailable):  # then the reply does not tell it
                    _mode.set((await self.of(who.org)).mode)
            return who

        return noted

    async def refuse_writes(self, route: Route, who: Identity | None) -> None:
        """Raises Suspended for what would change something of an org that is."""
        if who is None or route.method == "GET" or route.operation in _ALWAYS:
            return
        if (await self.of(who.org)).suspended:
            raise Suspended(who.org)


async def tell_mode(_: web.Request, response: web.StreamResponse) -> None:
    """For the application's `on_response_prepare`. (Each request is a task with a context of its
    own, so nothing is left of the one before it on the same connection.)"""
    mode = _mode.get()
    if mode is not None:
        response.headers[HEADER] = mode


# ---- shapes


class WordShape(Model):
    """What a reviewer asked back (`ask`), or what the org answered (`answer`)."""

    how: Literal["ask", "answer"]
    by: str
    at: str | None
    text: str


class DecisionShape(Model):
    """How an application ended. `checklist`: told to reviewers."""

    by: str
    at: str | None
    why: str
    checklist: dict[str, bool] | None = None


class ApplicationShape(Model):
    """An application for full access; those of an org are numbered from 1."""

    org: str
    number: int
    stage: Annotated[Stage, Field(strict=False)]
    use_case: str
    risks: str
    guidelines: str
    by: str
    at: str | None
    talk: list[WordShape]
    decision: DecisionShape | None


class AccessShape(Model):
    """Where the org stands: its mode, the guidelines, its latest application and those before."""

    mode: str
    suspended: bool
    guidelines: GuidelinesShape
    text: list[str] = Field(description="The usage guidelines, as they are now.")
    application: ApplicationShape | None
    history: list[ApplicationShape]


class GuidelinesAsked(Model):
    """Which version was read and is accepted."""

    version: Name


class ApplicationAsked(Model):
    """The form. With it the usage guidelines of that version are accepted."""

    use_case: Prose
    risks: Prose
    commitment: Literal[True] = Field(description="To responsible use.")
    guidelines: Name


class AnswerAsked(Model):
    """The answer to what the reviewer asked."""

    text: Prose


class WithdrawAsked(Model):
    """Why it is withdrawn, if that is told."""

    why: Prose | None = None


class AccessRoutes:
    """The handlers, and what they work with."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._access = Access(store)

    def routes(self) -> list[Route]:
        user: dict[str, Any] = {"who": Who.USER, "tags": ("access",)}
        form = "/v1/access/application"
        return [
            Route(
                "GET",
                "/v1/access",
                self.get_access,
                summary="The org's access mode, the guidelines, its applications for full access",
                replies={200: AccessShape},
                **user,
            ),
            Route(
                "POST",
                "/v1/access/guidelines",
                self.accept_guidelines,
                summary="Accept the usage guidelines",
                body=GuidelinesAsked,
                replies={200: GuidelinesShape},
                **user,
            ),
            Route(
                "POST",
                form,
                self.apply,
                summary="Apply for full access",
                body=ApplicationAsked,
                replies={201: ApplicationShape},
                problems=(409,),
                **user,
            ),
            Route(
                "POST",
                f"{form}/answer",
                self.answer,
                summary="Answer what the reviewer asked",
                body=AnswerAsked,
                replies={200: ApplicationShape},
                problems=(409,),
                **user,
            ),
            Route(
                "POST",
                f"{form}/withdraw",
                self.withdraw,
                summary="Withdraw the application",
                body=WithdrawAsked,
                body_optional=True,
                replies={200: ApplicationShape},
                problems=(409,),
                **user,
            ),
        ]

    async def get_access(self, call: Call) -> AccessShape:
        org = call.caller.org
        view = await self._store.org(org)
        found = await self._access.applications(org, most=_APPLICATIONS_MOST)
        wall = wall_now(self._store.gateway)
        shapes = [application_shape(one, wall) for one in found]
        return AccessShape(
            mode=access_mode(view),
            suspended=view.suspended,
            guidelines=guidelines_shape(view, wall),
            text=list(GUIDELINES),
            application=shapes[0] if shapes else None,
            history=shapes[1:],
        )

    async def accept_guidelines(self, call: Call) -> GuidelinesShape:
        who, version = call.caller, call.body.version
        _refuse_other_guidelines(version, "/version")
        await self._access.accept_guidelines(who.org, version, by=who.user)
        return guidelines_shape(await self._store.org(who.org), wall_now(self._store.gateway))

    async def apply(self, call: Call) -> Reply:
        who, asked = call.caller, call.body
        _refuse_other_guidelines(asked.guidelines, "/guidelines")
        form = Form(asked.use_case, asked.risks, asked.commitment, asked.guidelines)
        number = await self._access.apply(who.org, form, by=who.user)
        return Reply(await self._told(who.org, number), status=201)

    async def answer(self, call: Call) -> ApplicationShape:
        who = call.caller
        number = await self._latest(who.org)
        await self._access.answer(who.org, number, call.body.text, by=who.user)
        return await self._told(who.org, number)

    async def withdraw(self, call: Call) -> ApplicationShape:
        who = call.caller
        number = await self._latest(who.org)
        why = call.body.why if call.body is not None else None
        await self._access.withdraw(who.org, number, by=who.user, why=why or "")
        return await self._told(who.org, number)

    async def _latest(self, org: str) -> int:
        number = (await self._store.org(org)).application
        if not number:
            raise Problem("not-found", "the org has not applied for full access")
        return number

    async def _told(self, org: str, number: int) -> ApplicationShape:
        return application_shape(
            await self._access.application(org, number), wall_now(self._store.gateway)
        )


def _refuse_other_guidelines(version: str, pointer: str) -> None:
    if version != GUIDELINES_VERSION:
        raise invalid(pointer, f"the present guidelines are {GUIDELINES_VERSION}: accept those")


def application_shape(
    found: Application, wall: Wall, *, for_reviewers: bool = False
) -> ApplicationShape:
    decision = None
    if found.decision is not None:
        told = found.decision
        checklist = dict(told.checklist) if for_reviewers else None
        decision = DecisionShape(
            by=told.by, at=wall.at(told.at_ms), why=told.why, checklist=checklist
        )
    return ApplicationShape(
        org=found.org,
        number=found.number,
        stage=found.stage,
        use_case=found.form.use_case,
        risks=found.form.risks,
        guidelines=found.form.guidelines,
        by=found.by,
        at=wall.at(found.at_ms),
        talk=[_word(one, wall) for one in found.talk],
        decision=decision,
    )


def _word(word: Word, wall: Wall) -> WordShape:
    return WordShape(how=word.how, by=word.by, at=wall.at(word.at_ms), text=word.text)

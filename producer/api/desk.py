"""Routes of the review desk, where operators decide on applications for full access."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from millpond.domain.account import CHECKLIST, Stage, checklist_fault
from millpond.errors import UnknownPart
from millpond.producer.api.access import ApplicationShape, application_shape
from millpond.producer.api.operators import operator_name
from millpond.producer.api.terms import ModeTerms, TermsAsked, WhyAsked
from millpond.producer.api.values import Prose
from millpond.producer.api.wall import wall_now
from millpond.producer.http.pages import Page, PageQuery, cursor_of
from millpond.producer.http.problems import invalid
from millpond.producer.http.table import Call, Model, Route, Who
from millpond.store.access import Access
from millpond.store.store import Store

_NUMBER_DIGITS_MOST = 9


def _checklist(told: dict[str, bool]) -> dict[str, bool]:
    wrong = checklist_fault(told, approves=False)
    if wrong is not None:
        raise ValueError(wrong)
    return told


Ticked = Annotated[dict[str, bool], AfterValidator(_checklist)]


class ApprovalAsked(TermsAsked):
    """What the reviewer has ticked; every item of the list is needed."""

    checklist: Ticked = Field(description=f"Must have, each true: {', '.join(CHECKLIST)}.")


class RejectionAsked(WhyAsked):
    """What the reviewer has ticked, and why it was not enough."""

    checklist: Ticked = Field(default_factory=dict)


class QuestionAsked(Model):
    """What the reviewer wants to know."""

    question: Prose


class DeskQuery(PageQuery):
    """Which applications: those that wait for a reviewer, or for an answer."""

    stage: Literal["open", "asked"] = "open"


class DeskRoutes:
    """For operators: applications that wait, and what is decided on them."""

    def __init__(self, store: Store, terms: ModeTerms) -> None:
        self._gateway = store.gateway
        self._access = Access(store)
        self._terms = terms

    def routes(self) -> list[Route]:
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

    async def list_desk(self, call: Call) -> Page[ApplicationShape]:
        query: DeskQuery = call.query
        stage: Literal[Stage.OPEN, Stage.ASKED] = (
            Stage.OPEN if query.stage == "open" else Stage.ASKED
        )
        found = await self._access.desk(stage, after=query.cursor or "", most=query.limit)
        wall = wall_now(self._gateway)
        return Page[ApplicationShape](
            data=[application_shape(one, wall, for_reviewers=True) for one in found.entries],
            next_cursor=found.after and cursor_of(found.after),
        )

    async def get_application(self, call: Call) -> ApplicationShape:
        return await self._application(*_named(call))

    async def approve(self, call: Call) -> ApplicationShape:
        (org, number), asked, by = _named(call), call.body, operator_name(call.caller)
        if wrong := checklist_fault(asked.checklist, approves=True):
            raise invalid("/checklist", wrong)
        terms = self._terms.terms("full", asked)
        await self._access.approve(org, number, terms, asked.checklist, by=by, why=asked.why)
        return await self._application(org, number)

    async def reject(self, call: Call) -> ApplicationShape:
        (org, number), asked, by = _named(call), call.body, operator_name(call.caller)
        await self._access.reject(org, number, asked.checklist, by=by, why=asked.why)
        return await self._application(org, number)

    async def ask(self, call: Call) -> ApplicationShape:
        org, number = _named(call)
        await self._access.ask(org, number, call.body.question, by=operator_name(call.caller))
        return await self._application(org, number)

    async def _application(self, org: str, number: int) -> ApplicationShape:
        found = await self._access.application(org, number)
        return application_shape(found, wall_now(self._gateway), for_reviewers=True)


def _named(call: Call) -> tuple[str, int]:
    """Which application. Raises UnknownPart for what can be none's number."""
    org, text = call.path["org"], call.path["number"]
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS_MOST):
        raise UnknownPart(f"application of org {org}", text)
    return org, int(text)

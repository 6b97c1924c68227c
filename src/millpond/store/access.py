"""What an org may do: guidelines, applications for full access, mode and suspension."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import orjson
from redis.asyncio.client import Pipeline

from millpond.domain.account import (
    GUIDELINES_VERSION,
    Form,
    Stage,
    checklist_fault,
    form_fault,
    text_fault,
)
from millpond.domain.job import Endpoint
from millpond.domain.limit import Limit, Limits, Unit
from millpond.errors import Refused, UnknownPart
from millpond.store import keys
from millpond.store.directory import TooMany
from millpond.store.reading import Page, page_size, read_all, refuse, texts
from millpond.store.store import Approval, Changes, LaneTerms, Store, WrongStage
from millpond.store.view import LaneView

#: Questions and answers that are kept of one application.
TALK_MOST = 100


class HasFullAccess(Refused):
    """An org applies for what it has."""

    code = "has_full_access"

    def __init__(self, org: str) -> None:
        super().__init__(f"org {org} has full access already")


class AlreadyApplied(Refused):
    """An org has one application at a time that waits."""

    code = "already_applied"

    def __init__(self, org: str, number: int) -> None:
        super().__init__(
            f"application {number} of org {org} is not decided yet: wait for it, answer what is "
            "asked, or withdraw it first"
        )
        self.number = number


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds in an access mode; a quota of None is none."""

    mode: str
    quota: int | None
    limits: Limits


@dataclass(frozen=True, slots=True)
class Word:
    """What a reviewer asked back, or what the org answered."""

    how: Literal["ask", "answer"]
    by: str
    at_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class Decision:
    """How an application ended: by whom, when and why. Of a withdrawn one there is no checklist."""

    by: str
    at_ms: int
    why: str
    checklist: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Application:
    """An org's application for full access; they are numbered from 1."""

    org: str
    number: int
    stage: Stage
    form: Form
    by: str
    at_ms: int
    talk: tuple[Word, ...]
    decision: Decision | None


class Access:
    """Guidelines, applications, modes and suspension of the orgs of one partition."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gateway = store.gateway

    # ------------------------------------------------------------ the org's side

    async def accept_guidelines(self, org: str, version: str, *, by: str) -> None:
        """Raises UnknownPart, and BadValue for guidelines that are not the present ones."""
        refuse(
            None
            if version == GUIDELINES_VERSION
            else f"the present usage guidelines are {GUIDELINES_VERSION}: read and accept those"
        )
        await self._apply(org, by, version, "", "")

    async def apply(self, org: str, form: Form, *, by: str) -> int:
        """Apply for full access; the number of the application. The guidelines are accepted by it.

        Raises UnknownPart, HasFullAccess, AlreadyApplied and BadValue.
        """
        refuse(form_fault(form))
        return await self._apply(org, by, form.guidelines, form.use_case, form.risks)

    async def _apply(self, org: str, by: str, *told: str) -> int:
        match await self._gateway.run("apply", by, org, *told):
            case [b"applied", number]:
                return int(number)
            case [b"unknown", b"org"]:
                raise UnknownPart("org", org)
            case [b"approved"]:
                raise HasFullAccess(org)
            case [b"waiting", number]:
                raise AlreadyApplied(org, int(number))
            case other:
                raise AssertionError(f"apply.lua replied {other}")

    async def answer(self, org: str, number: int, text: str, *, by: str) -> None:
        """Answer what the reviewer asked. Raises UnknownPart, WrongStage, TooMany and BadValue."""
        refuse(text_fault("the answer", text))
        await self._step(org, number, "answer", by, text)

    async def withdraw(self, org: str, number: int, *, by: str, why: str = "") -> None:
        """Raises UnknownPart and WrongStage."""
        refuse(text_fault("why", why) if why else None)
        await self._step(org, number, "withdraw", by, why)

    # ------------------------------------------------------------ the reviewer's side

    async def desk(
        self,
        stage: Literal[Stage.OPEN, Stage.ASKED] = Stage.OPEN,
        *,
        after: str = "",
        most: int = 100,
    ) -> Page[Application]:
        """Applications of all orgs that wait for a reviewer, the oldest first; or those that wait
        for an answer."""
        first = f"({after}" if after else "-"
        pipe = self._pipe()
        key = keys.desk(self._gateway.partition, stage)
        pipe.zrangebylex(key, first, "+", 0, page_size(most))
        [found] = await read_all(pipe)
        places = [place.decode() for place in found]
        named = [place.split("|", 2) for place in places]
        entries = await self._read([(org, int(number)) for _, number, org in named])
        return Page(tuple(entries), places[-1] if len(places) == most else None)

    async def ask(self, org: str, number: int, question: str, *, by: str) -> None:
        """Ask back. Raises UnknownPart, WrongStage, TooMany and BadValue."""
        refuse(text_fault("the question", question))
        await self._step(org, number, "ask", by, question)

    async def approve(
        self,
        org: str,
        number: int,
        terms: Terms,
        checklist: Mapping[str, bool],
        *,
        by: str,
        why: str,
    ) -> int:
        """The org has these terms from the next decision on; the version of its record.

        Mode, quota, the limits of all lanes and the approval itself change in one step. Whoever
        heard no answer says it again: that changes nothing twice. Raises UnknownPart, WrongStage
        and BadValue.
        """
        refuse(checklist_fault(checklist, approves=True) or text_fault("why", why))
        return await self._switch(org, terms, by=by, why=why, approval=Approval(number, checklist))

    async def reject(
        self, org: str, number: int, checklist: Mapping[str, bool], *, by: str, why: str
    ) -> None:
        """The org may apply again. Raises UnknownPart, WrongStage and BadValue."""
        refuse(checklist_fault(checklist, approves=False) or text_fault("why", why))
        ticked = orjson.dumps(dict(checklist)).decode()
        await self._step(org, number, "reject", by, why, ticked)

    async def _step(
        self,
        org: str,
        number: int,
        how: Literal["ask", "answer", "reject", "withdraw"],
        by: str,
        text: str,
        checklist: str = "{}",
    ) -> None:
        match await self._gateway.run("review", by, org, number, how, text, checklist, TALK_MOST):
            case [b"stepped"]:
                return
            case [b"unknown"]:
                raise UnknownPart(f"application of org {org}", str(number))
            case [b"stage", stage]:
                raise WrongStage(org, number, Stage(stage.decode()))
            case [b"full"]:
                raise TooMany(
                    f"application {number} of org {org} has {TALK_MOST} questions and answers: "
                    "decide it, or withdraw it and apply again"
                )
            case other:
                raise AssertionError(f"review.lua replied {other}")

    # ------------------------------------------------------------ the operator's side

    async def to_limited(self, org: str, terms: Terms, *, by: str, why: str) -> int:
        """Back to limited terms: what was used counts again. The version of the org's record."""
        refuse(text_fault("why", why))
        return await self._switch(org, terms, by=by, why=why)

    async def suspend(self, org: str, *, by: str, why: str) -> int:
        """Nothing goes, until it is lifted; calls that were sent end and are charged."""
        refuse(text_fault("why", why))
        return await self._store.change(org, Changes(status="suspended", why=why), by=by)

    async def lift(self, org: str, *, by: str, why: str) -> int:
        """What waited goes on."""
        refuse(text_fault("why", why))
        return await self._store.change(org, Changes(status="active", why=why), by=by)

    async def _switch(
        self, org: str, terms: Terms, *, by: str, why: str, approval: Approval | None = None
    ) -> int:
        told = Changes(
            mode=terms.mode,
            quota="none" if terms.quota is None else terms.quota,
            lanes=await self._lanes(org, terms.limits),
            approval=approval,
            why=why,
        )
        return await self._store.change(org, told, by=by)

    async def _lanes(self, org: str, limits: Limits) -> list[LaneTerms]:
        """The terms of an org's lanes, each for its endpoint; what is kept for interactive jobs is
        kept further on."""
        found = []
        for lane in await self._store.lanes(org):
            endpoint = lane.rpartition(".")[2]
            if endpoint in set(limits):
                new = limits[Endpoint(endpoint)]
                with suppress(UnknownPart):  # it was lost, and will be opened anew
                    seen = (await self._store.explain(lane=lane)).lane
                    found.append(LaneTerms(lane, new, bulk_under(seen, new)))
        return found

    # ------------------------------------------------------------ reading

    async def application(self, org: str, number: int) -> Application:
        """Raises UnknownPart."""
        found = await self._read([(org, number)])
        if not found:
            raise UnknownPart(f"application of org {org}", str(number))
        return found[0]

    async def applications(self, org: str, *, most: int = 100) -> list[Application]:
        """An org's applications, the latest first. Raises UnknownPart."""
        last = (await self._store.org(org)).application
        first = max(1, last - page_size(most) + 1)
        return await self._read([(org, number) for number in range(last, first - 1, -1)])

    async def _read(self, named: Sequence[tuple[str, int]]) -> list[Application]:
        partition, pipe = self._gateway.partition, self._pipe()
        for org, number in named:
            pipe.hgetall(keys.application(partition, org, number))
            pipe.lrange(keys.talk(partition, org, number), 0, -1)
        told = await read_all(pipe)
        return [
            _application(org, number, texts(fields), talk)
            for (org, number), fields, talk in zip(named, told[::2], told[1::2], strict=True)
            if fields
        ]

    def _pipe(self) -> Pipeline:
        return self._gateway.redis.pipeline(transaction=False)


def bulk_under(lane: LaneView, limits: Sequence[Limit]) -> list[Limit]:
    """What bulk may use of new limits, if so much is kept for interactive jobs as under those that
    the lane has; nothing is kept where that would leave bulk nothing."""
    whole = {one.window_ms: one.amount for one in lane.windows if one.unit == Unit.CALLS}
    kept = {
        one.window_ms: whole[one.window_ms] - one.amount
        for one in lane.windows
        if one.unit == Unit.BULK and one.window_ms in whole
    }
    return [
        Limit(limit.amount - kept[limit.window_ms], limit.window_ms, limit.written, Unit.BULK)
        for limit in limits
        if limit.unit == Unit.CALLS and 0 < kept.get(limit.window_ms, 0) < limit.amount
    ]


def _application(org: str, number: int, told: dict[str, str], talk: list[bytes]) -> Application:
    words = [orjson.loads(one) for one in talk]
    decision = None
    if "decided" in told:
        checklist = orjson.loads(told["checklist"])
        decision = Decision(told["decided_by"], int(told["decided"]), told["why"], checklist)
    return Application(
        org=org,
        number=number,
        stage=Stage(told["stage"]),
        form=Form(told["use_case"], told["risks"], True, told["guidelines"]),
        by=told["by"],
        at_ms=int(told["at"]),
        talk=tuple(Word(one["how"], one["by"], int(one["at"]), one["text"]) for one in words),
        decision=decision,
    )

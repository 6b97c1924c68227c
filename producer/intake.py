"""Taking single jobs in: each is checked as its provider would, its cost is bounded, and it enters
its user's flow. All of a request, or nothing of it.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson
import uuid_utils

from millpond import tracing
from millpond.clock import monotonic_ms
from millpond.domain.account import Identity
from millpond.domain.job import Class, Endpoint
from millpond.domain.request import Ask, Common, Example
from millpond.errors import Refused
from millpond.producer.api.shapes import JobAsked
from millpond.producer.examples import MIN_LABELS, MIN_PER_LABEL
from millpond.providers.adapter import Adapter, BadParameter
from millpond.providers.catalogue import ModelRefused, Models, check_model
from millpond.providers.profile import Mode, Profile
from millpond.providers.several import need_of
from millpond.store.own_models import OwnModels
from millpond.store.singles import Bounds, Flow, FlowClosed, Kept, Single, Singles
from millpond.store.store import Store

#: Failures that a single job may have, and deaths of a worker that it may see.
ATTEMPTS, CRASHES = 5, 3
MAX_TOKENS = 256
#: How far from now a deadline or a not_before may be.
AHEAD_MOST_DAYS = 30
_MODE_KNOWN_MS = 1_000
_MODES_MOST = 10_000
#: What a job asks, by endpoint: the fields that may say it.
_ASKED_BY = {
    Endpoint.GENERATE: ("prompt",),
    Endpoint.EMBED: ("text", "inputs"),
    Endpoint.CLASSIFY: ("text", "inputs"),
}


class BadJob(Refused):
    """A job that cannot be asked; `pointer` says where in the request."""

    code = "bad_job"

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the provider that jobs go to."""

    profile: Profile
    adapter: Adapter
    models: Models | None


class Intake:
    """Takes jobs of any org in."""

    def __init__(self, store: Store, known: Known, bounds: Bounds) -> None:
        self._store = store
        self._singles = Singles(store.gateway)
        self._own_models = OwnModels(store.gateway)
        self._known = known
        self._bounds = bounds
        self._modes: dict[str, tuple[float, str]] = {}
        self._tracer = tracing.begin()

    async def knows(self, who: Identity, idempotency: str) -> bool:
        """Whether something was submitted under an idempotency key, whatever it was."""
        return await self._singles.is_known(who.org, _digest(who.user, idempotency))

    async def said_before(
        self, who: Identity, asked: Sequence[JobAsked], *, alone: bool, idempotency: str | None
    ) -> list[str] | None:
        """The ids of what was taken in when the same was said before: under the key of the request,
        or, of a job that is asked for by itself, under its own. It is looked up before anything is
        checked that may have changed meanwhile. Raises KeyReused."""
        found = None
        if idempotency is not None:
            key, print_ = _digest(who.user, idempotency), _print(asked)
            found = await self._singles.said_before(who.org, key, print_)
        if found is None and alone and asked[0].idempotency is not None:
            key, print_ = _digest(who.user, asked[0].idempotency), _print(asked)
            found = await self._singles.said_before(who.org, key, print_)
        return found

    async def take(
        self, who: Identity, asked: Sequence[JobAsked], *, alone: bool, idempotency: str | None
    ) -> list[str]:
        """Queue jobs; their ids. `alone`: one was asked for by itself, not in a list.

        Raises BadJob, and what Singles.submit raises but FlowClosed.
        """
        if self._tracer is None:
            return await self._take(who, asked, alone, idempotency, traceparent="")
        with tracing.submitting(self._tracer, len(asked)) as traceparent:
            return await self._take(who, asked, alone, idempotency, traceparent=traceparent)

    async def _take(
        self,
        who: Identity,
        asked: Sequence[JobAsked],
        alone: bool,
        idempotency: str | None,
        *,
        traceparent: str,
    ) -> list[str]:
        mode = await self._mode(who.org)
        own = await self._own(who.org, asked)
        jobs = []
        for number, one in enumerate(asked):
            where = "" if alone else f"/{number}"
            job = self._job(who, one, where, mode, own, alone=alone)
            if traceparent:
                job = replace(job, payload=tracing.with_traceparent(job.payload, traceparent))
            jobs.append(job)
        key, print_ = "", ""
        if idempotency is not None:
            key = _digest(who.user, idempotency)
            print_ = _print(asked)
        for _ in range(len(asked) + 1):
            try:
                return await self._singles.submit(
                    who.org, jobs, self._bounds, idempotency=key, fingerprint=print_
                )
            except FlowClosed as closed:
                await self._open(who, closed.flow)
        raise AssertionError("flows close as fast as they are opened")

    def _job(
        self,
        who: Identity,
        asked: JobAsked,
        where: str,
        mode: str,
        own: Mapping[str, str],
        *,
        alone: bool,
    ) -> Single:
        endpoint = asked.endpoint
        texts = _texts(asked, where)
        usual = self._known.profile.model(endpoint)
        model = asked.model or usual
        if model is None:
            raise BadJob(f"{where}/model", "this provider has no usual model: name one")
        if asked.examples is not None and endpoint is not Endpoint.CLASSIFY:
            raise BadJob(f"{where}/examples", f"only classify takes examples, not {endpoint}")
        examples = tuple(Example(one.text, one.label) for one in asked.examples or ())
        if endpoint is Endpoint.CLASSIFY:
            _check_examples(examples, f"{where}/examples")
        common = Common(endpoint, model, MAX_TOKENS, asked.params, examples)
        ask = Ask(texts[0], more=tuple(texts[1:]), common=common)
        try:
            self._check_model(mode, own, endpoint, model)
            need = need_of(self._known.adapter, common, ask)
        except BadParameter as bad:
            field = f"params/{bad.name}"
            if bad.name not in asked.params:
                field = "model" if bad.name == "model" else _said(asked)[0]
            raise BadJob(f"{where}/{field}", str(bad)) from None
        klass = asked.class_ or ("interactive" if alone else "bulk")
        now = time.time()
        note: dict[str, Any] = {
            "model": model,
            "class": klass,
            "endpoint": endpoint,
            "user": who.user,
        }
        if asked.metadata:
            note["metadata"] = asked.metadata
        return Single(
            id=new_id(),
            flow=flow_id(who, endpoint, klass),
            need=need.characters,
            payload=ask.write(),
            note=orjson.dumps(note).decode(),
            tokens=need.tokens,
            base=need.base,
            pack="" if ask.more else self._known.adapter.pack_key(common, ask),
            within_ms=_within_ms(asked.deadline, now, f"{where}/deadline"),
            wait_ms=max(0, _ms_until(asked.not_before, now, f"{where}/not_before")),
            on_unknown=asked.on_unknown,
            tag=f"{endpoint}|{who.user}|{model}",
            idempotency="" if asked.idempotency is None else _digest(who.user, asked.idempotency),
            fingerprint="" if asked.idempotency is None else _print([asked]),
        )

    async def _open(self, who: Identity, flow: str) -> None:
        endpoint, klass = read_flow_id(flow)
        common = Common(endpoint, self._known.profile.model(endpoint) or "", MAX_TOKENS)
        await self._singles.open(
            Flow(
                id=flow,
                org=who.org,
                lane=f"{who.org}.{endpoint}",
                user=who.user,
                klass=klass,
                attempts=ATTEMPTS,
                crashes=CRASHES,
                pack=self._known.adapter.pack_most(common),
                common=common.write(),
            ),
            by=who.user,
        )

    async def check_again(self, org: str, job: Kept) -> None:
        """Whether a job may be asked again as things are now. Raises BadJob: its model is not the
        org's any more, or not in the mode it has now."""
        note = orjson.loads(job.note)
        own = await self._own_models.of(org)
        mode = await self._mode(org)
        try:
            self._check_model(mode, own, Endpoint(note["endpoint"]), note["model"])
        except BadParameter as bad:
            raise BadJob("", f"it cannot be asked again: {bad}") from None

    def _check_model(
        self, mode: str, own: Mapping[str, str], endpoint: Endpoint, model: str
    ) -> None:
        known: Mode = "full" if mode == "full" else "limited"
        try:
            check_model(self._known.models, own, known, endpoint, model)
        except ModelRefused as refused:
            raise refused.adding(_way_out(refused)) from None

    async def _mode(self, org: str) -> str:
        """The org's access mode, which may be a second old."""
        known = self._modes.get(org)
        if known is None or monotonic_ms() >= known[0]:
            mode = (await self._store.org(org)).mode or "limited"
            while len(self._modes) >= _MODES_MOST:
                del self._modes[next(iter(self._modes))]
            self._modes[org] = known = (monotonic_ms() + _MODE_KNOWN_MS, mode)
        return known[1]

    async def _own(self, org: str, asked: Sequence[JobAsked]) -> Mapping[str, str]:
        """The org's fine-tuned models, if a job may mean one."""
        models = self._known.models
        if models is None or all(one.model is None or one.model in models for one in asked):
            return {}
        return await self._own_models.of(org)


def _way_out(refused: ModelRefused) -> str:
    """What a caller of the service can do about a model that is refused."""
    match refused.why:
        case "unknown":
            return (
                "A fine-tuned model is added by an admin of the org: POST /v1/models, or "
                "`millpond own add-model`"
            )
        case "base":
            return "Whoever runs the service can add that to the models it knows"
        case "mode" if "full" in refused.modes:
            return (
                "Full access has it: POST /v1/access/application, or `millpond access apply`, "
                "applies for that"
            )
        case "mode" | "endpoint":
            return ""


def new_id() -> str:
    """A job's id: those that are made later sort behind."""
    return f"job_{uuid_utils.uuid7().hex}"


def id_again(user: str, job: str, idempotency: str) -> str:
    """The id of a job asked again under an idempotency key: the same whenever it is said again."""
    return f"job_{_digest(user, f'{job} {idempotency}')}"


def flow_id(who: Identity, endpoint: Endpoint, klass: str) -> str:
    """Of a user's single jobs of one endpoint and class."""
    return f"{who.org}.{endpoint}.{klass}.{who.user}"


def read_flow_id(flow: str) -> tuple[Endpoint, Class]:
    """What the jobs of a flow ask for, and how they take turns."""
    _, endpoint, klass, _ = flow.split(".", 3)
    return Endpoint(endpoint), Class.INTERACTIVE if klass == "interactive" else Class.BULK


def _texts(asked: JobAsked, where: str) -> list[str]:
    """What is asked, said in the one field that the endpoint has for it."""
    takes = _ASKED_BY[asked.endpoint]
    said = _said(asked)
    for name in said:
        if name not in takes:
            wanted = " or ".join(f"{one!r}" for one in takes)
            raise BadJob(f"{where}/{name}", f"{asked.endpoint} takes {wanted}, not {name!r}")
    if len(said) > 1:
        raise BadJob(f"{where}/{said[1]}", f"{said[0]!r} or {said[1]!r}, not both")
    if not said:
        raise BadJob(f"{where}/{takes[0]}", f"{takes[0]!r} is missing: there is nothing to ask")
    found = getattr(asked, said[0])
    return found if isinstance(found, list) else [found]


def _said(asked: JobAsked) -> list[str]:
    return [name for name in ("prompt", "text", "inputs") if getattr(asked, name) is not None]


def _check_examples(examples: Sequence[Example], pointer: str) -> None:
    count = Counter(one.label for one in examples)
    few = [label for label, found in count.items() if found < MIN_PER_LABEL]
    if len(count) < MIN_LABELS or few:
        found = f"there is one only of {few[0]!r}" if few else f"there are {len(count)} labels"
        raise BadJob(
            pointer,
            f"classify needs {MIN_LABELS} labels, with {MIN_PER_LABEL} examples of each: {found}",
        )


def _within_ms(deadline: datetime | None, now: float, pointer: str) -> int:
    left_ms = _ms_until(deadline, now, pointer)
    if deadline is not None and left_ms <= 0:
        raise BadJob(pointer, "the deadline has passed already")
    return left_ms


def _ms_until(moment: datetime | None, now: float, pointer: str) -> int:
    """0: no moment was named."""
    if moment is None:
        return 0
    left_s = moment.timestamp() - now
    if left_s > AHEAD_MOST_DAYS * 86_400:
        raise BadJob(pointer, f"it is {AHEAD_MOST_DAYS} days from now at most")
    return round(left_s * 1_000)


def _print(asked: Sequence[JobAsked]) -> str:
    """Of what is asked: the same for the same."""
    told = (one.model_dump_json(by_alias=True, exclude_defaults=True).encode() for one in asked)
    return hashlib.sha256(b"\n".join(told)).hexdigest()


def _digest(user: str, key: str) -> str:
    """Of an idempotency key, which is the user's own."""
    return hashlib.sha256(f"{user}\n{key}".encode()).hexdigest()[:32]

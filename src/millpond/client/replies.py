"""What the server tells, as frozen values.

A field that is new at the server is no mistake: what has no name here is in `raw`, where there is
one. A field that is missing is None or empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar

from millpond.client.errors import ClientError, JobFailed

Raw: TypeAlias = Mapping[str, Any]
T = TypeVar("T")

_ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment, and how far from now it was when it was told. `at` is text if it is no date."""

    at: datetime | str
    in_s: float

    @classmethod
    def of(cls, told: Raw | None) -> "Moment | None":
        if not told:
            return None
        text = str(told.get("at", ""))
        return cls(when(text) or text, float(told.get("in_s", 0.0)))


@dataclass(frozen=True, slots=True)
class Waits:
    """Why a job has not gone: the limit that it waits for, and when the next may go."""

    why: str
    limit: str
    unit: str | None = None
    used: int | None = None
    amount: int | None = None
    next_release: Moment | None = None
    since: Moment | None = None
    calls_before: int | None = None

    @classmethod
    def of(cls, told: Raw | None) -> "Waits | None":
        if not told:
            return None
        return cls(
            why=str(told.get("why", "")),
            limit=str(told.get("limit", "")),
            unit=told.get("unit"),
            used=told.get("used"),
            amount=told.get("amount"),
            next_release=Moment.of(told.get("next_release")),
            since=Moment.of(told.get("since")),
            calls_before=told.get("calls_before"),
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """When a job will go and be answered, as things stood; None: nobody knows."""

    goes: Moment | None = None
    answered: Moment | None = None

    @classmethod
    def of(cls, told: Raw | None) -> "Estimate | None":
        if not told:
            return None
        return cls(Moment.of(told.get("goes")), Moment.of(told.get("answered")))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job has no answer."""

    code: str
    message: str
    pointer: str | None = None
    provider_status: int | None = None

    @classmethod
    def of(cls, told: Raw | None) -> "Failure | None":
        if not told:
            return None
        return cls(
            str(told.get("code", "")),
            str(told.get("message", "")),
            told.get("pointer"),
            told.get("provider_status"),
        )


@dataclass(frozen=True, slots=True)
class Characters:
    """What the texts of a job and its answer come to."""

    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stood when it was asked about; of a submission, what is known by then.
    `simulated`: its answer is of a provider to try things on."""

    id: str
    state: str
    endpoint: str = ""
    class_: str | None = None
    model: str | None = None
    user: str | None = None
    submitted_at: datetime | None = None
    ended_at: datetime | None = None
    deadline: datetime | None = None
    attempts: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    reason: Waits | None = None
    estimate: Estimate | None = None
    cancelling: bool = False
    again_of: str | None = None
    result: Raw | None = field(default=None, repr=False)
    error: Failure | None = None
    simulated: bool = False

    @classmethod
    def of(cls, told: Raw, *, endpoint: str = "", class_: str | None = None) -> "Job":
        return cls(
            id=str(told["id"]),
            state=str(told["state"]),
            endpoint=str(told.get("endpoint") or endpoint),
            class_=told.get("class") or class_,
            model=told.get("model"),
            user=told.get("user"),
            submitted_at=when(told.get("submitted_at")),
            ended_at=when(told.get("ended_at")),
            deadline=when(told.get("deadline")),
            attempts=int(told.get("attempts") or 0),
            metadata=dict(told.get("metadata") or {}),
            reason=Waits.of(told.get("reason")),
            estimate=Estimate.of(told.get("estimate")),
            cancelling=bool(told.get("cancelling")),
            again_of=told.get("again_of"),
            result=told.get("result"),
            error=Failure.of(told.get("error")),
            simulated=bool(told.get("simulated")),
        )

    @property
    def ended(self) -> bool:
        """Whether it has its answer, or will never have one."""
        return self.ended_at is not None or self.state in _ENDED

    @property
    def characters(self) -> Characters | None:
        """What it came to, once it was answered."""
        told = (self.result or {}).get("characters")
        return Characters(int(told["input"]), int(told["output"])) if told else None

    def answer(self) -> "Answer":
        """Its answer. Raises JobFailed if it ended without one, ValueError before it has ended."""
        if not self.ended:
            raise ValueError(f"job {self.id} is {self.state}: wait for it first")
        if self.state != "succeeded" or self.result is None:
            error = self.error or Failure(self.state, "it has no answer")
            raise JobFailed(self, error.code, error.message)
        if "text" in self.result:
            return Generation.of(self)
        several = self.result.get("results")
        if self.endpoint == "classify":
            if several is None:
                return Classification.of(self, self.result)
            return [Classification.of(self, one) for one in several]
        if several is None:
            return Embedding.of(self, self.result)
        return [Embedding.of(self, one) for one in several]


@dataclass(frozen=True, slots=True)
class Generation:
    """What a prompt was answered with; `texts` are all of them, if several were asked for."""

    text: str
    texts: tuple[str, ...]
    characters: Characters
    model: str
    finish_reason: str | None = None
    job: Job = field(kw_only=True, repr=False)

    @classmethod
    def of(cls, job: Job) -> "Generation":
        told = job.result or {}
        text = str(told.get("text", ""))
        return cls(
            text=text,
            texts=tuple(told.get("texts") or (text,)),
            characters=job.characters or Characters(0, 0),
            model=str(told.get("model") or job.model or ""),
            finish_reason=told.get("finish_reason"),
            job=job,
        )


@dataclass(frozen=True, slots=True)
class Embedding:
    """A text as a vector."""

    vector: tuple[float, ...] = field(repr=False)
    model: str
    job: Job = field(kw_only=True, repr=False)

    @classmethod
    def of(cls, job: Job, told: Raw) -> "Embedding":
        return cls(tuple(told["embedding"]), _model(job), job=job)


@dataclass(frozen=True, slots=True)
class Classification:
    """A text's label, and how sure that is; `confidences` is of every label."""

    label: str
    confidence: float
    confidences: Mapping[str, float]
    model: str
    job: Job = field(kw_only=True, repr=False)

    @classmethod
    def of(cls, job: Job, told: Raw) -> "Classification":
        label = str(told["label"])
        confidences = {str(name): float(one) for name, one in told.get("confidences", {}).items()}
        confidence = float(told.get("confidence", confidences.get(label, 0.0)))
        return cls(label, confidence, confidences, _model(job), job=job)


Answer: TypeAlias = Generation | Embedding | list[Embedding] | Classification | list[Classification]


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What became of an item: an answer, or the error that stands in its place. `job` is None if
    none was taken in."""

    item: T
    index: int
    job: Job | None = None
    value: Answer | None = None
    error: Exception | None = None

    @classmethod
    def of(cls, item: T, index: int, job: Job) -> "Result[T]":
        """Of a job that has ended."""
        try:
            return cls(item, index, job, value=job.answer())
        except (ClientError, ValueError, KeyError, TypeError) as error:
            return cls(item, index, job, error=error)

    @property
    def ok(self) -> bool:
        return self.error is None

    def unwrap(self) -> Answer:
        """The answer; raises the error if there is none."""
        if self.error is not None:
            raise self.error
        assert self.value is not None
        return self.value


@dataclass(frozen=True, slots=True)
class LimitStanding:
    """A limit of the provider, as `60/60s`, and what is used of it."""

    limit: str
    unit: str
    used: int
    amount: int
    has_room: Moment | None = None

    @classmethod
    def of(cls, told: Raw) -> "LimitStanding":
        return cls(
            str(told.get("limit", "")),
            str(told.get("unit", "")),
            int(told.get("used") or 0),
            int(told.get("amount") or 0),
            Moment.of(told.get("has_room")),
        )


@dataclass(frozen=True, slots=True)
class LaneStanding:
    """How an endpoint stands: its limits, and why its next job waits, if one does."""

    limits: tuple[LimitStanding, ...]
    in_flight: int
    state: str | None
    waits: Waits | None
    raw: Raw = field(repr=False)

    @classmethod
    def of(cls, told: Raw) -> "LaneStanding":
        return cls(
            limits=tuple(map(LimitStanding.of, told.get("limits") or ())),
            in_flight=int(told.get("in_flight") or 0),
            state=told.get("state"),
            waits=Waits.of(told.get("waits")),
            raw=told,
        )


@dataclass(frozen=True, slots=True)
class OrgStanding:
    """An org and its quota of characters; None: it has none."""

    id: str
    state: str
    mode: str | None
    quota: int | None
    used: int
    reserved: int
    left: int | None
    raw: Raw = field(repr=False)

    @classmethod
    def of(cls, told: Raw) -> "OrgStanding":
        return cls(
            id=str(told.get("id", "")),
            state=str(told.get("state", "")),
            mode=told.get("mode"),
            quota=told.get("quota"),
            used=int(told.get("used") or 0),
            reserved=int(told.get("reserved") or 0),
            left=told.get("left"),
            raw=told,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """The org's quota, and its limits by endpoint."""

    org: OrgStanding
    endpoints: Mapping[str, LaneStanding]

    @classmethod
    def of(cls, told: Raw) -> "Limits":
        lanes = {name: LaneStanding.of(one) for name, one in told.get("endpoints", {}).items()}
        return cls(OrgStanding.of(told.get("org") or {}), lanes)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job waits, and when it will go and be answered."""

    id: str
    state: str
    waits: Waits | None
    calls_before: int | None
    goes: Moment | None
    answered: Moment | None
    org: OrgStanding
    lane: LaneStanding
    raw: Raw = field(repr=False)

    @classmethod
    def of(cls, told: Raw) -> "Explanation":
        return cls(
            id=str(told.get("id", "")),
            state=str(told.get("state", "")),
            waits=Waits.of(told.get("waits")),
            calls_before=told.get("calls_before"),
            goes=Moment.of(told.get("goes")),
            answered=Moment.of(told.get("answered")),
            org=OrgStanding.of(told.get("org") or {}),
            lane=LaneStanding.of(told.get("lane") or {}),
            raw=told,
        )


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What jobs used on a day (UTC)."""

    day: str
    user: str
    endpoint: str
    model: str
    jobs: int
    characters: int

    @classmethod
    def of(cls, told: Raw) -> "UsageRow":
        return cls(
            day=str(told.get("day", "")),
            user=str(told.get("user", "")),
            endpoint=str(told.get("endpoint", "")),
            model=str(told.get("model", "")),
            jobs=int(told.get("jobs") or 0),
            characters=int(told.get("characters") or 0),
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """Characters and jobs, the latest day first; and what the quota stands at."""

    rows: tuple[UsageRow, ...]
    quota: int | None
    used: int
    estimated: int
    reserved: int

    @classmethod
    def of(cls, told: Raw) -> "Usage":
        rows = tuple(map(UsageRow.of, told.get("data") or ()))
        used, estimated, reserved = (
            int(told.get(name) or 0) for name in ("used", "estimated", "reserved")
        )
        return cls(rows, told.get("quota"), used, estimated, reserved)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the org may use. `base`: it is the org's own, made of that one."""

    id: str
    kind: str | None
    size: str | None
    endpoints: tuple[str, ...]
    base: str | None

    @classmethod
    def of(cls, told: Raw) -> "Model":
        return cls(
            str(told.get("id", "")),
            told.get("kind"),
            told.get("size"),
            tuple(told.get("endpoints") or ()),
            told.get("base"),
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the org's jobs or quota. `reset`: events were missed, so look at
    what you wait for. `id` is what `events(last_event_id=…)` goes on from."""

    kind: str
    data: Raw
    id: str | None = None


def when(text: Any) -> datetime | None:
    """A moment in RFC 3339; None for what is none."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _model(job: Job) -> str:
    return str((job.result or {}).get("model") or job.model or "")

"""What the jobs API takes and tells."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BeforeValidator,
    Field,
    RootModel,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from millpond.domain.job import Endpoint, State
from millpond.producer.http.strict_json import JsonObject
from millpond.producer.http.table import Model, Name

#: Characters of all texts of a job.
TEXT_MOST = 500_000
INPUTS_MOST = 96
EXAMPLES_MOST = 2_500
LIST_MOST = 500
METADATA_MOST = 16

Text = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_MOST)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=500)]
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _rfc3339(told: object) -> object:
    """pydantic would take seconds since 1970 as well, and days without a time."""
    if not isinstance(told, str | datetime) or (
        isinstance(told, str) and not _RFC3339.fullmatch(told)
    ):
        raise ValueError("it must be a text as RFC 3339 has it, as 2026-01-31T12:00:00Z")
    return told


When = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339)]
Metadata = Annotated[
    dict[Name, Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=METADATA_MOST, description="Your own words, kept with the job."),
]
ClassName = Literal["interactive", "bulk"]
EndpointName = Annotated[Endpoint, Field(strict=False)]


class ExampleShape(Model):
    """For classify: a text with its label."""

    text: Text
    label: Label


class JobAsked(Model):
    """A job to submit. Generate takes `prompt`; embed `text`, or several as `inputs`; classify the
    same, with `examples`."""

    endpoint: EndpointName
    prompt: Text | None = None
    text: Text | None = None
    inputs: Annotated[list[Text], Field(min_length=1, max_length=INPUTS_MOST)] | None = None
    examples: (
        Annotated[list[ExampleShape], Field(min_length=2, max_length=EXAMPLES_MOST)] | None
    ) = None
    model: Name | None = Field(None, description="None: the provider's usual one.")
    params: JsonObject = Field(
        default_factory=dict, description="Parameters of the request, as the provider names them."
    )
    class_: ClassName | None = Field(
        None,
        alias="class",
        description="interactive: somebody waits for it; bulk: one of many. None: interactive if "
        "it is submitted alone, bulk in a list.",
    )
    deadline: When | None = Field(None, description="If it still waits then, it ends as expired.")
    not_before: When | None = Field(None, description="It waits until then at least.")
    on_unknown: Literal["retry", "end"] = Field(
        "retry", description="end: not asked twice when nobody knows whether it was answered."
    )
    metadata: Metadata = Field(default_factory=dict)
    idempotency: Annotated[str, StringConstraints(pattern=r"^[!#-~]{1,255}$")] | None = Field(
        None, description="Submitted again with the same key, it is the same job; for a day."
    )

    @field_validator("not_before")
    @classmethod
    def _is_before_the_deadline(
        cls, not_before: datetime | None, info: ValidationInfo
    ) -> datetime | None:
        deadline = info.data.get("deadline")
        if not_before is not None and deadline is not None and deadline <= not_before:
            raise ValueError("the deadline is not after it: the job could never go")
        return not_before


JobsAsked = JobAsked | Annotated[list[JobAsked], Field(min_length=1, max_length=LIST_MOST)]


class Moment(Model):
    """A moment, and how far from now it is."""

    at: datetime | str
    in_s: float


class Waits(Model):
    """Why a job has not gone: the limit that it waits for, with what is used of it, and when the
    next job may go, if that is known."""

    why: str
    limit: str
    unit: str | None = None
    used: int | None = None
    amount: int | None = None
    next_release: Moment | None = None
    since: Moment | None = None
    calls_before: int | None = None


class Estimate(Model):
    """When a job will go and be answered, as things stand; None: nobody can know."""

    goes: Moment | None = None
    answered: Moment | None = None


class Failure(Model):
    """Why a job has no answer."""

    code: str
    message: str
    pointer: str | None = None
    provider_status: int | None = None


class JobShape(Model):
    """A job. `reason` and `estimate` are of now, and only of jobs that wait. In a list a job
    is told without them and without its `result` and `error`: look at it by itself."""

    id: str
    state: Annotated[State, Field(strict=False)]
    endpoint: EndpointName
    class_: ClassName = Field(alias="class")
    model: str
    user: str
    submitted_at: str
    ended_at: str | None = None
    deadline: str | None = None
    attempts: int = 0
    metadata: Metadata = Field(default_factory=dict)
    reason: Waits | None = None
    estimate: Estimate | None = None
    cancelling: bool = False
    again_of: str | None = None
    result: dict[str, Any] | None = None
    error: Failure | None = None
    simulated: bool = Field(
        False, description="The provider is the simulator: answers are made up, no model is asked."
    )


class Accepted(Model):
    """A job that was taken in."""

    id: str
    state: Annotated[State, Field(strict=False)]
    reason: Waits | None = None
    estimate: Estimate | None = None


class AcceptedList(Model):
    """Jobs that were taken in, in the order of the list; reason and estimate are the last one's."""

    data: list[Accepted]


class Submitted(RootModel[Accepted | AcceptedList]):
    """What was taken in: of a list a list."""

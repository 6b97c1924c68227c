"""What a job asks, as it is sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypedDict

Endpoint: TypeAlias = Literal["generate", "embed", "classify"]
Texts: TypeAlias = list[str] | tuple[str, ...]
Class: TypeAlias = Literal["interactive", "bulk"]
#: A labelled text: (text, label), or as the API has it.
Example: TypeAlias = tuple[str, str] | Mapping[str, str]


class JobOptions(TypedDict, total=False):
    """What every job may say. `params`: of the request, as the provider names them; `deadline`:
    if it still waits then, it ends as expired; `not_before`: it waits until then at least;
    `on_unknown`: "end" is not asked twice when nobody knows whether it was answered."""

    model: str | None
    params: Mapping[str, Any] | None
    class_: Class | None
    deadline: datetime | None
    not_before: datetime | None
    on_unknown: Literal["retry", "end"]
    metadata: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """One job to submit. `text`: the prompt of a generate; of embed and classify one text, or
    several, which make one job. `idempotency`: a key of its own, for a day."""

    endpoint: Endpoint
    text: str | Texts
    examples: Sequence[Example] | None = field(default=None, repr=False)
    model: str | None = None
    params: Mapping[str, Any] | None = None
    class_: Class | None = None
    deadline: datetime | None = None
    not_before: datetime | None = None
    on_unknown: Literal["retry", "end"] = "retry"
    metadata: Mapping[str, str] | None = None
    idempotency: str | None = None

    def body(self) -> dict[str, Any]:
        """As the API takes it."""
        one = isinstance(self.text, str)
        name = "prompt" if self.endpoint == "generate" else "text" if one else "inputs"
        body: dict[str, Any] = {
            "endpoint": self.endpoint,
            name: self.text if one else list(self.text),
        }
        if self.examples is not None:
            body["examples"] = [_example(one) for one in self.examples]
        if self.on_unknown != "retry":
            body["on_unknown"] = self.on_unknown
        for name, value in (
            ("model", self.model),
            ("params", self.params),
            ("class", self.class_),
            ("deadline", self.deadline),
            ("not_before", self.not_before),
            ("metadata", self.metadata),
            ("idempotency", self.idempotency),
        ):
            if value is not None:
                body[name] = value
        return body


#: A job to submit: a JobRequest, or the API's JSON.
Asked: TypeAlias = JobRequest | Mapping[str, Any]


def body_of(asked: Asked) -> dict[str, Any]:
    """A job as it is sent."""
    return asked.body() if isinstance(asked, JobRequest) else dict(asked)


def _example(example: Example) -> dict[str, str]:
    if isinstance(example, Mapping):
        return dict(example)
    text, label = example
    return {"text": text, "label": label}

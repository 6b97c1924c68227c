"""A request as it waits: what all jobs of a flow share, what one job adds, and what it may use.

Nothing of it is a provider's wire format: the worker that makes the call writes that. So jobs of
one flow can be packed into a call, and examples of a thousand lines are stored once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from millpond.domain.job import Endpoint


@dataclass(frozen=True, slots=True)
class Example:
    """A text with its label, for classify."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Common:
    """What all jobs of a flow share. `max_tokens` bounds an answer, in tokens."""

    endpoint: Endpoint
    model: str
    max_tokens: int
    params: Mapping[str, Any] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()

    def told(self) -> dict[str, Any]:
        return {
            "endpoint": self.endpoint,
            "model": self.model,
            "max_tokens": self.max_tokens,
            "params": self.params,
            "examples": [[one.text, one.label] for one in self.examples],
        }

    def write(self) -> bytes:
        return orjson.dumps(self.told())


def read_common(told: bytes) -> Common:
    return _common(orjson.loads(told))


def _common(raw: Mapping[str, Any]) -> Common:
    return Common(
        endpoint=Endpoint(raw["endpoint"]),
        model=raw["model"],
        max_tokens=raw["max_tokens"],
        params=raw["params"],
        examples=tuple(Example(text, label) for text, label in raw["examples"]),
    )


@dataclass(frozen=True, slots=True)
class Ask:
    """What one job asks: a text with parameters of its own, or a whole body in the provider's
    own form (a line of a batch file).

    `more`: texts that are asked together with the first and answered in one. `common`: what stands
    in the place of what its flow's jobs share.
    """

    text: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    more: tuple[str, ...] = ()
    common: Common | None = None

    def write(self) -> bytes:
        told: dict[str, Any] = {"text": self.text}
        if self.params:
            told["params"] = self.params
        if self.body is not None:
            told["body"] = self.body
        if self.more:
            told["more"] = self.more
        if self.common is not None:
            told["common"] = self.common.told()
        return orjson.dumps(told)

    def each(self) -> list["Ask"]:
        """An ask for each of its texts."""
        return [self, *(replace(self, text=text, more=()) for text in self.more)]


def read_ask(told: bytes) -> Ask:
    raw = orjson.loads(told)
    common = raw.get("common")
    return Ask(
        raw["text"],
        raw.get("params", {}),
        raw.get("body"),
        tuple(raw.get("more", ())),
        None if common is None else _common(common),
    )


@dataclass(frozen=True, slots=True)
class Need:
    """The most that a job can use of what limits and quotas count; `base` characters of it are
    known beforehand: its prompt."""

    characters: int
    tokens: int
    base: int = 0

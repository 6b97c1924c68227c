"""Limits, quota and weights as operators write them, and what holds where they name none."""

from collections.abc import Mapping
from typing import Annotated, Protocol

from pydantic import AfterValidator, Field, StringConstraints

from millpond.domain.job import Endpoint
from millpond.domain.limit import Limit, Limits, parse_limit
from millpond.producer.api.shapes import EndpointName
from millpond.producer.api.values import Prose
from millpond.producer.http.table import Model, Name
from millpond.providers.profile import Mode, Profile
from millpond.store.access import Terms


def _limit_list(text: str) -> str:
    _limits_of(text)
    return text


def _limits_of(text: str) -> tuple[Limit, ...]:
    """The limits of one endpoint. Raises ValueError."""
    found = tuple(parse_limit(one) for one in text.split(","))
    if len({(one.window_ms, one.unit) for one in found}) < len(found):
        raise ValueError("two limits have the same window and unit")
    return found


LimitList = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    AfterValidator(_limit_list),
    Field(examples=["60/60s,50000/1d"]),
]
LimitLists = Annotated[dict[EndpointName, LimitList], Field(min_length=1)]
Quota = Annotated[int, Field(ge=0, le=10**15, description="Characters in all; null: no quota.")]
Weight = Annotated[float, Field(ge=0.001, le=1_000)]


class WhyAsked(Model):
    """Why it is done: it stands in the org's audit."""

    why: Prose


class TermsAsked(WhyAsked):
    """Limits and quota that are not named are the provider's for the mode."""

    limits: LimitLists | None = None
    quota: Quota | None = None


class LimitsAsked(Model):
    """What changes of an org, in one step; what is not named stays."""

    limits: LimitLists | None = None
    quota: Quota | None = None
    weights: Annotated[dict[Name, Weight], Field(min_length=1, max_length=1_000)] | None = None
    why: Prose | None = None


class NamesQuota(Protocol):
    """A body that may name a quota; null is named as well: no quota."""

    @property
    def quota(self) -> int | None: ...

    @property
    def model_fields_set(self) -> set[str]: ...


class ModeTerms:
    """What holds in a mode: what was asked for, and else what the provider is known to allow."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def terms(self, mode: Mode, asked: TermsAsked) -> Terms:
        """Limits that nobody knows and nobody names stay as they are."""
        return Terms(mode, self.quota(mode, asked), self.limits(mode, asked.limits))

    def quota(self, mode: Mode, asked: NamesQuota) -> int | None:
        return asked.quota if "quota" in asked.model_fields_set else self._profile.quota[mode]

    def limits(self, mode: Mode, asked: Mapping[Endpoint, str] | None) -> Limits:
        known = self._profile.limits or {}
        return {**known.get(mode, {}), **read_limits(asked)}


def read_limits(asked: Mapping[Endpoint, str] | None) -> Limits:
    return {endpoint: _limits_of(text) for endpoint, text in (asked or {}).items()}

"""What a run is asked to do, and what makes it the same run again."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from millpond.domain.job import Endpoint
from millpond.domain.limit import Limit, Limits, parse_limit
from millpond.domain.request import Common, Example
from millpond.producer.records import Format
from millpond.providers.profile import PROFILES, Mode, Profile, ProviderName, WireName
from millpond.store.store import Reserve

#: Until a provider has said what its limits are, one call at a time. Tokens are counted in the
#: windows that it may name, so that its limit begins with what was used and not all but full.
UNTIL_TOLD = tuple(map(parse_limit, ("1@once", "1000000000tokens/60s", "1000000000tokens/1d")))
_URLS = {Endpoint.GENERATE: "/v1/chat/completions", Endpoint.EMBED: "/v1/embeddings"}


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Another way to run, as it was written, and the options that it changes."""

    written: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `millpond run`, checked.

    `service_time`: the provider's word on its service time is believed. `for_interactive`: what of
    the limits bulk leaves free. `base_url` None: our own simulator or local model. `limits` are
    those that were named, `quota` None: none, `model` None: what the file's lines name, else the
    profile's. `model_unchecked`: whatever the catalogue says of it.
    """

    file: Path | None
    format: str
    template: str | None
    endpoint: Endpoint
    model: str | None
    params: dict[str, Any]
    max_tokens: int
    examples: tuple[Example, ...]
    provider: ProviderName
    base_url: str | None
    key: str
    mode: Mode
    limits: Limits
    quota: int | None
    workers: int
    concurrency: int
    timeout_ms: int
    attempts: int
    interactive: bool
    weight: float
    user: str
    service_time: bool
    reserve: Reserve
    for_interactive: Limits
    sample: int | None
    strict: bool
    dry_run: bool
    data_dir: Path
    out: Path
    errors: Path
    ledger: Path | None
    as_json: bool
    quiet: bool
    what_if: tuple["WhatIf", ...] = ()
    model_unchecked: bool = False

    @property
    def profile(self) -> Profile:
        return PROFILES[self.provider]

    @property
    def simulated(self) -> bool:
        return self.provider is ProviderName.SIMULATOR

    @property
    def own_provider(self) -> bool:
        """Whether we start the provider ourselves."""
        return self.base_url is None

    @property
    def lane_limits(self) -> tuple[Limit, ...] | None:
        """The endpoint's limits: as named, else the profile's; None: the provider must tell."""
        if self.endpoint in self.limits:
            return self.limits[self.endpoint]
        if self.profile.limits is None:
            return None
        return self.profile.limits[self.mode][self.endpoint]

    def bulk_limits(self, limits: Sequence[Limit]) -> tuple[Limit, ...]:
        """What bulk may use of limits, where something is kept for interactive jobs."""
        kept = {
            (one.window_ms, one.unit): one for one in self.for_interactive.get(self.endpoint, ())
        }
        return tuple(
            Limit(limit.amount - kept[at].amount, limit.window_ms, limit.written, limit.unit)
            for limit in limits
            if (at := (limit.window_ms, limit.unit)) in kept
        )

    def under(self, what_if: WhatIf) -> "Options":
        return replace(self, **what_if.changes)

    @property
    def all_limits(self) -> Limits:
        """The limits of every endpoint, for a simulator of our own."""
        known = self.profile.limits[self.mode] if self.profile.limits else {}
        return {**known, **self.limits}

    @property
    def field(self) -> str:
        """The field of a record that is the prompt, if there is no template."""
        return "prompt" if self.endpoint is Endpoint.GENERATE else "text"

    @property
    def line_url(self) -> str | None:
        """The URL that lines of an OpenAI batch file must name."""
        return _URLS.get(self.endpoint)

    def wire(self, format: Format) -> WireName:
        """The simulator speaks both: a batch file of OpenAI's is asked in OpenAI's way."""
        if self.simulated and format is Format.OPENAI:
            return "openai"
        return self.profile.wire

    def common(self) -> Common:
        assert self.model is not None
        return Common(self.endpoint, self.model, self.max_tokens, self.params, self.examples)

    def account(self) -> str:
        """Whose limits and quota these are: one provider key at one address."""
        return account(self.provider, self.base_url, self.key)

    def run_id(self, folder_id: str, sha256: str, format: str) -> str:
        """The same for the same work in the same data folder, whatever else differs."""
        parts: list[object] = [folder_id, sha256, format, self.endpoint, self.provider]
        parts += [self.base_url, self.model, self.template, self.params, self.max_tokens]
        if self.examples:
            parts.append([[one.text, one.label] for one in self.examples])
        if self.sample is not None:
            parts.append(self.sample)
        return "r" + _digest(*parts)


def account(provider: str, base_url: str | None, key: str) -> str:
    """A name for a provider account that tells nothing of its key."""
    return "a" + _digest(provider, base_url, key)


def _digest(*parts: object) -> str:
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]

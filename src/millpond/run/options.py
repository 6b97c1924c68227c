"""What a run is asked to do, and what makes it the same run again."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from millpond.domain.job import Endpoint
from millpond.domain.limit import FULL, LIMITED, Limit, Limits

#: Characters that a limited organisation may use on generate, in all (access rules).
LIMITED_QUOTA = 500_000


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `millpond run`, checked; `base_url` None: our own simulator."""

    file: Path
    format: str
    template: str | None
    endpoint: Endpoint
    model: str
    params: dict[str, Any]
    max_tokens: int
    provider: Literal["simulator", "cohere"]
    base_url: str | None
    key: str
    mode: Literal["limited", "full"]
    limits: Limits
    quota: int | None
    workers: int
    concurrency: int
    timeout_ms: int
    attempts: int
    data_dir: Path
    out: Path
    errors: Path
    ledger: Path | None
    as_json: bool
    quiet: bool

    @property
    def simulated(self) -> bool:
        return self.provider == "simulator"

    @property
    def lane_limits(self) -> tuple[Limit, ...]:
        return self.limits[self.endpoint]

    @property
    def field(self) -> str:
        """The field of a record that is the prompt, if there is no template."""
        return "prompt" if self.endpoint is Endpoint.GENERATE else "text"

    def account(self) -> str:
        """Whose limits and quota these are: one provider key at one address."""
        return "a" + _digest(self.provider, self.base_url, self.key)

    def run_id(self, folder_id: str, sha256: str, format: str) -> str:
        """The same for the same work in the same data folder, whatever else differs."""
        return "r" + _digest(
            folder_id,
            sha256,
            format,
            self.endpoint,
            self.provider,
            self.base_url,
            self.model,
            self.template,
            self.params,
            self.max_tokens,
        )


def mode_limits(mode: Literal["limited", "full"], named: Limits) -> Limits:
    """The access mode's limits, with those that were named in their place."""
    return {**(LIMITED if mode == "limited" else FULL), **named}


def _digest(*parts: object) -> str:
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]

"""Which limits a run keeps to, and where each is from."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from millpond.domain.job import Endpoint
from millpond.domain.limit import write_limit_list
from millpond.providers.profile import PROFILES, Mode, ProviderName
from millpond.run.folder import told_limits
from millpond.run.options import account


@dataclass(frozen=True, slots=True)
class Known:
    """An endpoint's limits as they are written, or None: the first reply may say them."""

    written: str | None
    source: Literal["profile", "replies"] | None


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What a run would keep to."""

    provider: ProviderName
    mode: Mode
    endpoints: dict[Endpoint, Known]
    quota: int | None

    def as_json(self) -> dict[str, Any]:
        """The same keys always."""
        return {
            "provider": self.provider,
            "mode": self.mode,
            "endpoints": {
                endpoint.value: {"limits": known.written, "from": known.source}
                for endpoint, known in self.endpoints.items()
            },
            "quota": self.quota,
        }

    def lines(self) -> Iterator[str]:
        """A line for each endpoint: its limits, and their source; then the quota."""
        for endpoint, known in self.endpoints.items():
            match known.source:
                case "profile":
                    source = f"the profile of {self.provider}, {self.mode} access"
                case "replies":
                    source = "said by the provider's replies"
                case None:
                    source = "the first reply may say; else name them with --limits"
            yield f"{endpoint}\t{known.written or 'unknown'}\t{source}"
        quota = "none" if self.quota is None else f"{self.quota:,} characters"
        yield f"quota\t{quota}\tfor generate, in all"


def find_limits(
    provider: ProviderName, mode: Mode, base_url: str | None, key: str, data_dir: Path
) -> RunLimits:
    """As things are in the data folder."""
    profile = PROFILES[provider]
    endpoints = {}
    for endpoint in Endpoint:
        if profile.limits is not None:
            written = write_limit_list(profile.limits[mode][endpoint])
            endpoints[endpoint] = Known(written, "profile")
            continue
        told = told_limits(data_dir, account(provider, base_url, key), endpoint)
        if told is not None:
            endpoints[endpoint] = Known(write_limit_list(told), "replies")
        else:
            endpoints[endpoint] = Known(None, None)
    return RunLimits(provider, mode, endpoints, profile.quota[mode])

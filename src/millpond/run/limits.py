"""Which limits a run keeps to, and where each is from."""

from collections.abc import Iterator
from pathlib import Path

from millpond.domain.job import Endpoint
from millpond.domain.limit import write_limit_list
from millpond.providers.profile import PROFILES, Mode, ProviderName
from millpond.run.folder import told_limits
from millpond.run.options import account


def describe_limits(
    provider: ProviderName, mode: Mode, base_url: str | None, key: str, data_dir: Path
) -> Iterator[str]:
    """A line for each endpoint: its limits, and their source; then the quota."""
    profile = PROFILES[provider]
    for endpoint in Endpoint:
        if profile.limits is not None:
            known = write_limit_list(profile.limits[mode][endpoint])
            yield f"{endpoint}\t{known}\tthe profile of {provider}, {mode} access"
            continue
        told = told_limits(data_dir, account(provider, base_url, key), endpoint)
        if told is not None:
            yield f"{endpoint}\t{write_limit_list(told)}\tsaid by the provider's replies"
        else:
            yield f"{endpoint}\tunknown\tthe first reply may say; else name them with --limits"
    quota = profile.quota[mode]
    yield f"quota\t{'none' if quota is None else f'{quota:,} characters'}\tfor generate, in all"

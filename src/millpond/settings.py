"""Settings are one frozen value, read once from the environment and passed down.

Each name is `MILLPOND_` and the field's name in capitals. A name that fits no field stops the
program, since a misspelt setting would otherwise silently do nothing (`extra="forbid"` does not
see the environment).
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from millpond import failpoints
from millpond.errors import Refused, UnknownSetting

PREFIX = "MILLPOND_"
#: What clients of the HTTP API read, which may stand in the same environment.
_CLIENTS = {f"{PREFIX}{name}" for name in ("URL", "API_KEY", "OPERATOR_URL", "OPERATOR_KEY")}
_ADDRESS = r"^(unix:/.+|[^\s/]*:[0-9]{1,5})$"


class Settings(BaseSettings):
    """What the long-running processes need to know; `millpond run` sets it for its children."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    redis_url: str | None = Field(
        None, description="redis://, rediss:// or unix:// address of the server; none: embedded."
    )
    ephemeral: bool = Field(
        False, description="Whether that server may forget: no persistence, or eviction."
    )
    partition: str = Field("0", pattern=r"^[0-9a-z]{1,16}$", description="Whose keys to use.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "WARNING", description="Least severe event that is logged."
    )
    worker: str = Field(
        "", pattern=r"^[0-9a-z.-]{0,64}$", description="Worker: its name; none: it makes one up."
    )
    processes: int = Field(1, ge=1, le=64, description="Worker: how many processes.")
    queue_url: str | None = Field(
        None,
        pattern="^(redis|rediss|unix)://",
        description="Worker: where arq keeps its own; nothing of it need last. none: REDIS_URL's.",
    )
    at_work: Path | None = Field(
        None, description="Worker: file that says which call it is at work on, whatever happens."
    )
    pool: str = Field("http", description="Worker: which ready list it claims from.")
    slots: int = Field(200, ge=1, le=10_000, description="Worker: calls in flight at once.")
    provider: Literal["simulator", "cohere", "openai", "local"] = Field(
        "cohere", description="Worker, producer: who answers; simulator speaks as cohere does."
    )
    base_url: str | None = Field(None, description="Worker: the provider's address.")
    provider_key: SecretStr = Field(SecretStr(""), description="Worker: the provider's key.")
    timeout_ms: int = Field(
        120_000, ge=100, le=3_600_000, description="Worker: longest wait for one answer."
    )
    lease_ms: int = Field(
        30_000, ge=2_000, le=600_000, description="How long a silent worker keeps its calls."
    )
    master_key: SecretStr | None = Field(
        None,
        description="Opens and seals the orgs' provider keys: 32 bytes in base64; several with "
        "commas, the newest first.",
    )
    master_key_file: Path | None = Field(
        None, description="File with the master keys, a line each, that only its owner can read."
    )
    models: Path | None = Field(
        None, description="TOML file: models in addition to those that are known."
    )
    listen: str = Field(
        "127.0.0.1:8080",
        pattern=_ADDRESS,
        description="Producer: address and port, or unix:/path, for users.",
    )
    operator_listen: str = Field(
        "127.0.0.1:8081", pattern=_ADDRESS, description="Producer: the same, for operators."
    )
    path_prefix: str = Field(
        "", pattern=r"^(/[A-Za-z0-9._~-]+)*$", description="Producer: what all paths begin with."
    )
    trusted_proxies: str = Field(
        "",
        description="Producer: networks, with commas, whose X-Forwarded-For, X-Forwarded-Proto and "
        "X-Forwarded-Prefix are believed.",
    )
    connections_per_address: int = Field(
        256, ge=1, le=100_000, description="Producer: connections that an address may have."
    )
    waiting_bytes: int = Field(
        512 * 2**20, ge=2**20, description="Producer: bytes of jobs that may wait, of all orgs."
    )
    waiting_bytes_per_org: int = Field(64 * 2**20, ge=2**20, description="Producer: and of one.")
    kept_bytes: int = Field(
        4 * 2**30,
        ge=2**20,
        description="Producer: bytes of jobs that are kept with their answers, of all orgs.",
    )
    kept_bytes_per_org: int = Field(2**30, ge=2**20, description="Producer: and of one.")
    drain_most_s: int = Field(
        7 * 86_400, ge=1, description="Producer: jobs are taken in that will go in so long."
    )
    keep_answers_s: int = Field(
        7 * 86_400, ge=1, description="How long a single job is kept with its answer."
    )
    keep_ledger_s: int = Field(
        400 * 86_400, ge=1, description="How long rows of the ledger are kept, and usage by day."
    )
    keep_audit_s: int = Field(
        400 * 86_400,
        ge=1,
        description="How long rows of an audit are kept; about 10,000 at most in each.",
    )
    grace_ms: int = Field(
        30_000, ge=0, le=3_600_000, description="Worker: how long calls may finish at a stop."
    )


def read_settings() -> Settings:
    """The settings of this process.

    Raises UnknownSetting for a name that fits no field and Refused for a value out of range.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(
        name
        for name in os.environ
        if name.upper().startswith(PREFIX)
        and name.upper() not in known | _CLIENTS
        and name not in failpoints.VARIABLES
    )
    if unknown:
        raise UnknownSetting(
            f"{', '.join(unknown)}: no such setting; known are {', '.join(sorted(known))}"
        )
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise Refused(f"{name}: {first['msg']}") from None

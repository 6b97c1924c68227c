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
    provider: Literal["cohere", "openai", "local"] = Field(
        "cohere", description="Worker: whose wire format."
    )
    base_url: str | None = Field(None, description="Worker: the provider's address.")
    api_key: SecretStr = Field(SecretStr(""), description="Worker: the provider's key.")
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
        and name.upper() not in known
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

"""What is known of each provider before it is asked: address, key, models, limits."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from millpond.domain.job import Endpoint
from millpond.domain.limit import FULL, LIMITED, Limits, parse_limits
from millpond.providers.adapter import Adapter
from millpond.providers.cohere import Cohere
from millpond.providers.openai import OpenAI

Mode = Literal["limited", "full"]
WireName = Literal["cohere", "openai", "local"]

#: Characters that a limited organisation may use on generate, in all (Cohere's access rules).
LIMITED_QUOTA = 500_000


class ProviderName(StrEnum):
    SIMULATOR = "simulator"
    COHERE = "cohere"
    OPENAI = "openai"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Profile:
    """`limits` is None where nobody knows them beforehand: another vendor's are never taken.

    `key_variable` is where the key is looked for; None: it needs none.
    """

    wire: WireName
    base_url: str | None
    key_variable: str | None
    models: dict[Endpoint, str]
    limits: dict[Mode, Limits] | None
    quota: dict[Mode, int | None]

    def model(self, endpoint: Endpoint) -> str | None:
        return self.models.get(endpoint)


_COHERE_MODELS = {
    Endpoint.GENERATE: "command",
    Endpoint.EMBED: "embed-english-v3.0",
    Endpoint.CLASSIFY: "embed-english-v3.0",
}
_COHERE_LIMITS: dict[Mode, Limits] = {"limited": LIMITED, "full": FULL}
_COHERE_QUOTA: dict[Mode, int | None] = {"limited": LIMITED_QUOTA, "full": None}
_NO_QUOTA: dict[Mode, int | None] = {"limited": None, "full": None}
_TWO_AT_ONCE = parse_limits(";".join(f"{endpoint}=2@once" for endpoint in Endpoint))

PROFILES = {
    ProviderName.SIMULATOR: Profile(
        "cohere", None, None, _COHERE_MODELS, _COHERE_LIMITS, _COHERE_QUOTA
    ),
    ProviderName.COHERE: Profile(
        "cohere",
        "https://api.cohere.com",
        "CO_API_KEY",
        _COHERE_MODELS,
        _COHERE_LIMITS,
        _COHERE_QUOTA,
    ),
    ProviderName.OPENAI: Profile(
        "openai", "https://api.openai.com/v1", "OPENAI_API_KEY", {}, None, _NO_QUOTA
    ),
    ProviderName.LOCAL: Profile(
        "local",
        None,
        None,
        dict.fromkeys(Endpoint, "local"),
        {"limited": _TWO_AT_ONCE, "full": _TWO_AT_ONCE},
        _NO_QUOTA,
    ),
}


def adapter(wire: WireName) -> Adapter:
    """How the wire format is spoken."""
    if wire == "cohere":
        return Cohere()
    if wire == "local":
        # Nobody counts its calls, so packs would save nothing.
        return OpenAI(grammar=True, texts_most=1)
    return OpenAI()

"""What is known of each provider before it is asked."""

import pytest

from millpond.domain.job import Endpoint
from millpond.domain.limit import parse_limits
from millpond.providers.cohere import Cohere
from millpond.providers.openai import OpenAI
from millpond.providers.profile import PROFILES, ProviderName, adapter

GENERATE, EMBED, CLASSIFY = Endpoint.GENERATE, Endpoint.EMBED, Endpoint.CLASSIFY

LIMITED = "generate=60/60s,50000/1d;embed=500/60s,100000/1d;classify=500/60s,100000/1d"
FULL = "generate=10000/60s;embed=10000/60s;classify=10000/60s"


def test_every_provider_has_a_profile() -> None:
    assert set(PROFILES) == set(ProviderName)


@pytest.mark.parametrize(
    ("name", "wire", "url", "key"),
    [
        (ProviderName.SIMULATOR, "cohere", None, None),
        (ProviderName.COHERE, "cohere", "https://api.cohere.com", "CO_API_KEY"),
        (ProviderName.OPENAI, "openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        (ProviderName.LOCAL, "local", None, None),
    ],
)
def test_a_provider_is_spoken_to_in_its_own_way_at_its_own_address(
    name: ProviderName, wire: str, url: str | None, key: str | None
) -> None:
    profile = PROFILES[name]

    assert (profile.wire, profile.base_url, profile.key_variable) == (wire, url, key)


@pytest.mark.parametrize("name", [ProviderName.SIMULATOR, ProviderName.COHERE])
def test_coheres_limits_and_quota_are_those_of_the_access_mode(name: ProviderName) -> None:
    profile = PROFILES[name]

    assert profile.limits == {"limited": parse_limits(LIMITED), "full": parse_limits(FULL)}
    assert profile.quota == {"limited": 500_000, "full": None}


def test_nobody_knows_the_limits_of_an_openai_account_beforehand() -> None:
    profile = PROFILES[ProviderName.OPENAI]

    assert profile.limits is None
    assert profile.quota == {"limited": None, "full": None}


def test_a_local_model_has_no_vendors_limits_but_a_few_at_once() -> None:
    profile = PROFILES[ProviderName.LOCAL]
    two = parse_limits("generate=2@once;embed=2@once;classify=2@once")

    assert profile.limits == {"limited": two, "full": two}
    assert profile.quota == {"limited": None, "full": None}


@pytest.mark.parametrize(
    ("name", "models"),
    [
        (ProviderName.COHERE, ["command", "embed-english-v3.0", "embed-english-v3.0"]),
        (ProviderName.OPENAI, [None, None, None]),
        (ProviderName.LOCAL, ["local", "local", "local"]),
    ],
)
def test_a_model_is_proposed_where_there_is_an_obvious_one(
    name: ProviderName, models: list[str | None]
) -> None:
    profile = PROFILES[name]

    assert [profile.model(endpoint) for endpoint in (GENERATE, EMBED, CLASSIFY)] == models


def test_each_wire_format_has_its_adapter() -> None:
    assert isinstance(adapter("cohere"), Cohere)
    assert isinstance(adapter("openai"), OpenAI)
    assert isinstance(adapter("local"), OpenAI)

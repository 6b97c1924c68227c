"""Settings come from the environment, and a misspelt one stops the program."""

import pytest

from millpond.errors import Refused, UnknownSetting
from millpond.settings import Settings, read_settings

Patch = pytest.MonkeyPatch


def test_without_any_variable_the_defaults_work() -> None:
    settings = read_settings()

    assert settings == Settings()
    assert settings.redis_url is None


def test_a_setting_is_read_from_its_variable(monkeypatch: Patch) -> None:
    monkeypatch.setenv("MILLPOND_LEASE_MS", "5000")
    monkeypatch.setenv("MILLPOND_REDIS_URL", "unix:///tmp/s")

    assert (read_settings().lease_ms, read_settings().redis_url) == (5_000, "unix:///tmp/s")


@pytest.mark.parametrize("name", ["MILLPOND_LEASE", "millpond_lease_s", "MILLPOND_", "MillPond_X"])
def test_an_unknown_name_is_refused_and_the_known_ones_are_told(
    monkeypatch: Patch, name: str
) -> None:
    monkeypatch.setenv(name, "1")

    with pytest.raises(UnknownSetting, match=rf"{name}: no such setting; known are .*_LEASE_MS"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MILLPOND_LEASE_MS", "soon"),
        ("MILLPOND_LEASE_MS", "1999"),
        ("MILLPOND_SLOTS", "0"),
        ("MILLPOND_SLOTS", ""),
        ("MILLPOND_PARTITION", "a:b"),
        ("MILLPOND_LOG_LEVEL", "LOUD"),
        ("MILLPOND_WORKER", "a{b}"),
    ],
)
def test_a_value_out_of_range_is_refused_under_its_name(
    monkeypatch: Patch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(Refused, match=f"^{name}: "):
        read_settings()


@pytest.mark.parametrize("name", ["URL", "API_KEY", "OPERATOR_URL", "OPERATOR_KEY"])
def test_what_clients_read_may_stand_beside(monkeypatch: Patch, name: str) -> None:
    monkeypatch.setenv(f"MILLPOND_{name}", "x")

    read_settings()


def test_the_key_is_never_shown(monkeypatch: Patch) -> None:
    monkeypatch.setenv("MILLPOND_PROVIDER_KEY", "very-secret")

    settings = read_settings()

    assert "very-secret" not in repr(settings)
    assert settings.provider_key.get_secret_value() == "very-secret"

"""Which models may be asked for what, and by whom."""

from pathlib import Path

import pytest

from millpond.domain.job import Endpoint
from millpond.providers.catalogue import (
    BadCatalogue,
    Catalogue,
    ModelRefused,
    check_model,
    read_catalogue,
)
from millpond.providers.profile import PROFILES, Mode, ProviderName

GENERATE, EMBED, CLASSIFY = Endpoint.GENERATE, Endpoint.EMBED, Endpoint.CLASSIFY
OWN = {"acme-7": "command", "acme-night": "command-nightly", "acme-labels": "embed-english-v3.0"}


def refused(catalogue: Catalogue, mode: Mode, endpoint: Endpoint, model: str) -> ModelRefused:
    with pytest.raises(ModelRefused) as error:
        check_model(catalogue.get("cohere"), OWN, mode, endpoint, model)
    assert (error.value.name, error.value.model) == ("model", model)
    assert repr(model) in str(error.value)
    return error.value


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("mode", "endpoint", "model"),
    [
        ("limited", GENERATE, "command"),
        ("limited", GENERATE, "command-light"),
        ("full",    GENERATE, "command-nightly"),
        ("limited", EMBED,    "embed-english-v3.0"),
        ("limited", CLASSIFY, "embed-multilingual-light-v3.0"),
        ("full",    EMBED,    "embed-v4.0"),
        # made for the org: as their base
        ("limited", GENERATE, "acme-7"),
        ("full",    GENERATE, "acme-night"),
        ("limited", CLASSIFY, "acme-labels"),
    ],
)  # fmt: skip
def test_a_model_that_may_be_asked_passes(mode: Mode, endpoint: Endpoint, model: str) -> None:
    check_model(read_catalogue(None).get("cohere"), OWN, mode, endpoint, model)


@pytest.mark.parametrize(
    ("mode", "endpoint", "model", "why", "told"),
    [
        ("limited", GENERATE, "embed-english-v3.0", "endpoint",
         "is a representation model, for embed and classify, not for generate"),
        ("full",    GENERATE, "acme-labels",        "endpoint", "is a representation model"),
        ("full",    EMBED,    "command",            "endpoint",
         "is a generation model, for generate, not for embed"),
        ("full",    CLASSIFY, "embed-v4.0",         "endpoint", "for embed, not for classify"),
        ("limited", GENERATE, "command-nightly",    "mode",
         "(large) is not for limited access, which has for generate command (large), "
         "command-light (medium)"),
        ("limited", GENERATE, "acme-night",         "mode",     "is not for limited access"),
        ("full",    GENERATE, "nobody-knows-it",    "unknown",
         "is unknown; generate in full access has command (large), "),
    ],
)  # fmt: skip
def test_a_model_that_may_not_be_asked_is_refused_with_why_and_what_is_there(
    mode: Mode, endpoint: Endpoint, model: str, why: str, told: str
) -> None:
    error = refused(read_catalogue(None), mode, endpoint, model)

    assert error.why == why
    assert told in str(error)
    # Whoever asks knows the way out: it is not the same of a run and of a service.
    assert "--" not in str(error)
    assert "millpond" not in str(error).lower()
    assert (error.modes == ("full",)) == (why == "mode")


@pytest.mark.parametrize("endpoint", list(Endpoint))
@pytest.mark.parametrize("mode", ["limited", "full"])
@pytest.mark.parametrize("provider", [name for name in ProviderName if PROFILES[name].models])
def test_what_a_profile_asks_for_by_default_may_be_asked(
    provider: ProviderName, mode: Mode, endpoint: Endpoint
) -> None:
    profile = PROFILES[provider]
    models = read_catalogue(None).get(profile.wire)

    check_model(models, {}, mode, endpoint, profile.model(endpoint) or "")


def test_another_orgs_model_is_told_as_one_that_does_not_exist() -> None:
    models = read_catalogue(None).get("cohere")
    messages = []
    for model in ("beta-7", "nobody"):
        with pytest.raises(ModelRefused) as error:
            check_model(models, {"acme-7": "command"}, "full", GENERATE, model)
        messages.append(str(error.value).replace(model, "X"))

    assert messages[0] == messages[1]


def test_where_nobody_knows_the_models_every_one_passes() -> None:
    assert read_catalogue(None).get("openai") is None
    check_model(None, {}, "limited", GENERATE, "whatever")


def test_a_file_adds_models_and_changes_known_ones(tmp_path: Path) -> None:
    told = read_catalogue(
        file(
            tmp_path,
            """
            [cohere.models."command-next"]
            kind = "generation"
            size = "small"

            [cohere.models.command]
            kind = "generation"
            size = "large"
            modes = ["full"]

            [openai.models."gpt-x"]
            kind = "generation"
            size = "large"
            endpoints = ["generate", "classify"]
            """,
        )
    )

    check_model(told.get("cohere"), {}, "limited", GENERATE, "command-next")
    check_model(told.get("cohere"), {}, "limited", GENERATE, "command-light")
    assert refused(told, "limited", GENERATE, "command").why == "mode"
    check_model(told.get("openai"), {}, "limited", CLASSIFY, "gpt-x")
    with pytest.raises(ModelRefused, match="'gpt-y' is unknown"):
        check_model(told.get("openai"), {}, "limited", GENERATE, "gpt-y")
    assert told.get("local") is None


def test_a_file_may_stand_for_all_that_is_known(tmp_path: Path) -> None:
    one = '[cohere.models.only]\nkind = "generation"\nsize = "small"\n'
    told = read_catalogue(file(tmp_path, f"[cohere]\nreplace = true\n{one}"))

    assert list(told["cohere"]) == ["only"]
    error = refused(told, "full", GENERATE, "acme-7")
    assert (error.why, "was made of 'command', which is unknown" in str(error)) == ("base", True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[cohere", "is no TOML"),
        ("[cohre]\n", "cohre: no such name; known are cohere, openai, local"),
        ("[cohere]\nmodel = 1\n", "cohere.model: no such name; known are replace, models"),
        ('[cohere.models.a]\nkind = "generation"\n', "cohere.models.a.size: field required"),
        ('[cohere.models.a]\nkind = "writer"\nsize = "small"\n',
         "cohere.models.a.kind: input should be 'generation' or 'representation'"),
        ('[cohere.models.a]\nkind = "generation"\nsize = 7\n', "cohere.models.a.size: input"),
        ('[cohere.models.a]\nkind = "generation"\nsize = "small"\nmode = "full"\n',
         "cohere.models.a.mode: no such name; known are kind, size, endpoints, modes"),
        ('[cohere.models.a]\nkind = "generation"\nsize = "small"\nmodes = []\n',
         "cohere.models.a.modes: "),
        ('[cohere.models.a]\nkind = "generation"\nsize = "small"\nendpoints = ["chat"]\n',
         "cohere.models.a.endpoints.0: input should be 'generate', 'embed' or 'classify'"),
        ('[cohere]\nreplace = "yes"\n', "cohere.replace: input should be a valid boolean"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_refused_with_the_field_and_what_it_may_be(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(BadCatalogue) as error:
        read_catalogue(file(tmp_path, text))

    assert str(error.value).startswith("MILLPOND_MODELS: ")
    assert told in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCatalogue, match="cannot be read"):
        read_catalogue(tmp_path / "none.toml")

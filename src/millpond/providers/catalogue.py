"""Which models there are, of what kind and size, and who may ask them for what.

What is known of a provider's models stands here; a TOML file (`MILLPOND_MODELS`) adds to it or
takes its place. Of a provider without a catalogue nobody knows the models: all of them pass.

    [cohere]
    replace = false                      # true: only what stands in this file
    [cohere.models."command-next"]
    kind = "generation"                  # or "representation"
    size = "large"                       # or "small", "medium"
    endpoints = ["generate"]             # left out: all that models of the kind serve
    modes = ["full"]                     # left out: every access mode
"""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from millpond.domain.job import Endpoint
from millpond.errors import Refused
from millpond.providers.adapter import BadParameter
from millpond.providers.profile import Mode, WireName

Why = Literal["unknown", "base", "endpoint", "mode"]

_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid")
#: How many models an error names.
_NAMED_MOST = 8


class Kind(StrEnum):
    """Generation models write text; representation models embed and classify it."""

    GENERATION = "generation"
    REPRESENTATION = "representation"


class Size(StrEnum):
    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


_SERVES = {
    Kind.GENERATION: (Endpoint.GENERATE,),
    Kind.REPRESENTATION: (Endpoint.EMBED, Endpoint.CLASSIFY),
}


class Model(BaseModel):
    """A model as the catalogue knows it."""

    model_config = _STRICT

    kind: Kind
    size: Size
    endpoints: tuple[Endpoint, ...] | None = Field(None, min_length=1)
    modes: tuple[Mode, ...] = Field(("limited", "full"), min_length=1)

    @property
    def serves(self) -> tuple[Endpoint, ...]:
        return self.endpoints or _SERVES[self.kind]


Models = Mapping[str, Model]
#: The models of whoever speaks so. Of one that is not there nobody knows them: all pass.
Catalogue = Mapping[WireName, Models]


class _Told(BaseModel):
    """A provider's part of the file."""

    model_config = _STRICT

    replace: bool = False
    models: dict[str, Model] = Field(default_factory=dict)


class _File(BaseModel):
    model_config = _STRICT

    cohere: _Told | None = None
    openai: _Told | None = None
    local: _Told | None = None


def _of(kind: Kind, size: Size, modes: tuple[Mode, ...] = ("limited", "full")) -> Model:
    return Model(kind=kind, size=size, modes=modes)


#: Sizes are as Cohere's older names told them: `command` was xlarge, `command-light` medium.
_COHERE = {
    "command": _of(Kind.GENERATION, Size.LARGE),
    "command-light": _of(Kind.GENERATION, Size.MEDIUM),
    "command-nightly": _of(Kind.GENERATION, Size.LARGE, ("full",)),
    "command-light-nightly": _of(Kind.GENERATION, Size.MEDIUM, ("full",)),
    "embed-english-v3.0": _of(Kind.REPRESENTATION, Size.LARGE),
    "embed-english-light-v3.0": _of(Kind.REPRESENTATION, Size.SMALL),
    "embed-multilingual-v3.0": _of(Kind.REPRESENTATION, Size.LARGE),
    "embed-multilingual-light-v3.0": _of(Kind.REPRESENTATION, Size.SMALL),
    "embed-v4.0": Model(
        kind=Kind.REPRESENTATION, size=Size.LARGE, endpoints=(Endpoint.EMBED,), modes=("full",)
    ),
}
_KNOWN: Catalogue = {"cohere": _COHERE}


class BadCatalogue(Refused):
    """The file of models cannot be read, or says something that nobody understands."""

    code = "bad_catalogue"


class ModelRefused(BadParameter):
    """A model that cannot be asked for this; `why` says in which way, and `modes` in which access
    modes it could be. What to do about it is for whoever knows who asks: see `adding`."""

    code = "model_refused"

    def __init__(self, model: str, why: Why, message: str, modes: Sequence[Mode] = ()) -> None:
        super().__init__("model", message)
        self.model = model
        self.why = why
        self.modes = modes

    def adding(self, way_out: str) -> "ModelRefused":
        """The same, with a sentence more, if it is not empty."""
        told = f"{self}. {way_out}" if way_out else str(self)
        return ModelRefused(self.model, self.why, told, self.modes)


def read_catalogue(path: Path | None) -> Catalogue:
    """What is known beforehand, with what a file says. Raises BadCatalogue."""
    if path is None:
        return _KNOWN
    try:
        told = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadCatalogue(f"MILLPOND_MODELS: {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise BadCatalogue(f"MILLPOND_MODELS: {path} is no TOML: {error}") from None
    try:
        file = _File.model_validate_json(json.dumps(told, default=str))
    except ValidationError as error:
        raise BadCatalogue(f"MILLPOND_MODELS: {path}: {_fault(error)}") from None
    known: dict[WireName, Models] = dict(_KNOWN)
    parts: dict[WireName, _Told | None]
    parts = {"cohere": file.cohere, "openai": file.openai, "local": file.local}
    for wire, part in parts.items():
        if part is not None:
            before = {} if part.replace else _KNOWN.get(wire, {})
            known[wire] = {**before, **part.models}
    return known


def _fault(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        fields = _File if len(first["loc"]) == 1 else _Told if len(first["loc"]) == 2 else Model
        return f"{where}: no such name; known are {', '.join(fields.model_fields)}"
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"


def check_model(
    models: Models | None, own: Mapping[str, str], mode: Mode, endpoint: Endpoint, model: str
) -> None:
    """Raises ModelRefused for a model that cannot be asked for this in this access mode.

    `own`: the org's fine-tuned models, each with the model that it was made of. Another org's is
    as unknown as one that does not exist.
    """
    if models is None:
        return
    base = model if model in models else own.get(model)
    if base is None:
        raise ModelRefused(
            model,
            "unknown",
            f"model {model!r} is unknown; {endpoint} in {mode} access has "
            f"{_named(models, mode, endpoint)}",
        )
    found = models.get(base)
    if found is None:
        raise ModelRefused(
            model,
            "base",
            f"model {model!r} was made of {base!r}, which is unknown",
        )
    if endpoint not in found.serves:
        raise ModelRefused(
            model,
            "endpoint",
            f"model {model!r} is a {found.kind} model, for {' and '.join(found.serves)}, not for "
            f"{endpoint}; in {mode} access that has {_named(models, mode, endpoint)}",
        )
    if mode not in found.modes:
        raise ModelRefused(
            model,
            "mode",
            f"model {model!r} ({found.size}) is not for {mode} access, which has for {endpoint} "
            f"{_named(models, mode, endpoint)}",
            found.modes,
        )


def allowed(models: Models, mode: Mode | None, endpoint: Endpoint | None) -> Iterable[str]:
    """Names of models that serve an endpoint in an access mode; None: any."""
    for name, model in models.items():
        if (mode is None or mode in model.modes) and (endpoint is None or endpoint in model.serves):
            yield name


def _named(models: Models, mode: Mode, endpoint: Endpoint) -> str:
    found = [f"{name} ({models[name].size})" for name in allowed(models, mode, endpoint)]
    if len(found) > _NAMED_MOST:
        found[_NAMED_MOST:] = [f"{len(found) - _NAMED_MOST} more"]
    return ", ".join(found) or "none"

"""Which models there are, and the fine-tuned ones that belong to an org."""

from collections.abc import Iterator, Sequence

from millpond.errors import Refused
from millpond.operate.changes import operator
from millpond.operate.commands import Asked
from millpond.operate.reach import org_of
from millpond.providers.catalogue import Model, Models, allowed, read_catalogue
from millpond.providers.profile import PROFILES, Mode, ProviderName
from millpond.standing.moments import Told
from millpond.store.own_models import OwnModels


class NoSuchBase(Refused):
    """A fine-tuned model is to be registered under a name, or on a base, that cannot be."""

    code = "no_such_base"


async def list_models(
    asked: Asked, provider: ProviderName, mode: Mode | None, org: str | None, *, with_own: bool
) -> int:
    """The catalogue; `with_own`: and the models of an org. Only those need a server."""
    models = _models(asked, provider)
    own: dict[str, str] = {}
    if with_own:
        async with asked.store() as (store, _):
            own = await OwnModels(store.gateway).of(await org_of(store, org))
    known = models or {}
    rows = [_row(name, known[name], None) for name in allowed(known, mode, None)]
    rows += [
        _row(name, known.get(base), base)
        for name, base in sorted(own.items())
        if mode is None or base not in known or mode in known[base].modes
    ]
    asked.tell(rows, _list_lines(rows, provider, known=models is not None))
    return 0


async def add_model(
    asked: Asked, org: str | None, model: str, base: str, provider: ProviderName
) -> int:
    models = _models(asked, provider)
    if models is not None and model in models:
        raise NoSuchBase(f"model {model!r} is {provider}'s own, for everybody")
    if models is not None and base not in models:
        raise NoSuchBase(
            f"--base {base!r} is unknown; {provider} has {', '.join(models)}. If it has this one "
            "too, add it to the file that MILLPOND_MODELS names"
        )
    async with asked.store() as (store, _):
        name = await org_of(store, org)
        version = await OwnModels(store.gateway).add(name, model, base, by=operator())
    told = {"org": name, "model": model, "base": base, "version": version}
    asked.tell(told, iter([f"{model}, made of {base}, is org {name}'s own: version {version}"]))
    return 0


async def remove_model(asked: Asked, org: str | None, model: str) -> int:
    async with asked.store() as (store, _):
        name = await org_of(store, org)
        version = await OwnModels(store.gateway).remove(name, model, by=operator())
    told = {"org": name, "model": model, "version": version}
    asked.tell(told, iter([f"{model} is org {name}'s no more: version {version}"]))
    return 0


def _models(asked: Asked, provider: ProviderName) -> Models | None:
    return read_catalogue(asked.settings.models).get(PROFILES[provider].wire)


def _row(name: str, model: Model | None, base: str | None) -> Told:
    return {
        "model": name,
        "kind": model and model.kind,
        "size": model and model.size,
        "endpoints": list(model.serves) if model else None,
        "modes": list(model.modes) if model else None,
        "base": base,
    }


def _list_lines(rows: Sequence[Told], provider: ProviderName, *, known: bool) -> Iterator[str]:
    if not known:
        yield f"the models of {provider} are not known: every name is sent as it is"
    for row in rows:
        made_of = f"\tmade of {row['base']}" if row["base"] else ""
        if row["kind"] is None:
            yield f"{row['model']}{made_of}"
            continue
        yield (
            f"{row['model']}\t{row['kind']}\t{row['size']}\t{', '.join(row['endpoints'])}\t"
            f"{', '.join(row['modes'])}{made_of}"
        )

"""Commands about how one's own org stands at the service: what it used, may use, and its models."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from millpond.cli_own_key import app as own_key
from millpond.cli_service import AsJson, KeyFile, Place, Service, UpDir, Url, path_of, talk
from millpond.cli_tell import Told, each, note, say_json, say_lines, say_rows
from millpond.domain.job import Endpoint

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
own = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    own,
    name="own",
    help="One's own org at the service: its limits, models, and key at the provider.",
)
own.add_typer(own_key)

_LIMIT_COLUMNS = ("endpoint", "limit", ">used", ">amount", "unit", "has room")

ModelName = Annotated[
    str, typer.Argument(metavar="NAME", help="The model's whole name at the provider.")
]


# ------------------------------------------------------------ what it used and may use


@app.command()
def usage(
    days: Annotated[int, typer.Option(min=1, max=366, help="Today and those before.")] = 30,
    user: Annotated[str | None, typer.Option(help="Of this user.")] = None,
    endpoint: Annotated[Endpoint | None, typer.Option(help="Of this endpoint.")] = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what jobs of the service used, by day, user, endpoint and model, and the quota."""

    async def work(service: Service) -> None:
        told = await service.get(path_of("usage"), days=days, user=user, endpoint=endpoint)
        if as_json:
            say_json(told)
            return
        await say_rows(
            each(told["data"]),
            ("day", "user", "endpoint", "model", ">jobs", ">characters"),
            lambda row: [
                *(row[name] for name in ("day", "user", "endpoint", "model")),
                *(row[name] for name in ("jobs", "characters")),
            ],
            as_json=False,
        )
        note(quota_text(told))

    talk(Place(url, api_key_file, data_dir), work)


@own.command("show")
def own_show(
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Show whose key it is that one has, and how the org stands."""

    async def work(service: Service) -> None:
        told = {
            "user": await service.get(path_of("users", "me")),
            "org": await service.get(path_of("orgs", "me")),
        }
        say_lines(told, _lines, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@own.command("limits")
def own_limits(
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the org's limits, what is used of each, and when there is room again."""

    async def work(service: Service) -> None:
        await _tell_limits(await service.get(path_of("limits")), as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@own.command("cap-users")
def own_cap_users(
    limits: Annotated[
        str,
        typer.Option(
            metavar="ENDPOINT=AMOUNT/WINDOW,...|none;...",
            help="What each user may have: 'generate=20/60s,2000/1d'; none: as much as there is.",
        ),
    ],
    why: Annotated[str | None, typer.Option(help="Why, for the audit.")] = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """For admins: cap what one user has of the limits. Endpoints that are not named stay."""
    body = {"limits": _caps(limits), **({} if why is None else {"why": why})}

    async def work(service: Service) -> None:
        path = path_of("limits", "per-user")
        told = await service.ask("PUT", path, body=body, safe=True)
        await _tell_limits(told, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


def _caps(text: str) -> dict[str, str | None]:
    """A list of caps for each endpoint that is named; None: none."""
    caps: dict[str, str | None] = {}
    for part in text.split(";"):
        endpoint, _, of = (one.strip() for one in part.partition("="))
        if endpoint not in set(Endpoint) or not of or endpoint in caps:
            raise typer.BadParameter(
                f"{part!r}: write ENDPOINT=AMOUNT/WINDOW,... or ENDPOINT=none, each endpoint once; "
                f"there are {', '.join(Endpoint)}",
                param_hint="--limits",
            )
        caps[endpoint] = None if of == "none" else of
    return caps


async def _tell_limits(told: Told, *, as_json: bool) -> None:
    if as_json:
        say_json(told)
        return
    rows = [
        {"endpoint": endpoint, **limit}
        for endpoint, lane in told["endpoints"].items()
        for limit in lane["limits"]
    ]
    await say_rows(each(rows), _LIMIT_COLUMNS, _limit_cells, as_json=False)
    for line in _beside_limits(told):
        note(line)


# ------------------------------------------------------------ models


@own.command("models")
def own_models(
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """List the models that the org may use in its access mode, its own fine-tuned ones last."""

    async def work(service: Service) -> None:
        told = await service.get(path_of("models"))
        columns = ("id", "kind", "size", "endpoints", "made of")
        await say_rows(each(told["data"]), columns, _model_cells, as_json=as_json)
        if not told["all_known"]:
            note("others may be named as well: this provider's models are not known beforehand")

    talk(Place(url, api_key_file, data_dir), work)


@own.command("add-model")
def own_add_model(
    name: ModelName,
    base: Annotated[str, typer.Option(metavar="MODEL", help="What it was made of.")],
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """For admins: a fine-tuned model is the org's. It serves what its base serves, for it alone."""

    async def work(service: Service) -> None:
        told = await service.post(path_of("models"), {"id": name, "base": base}, safe=True)
        say_lines(told, _model_line, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@own.command("remove-model")
def own_remove_model(
    name: ModelName,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """For admins: a fine-tuned model is the org's no more."""

    async def work(service: Service) -> None:
        await service.ask("DELETE", path_of("models", name))
        if as_json:
            say_json({"id": name, "removed": True})
        else:
            note(f"model {name} is the org's no more")

    talk(Place(url, api_key_file, data_dir), work)


# ------------------------------------------------------------ how it is told


def quota_text(told: Told) -> str:
    spent = told["used"] + told["estimated"]
    if told["quota"] is None:
        return f"no quota; {spent:,} characters used"
    text = f"quota: {spent:,} of {told['quota']:,} characters used"
    if told["reserved"]:
        text += f", {told['reserved']:,} reserved for calls in flight"
    return text


def _lines(told: Told) -> Iterator[str]:
    user, org = told["user"], told["org"]
    yield f"user {user['id']} ({user['name']}), {user['role']} of {org['id']}; key {user['key']}"
    suspended = ", suspended" if org["suspended"] else ""
    yield f"org {org['id']} ({org['name']}): {org['mode']} access{suspended}"
    yield f"  {quota_text(org)}"
    if org["application"]:
        yield f"  application {org['application']['number']}: {org['application']['stage']}"


def _limit_cells(row: Told) -> list[Any]:
    room = row["has_room"]["at"] if row["has_room"] else "now"
    return [*(row[name] for name in ("endpoint", "limit", "used", "amount", "unit")), room]


def _beside_limits(told: Told) -> Iterator[str]:
    from millpond.operate.people import waits_text

    yield quota_text(told["org"])
    for endpoint, lane in told["endpoints"].items():
        if lane["waits"] is not None:
            yield f"{endpoint} waits for {waits_text(lane['waits'])}"


def _model_cells(model: Told) -> list[Any]:
    endpoints = ", ".join(model.get("endpoints") or ())
    return [model["id"], model.get("kind"), model.get("size"), endpoints, model.get("base")]


def _model_line(model: Told) -> Iterator[str]:
    yield f"model {model['id']}, made of {model['base']}, is the org's own"

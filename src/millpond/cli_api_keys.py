"""Commands about API keys of the service: those of users, and those of operators."""

import re
from typing import Annotated

import typer

from millpond.cli_operator import WhyIfTold, if_told, operators_place
from millpond.cli_service import (
    AsJson,
    KeyFile,
    OperatorKeyFile,
    OperatorUrl,
    Place,
    Service,
    UpDir,
    Url,
    path_of,
    talk,
)
from millpond.cli_tell import Told, each, moment, note, say, say_json, say_rows

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
operators = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    keys, name="keys", help="API keys of the service. (key: the orgs' keys at their provider.)"
)
app.add_typer(operators, name="operators", help="For operators: operators' keys.")

_COLUMNS = ("id", "name", "user", "state", "made", "expires", "last used")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as list shows it.")]
ExpiresIn = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="How long it is good: 12h, 30d. [default: no end]"),
]


# ------------------------------------------------------------ of users


@keys.command("list")
def keys_list(
    user: Annotated[str | None, typer.Option(help="For admins: of this user.")] = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """List one's API keys, the latest first: their names and states, never their texts."""

    async def work(service: Service) -> None:
        told = await service.get(path_of("keys"), user=user)
        await say_rows(each(told["data"]), _COLUMNS, _cells, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@keys.command("make")
def keys_make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    user: Annotated[str | None, typer.Option(help="For admins: for this user.")] = None,
    expires_in: ExpiresIn = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is printed to stdout, this once; all else goes to stderr."""
    body = {"name": name, "user": user, "expires_in_s": expires_in_s(expires_in)}

    async def work(service: Service) -> None:
        asked = {key: value for key, value in body.items() if value is not None}
        told = await service.post(path_of("keys"), asked)
        tell_new_key(told, f"user {told['user']}", as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@keys.command("revoke")
def keys_revoke(
    key: KeyId,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """An API key is good no more, within 5 s."""
    revoke(Place(url, api_key_file, data_dir), "keys", key, as_json=as_json)


# ------------------------------------------------------------ of operators


@operators.command("list")
def operators_list(
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """List operators' keys, the latest first."""

    async def work(service: Service) -> None:
        told = await service.get(path_of("operators"))
        await say_rows(each(told["data"]), _COLUMNS, _cells, as_json=as_json)

    talk(operators_place(url, operator_key_file, data_dir), work)


@operators.command("make")
def operators_make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is: stands in audits.")],
    expires_in: ExpiresIn = None,
    why: WhyIfTold = None,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an operator's key. It is printed to stdout, this once; all else goes to stderr.

    The very first one of a deployment is made by `millpond operator-key`.
    """
    body = {"name": name, **if_told(expires_in_s=expires_in_s(expires_in), why=why)}

    async def work(service: Service) -> None:
        told = await service.post(path_of("operators"), body)
        tell_new_key(told, f"operator {told['name']}", as_json=as_json)

    talk(operators_place(url, operator_key_file, data_dir), work)


@operators.command("revoke")
def operators_revoke(
    key: KeyId,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """An operator's key is good no more, within 5 s."""
    revoke(operators_place(url, operator_key_file, data_dir), "operators", key, as_json=as_json)


# ------------------------------------------------------------ of both


def _cells(key: Told) -> list[str]:
    return [
        *(key["id"], key["name"], key["user"] or "-", key["state"]),
        *(moment(key[name]) for name in ("created_at", "expires_at", "last_used")),
    ]


def tell_new_key(told: Told, whose: str, *, as_json: bool) -> None:
    """The key to stdout, this once, so that it can be sent to a file; the rest to stderr."""
    if as_json:
        say_json(told)
        return
    expires = f", good until {told['expires_at']}" if told["expires_at"] else ""
    note(f"key {told['id']} ({told['name']}) of {whose}{expires}. It is shown this once:")
    say(told["key"])


def expires_in_s(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if not found or int(found[1]) == 0:
        raise typer.BadParameter(
            f"{text!r} is no time: write 90s, 30m, 12h or 30d", param_hint="--expires-in"
        )
    return int(found[1]) * _SECONDS[found[2]]


def revoke(place: Place, what: str, key: str, *, as_json: bool) -> None:
    id = key_id(key)

    async def work(service: Service) -> None:
        await service.ask("DELETE", path_of(what, id))
        if as_json:
            say_json({"id": id, "revoked": True})
        else:
            note(f"key {id} is revoked")

    talk(place, work)


def key_id(key: str) -> str:
    """A whole key on a command line has been seen by others, but it goes no further."""
    if re.match(r"mp[ko]_.", key):
        raise typer.BadParameter(
            "name the key by its id, the part after mpk_ or mpo_ and before the next _; what is "
            "written here others on this machine can see",
            param_hint="KEY",
        )
    return key

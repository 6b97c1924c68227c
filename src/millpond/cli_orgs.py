"""Commands of operators about orgs: made, looked after, suspended; what each has."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from millpond.cli_api_jobs import MostRows
from millpond.cli_api_keys import ExpiresIn, expires_in_s, tell_new_key
from millpond.cli_operator import (
    NewLimits,
    NewQuota,
    OrgId,
    Why,
    WhyIfTold,
    if_told,
    operators_place,
    terms,
)
from millpond.cli_own import quota_text
from millpond.cli_purge import app as purge
from millpond.cli_service import (
    AsJson,
    OperatorKeyFile,
    OperatorUrl,
    Place,
    Service,
    UpDir,
    path_of,
    talk,
)
from millpond.cli_tell import Told, each, moment, note, say_json, say_lines, say_rows
from millpond.cli_users import UserRole, user_line

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
orgs = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    orgs, name="orgs", help="For operators: orgs of the service. (org: on a server's data.)"
)
orgs.add_typer(purge)

_COLUMNS = ("id", "name", "mode", "state", ">used", ">quota", "application", "made")
_LEDGER_COLUMNS = (
    *("at", "outcome", ">characters", ">used", ">estimated"),
    *("call", "lane", "by", "why"),
)


@orgs.command("list")
def orgs_list(
    most: MostRows = 1_000,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """List orgs, by their id."""

    async def work(service: Service) -> None:
        rows = service.rows(path_of("orgs"), most=most)
        await say_rows(rows, _COLUMNS, _cells, as_json=as_json)

    talk(operators_place(url, operator_key_file, data_dir), work)


@orgs.command("show")
def orgs_show(
    name: OrgId,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Show an org: its access, its quota, its limits, the weights of its users."""

    async def work(service: Service) -> None:
        say_lines(await service.get(path_of("orgs", name)), _lines, as_json=as_json)

    talk(operators_place(url, operator_key_file, data_dir), work)


@orgs.command("make")
def orgs_make(
    name: OrgId,
    called: Annotated[str | None, typer.Option("--name", help="For people. [default: ORG]")] = None,
    admin: Annotated[
        str | None,
        typer.Option(metavar="USER", help="Make this its first admin, and a key, printed once."),
    ] = None,
    admin_name: Annotated[
        str | None, typer.Option(help="The admin's, for people. [default: USER]")
    ] = None,
    limits: NewLimits = None,
    quota: NewQuota = None,
    why: WhyIfTold = None,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an org in limited access. With --admin its key goes to stdout, all else to stderr."""
    if admin_name is not None and admin is None:
        raise typer.BadParameter("goes with --admin", param_hint="--admin-name")
    first = None if admin is None else {"id": admin, "name": admin_name or admin}
    body = {
        "id": name,
        "name": called or name,
        **terms(limits, quota),
        **if_told(admin=first, why=why),
    }

    async def work(service: Service) -> None:
        told = await service.post(path_of("orgs"), body)
        if as_json:
            say_json(told)
            return
        for line in _lines(told["org"]):
            note(line)
        if told["key"]:
            tell_new_key(told["key"], f"admin {told['admin']['id']}", as_json=False)

    talk(operators_place(url, operator_key_file, data_dir), work)


@orgs.command("suspend")
def orgs_suspend(
    name: OrgId,
    why: Why,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Let nothing of an org go until that is lifted; nothing is lost."""
    place = operators_place(url, operator_key_file, data_dir)
    _post(place, (name, "suspend"), {"why": why}, as_json=as_json)


@orgs.command("lift")
def orgs_lift(
    name: OrgId,
    why: Why,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Lift an org's suspension: what waited goes on."""
    place = operators_place(url, operator_key_file, data_dir)
    _post(place, (name, "lift"), {"why": why}, as_json=as_json)


@orgs.command("to-limited")
def orgs_to_limited(
    name: OrgId,
    why: Why,
    limits: NewLimits = None,
    quota: NewQuota = None,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Take an org back to limited access: what it used counts again."""
    place = operators_place(url, operator_key_file, data_dir)
    body = {"why": why, **terms(limits, quota)}
    _post(place, (name, "to-limited"), body, as_json=as_json)


def _post(place: Place, parts: tuple[str, ...], body: Told, *, as_json: bool) -> None:
    async def work(service: Service) -> None:
        told = await service.post(path_of("orgs", *parts), body, safe=True)
        say_lines(told, _lines, as_json=as_json)

    talk(place, work)


@orgs.command("limits")
def orgs_limits(
    name: OrgId,
    limits: NewLimits = None,
    quota: NewQuota = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="USER=W", help="A user's share beside others; repeatable."),
    ] = None,
    why: WhyIfTold = None,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Change an org's limits, its quota, the weights of its users, in one step."""
    body = terms(limits, quota)
    if weight:
        body["weights"] = _weights(weight)
    if not body:
        raise typer.BadParameter(
            "name what to change: --limits, --quota or --weight; `orgs show` shows what holds",
            param_hint="ORG",
        )

    async def work(service: Service) -> None:
        told = await service.ask(
            "PATCH", path_of("orgs", name, "limits"), body={**body, **if_told(why=why)}, safe=True
        )
        say_lines(told, _lines, as_json=as_json)

    talk(operators_place(url, operator_key_file, data_dir), work)


def _weights(pairs: list[str]) -> dict[str, float]:
    weights = {}
    for pair in pairs:
        user, equals, text = pair.rpartition("=")
        try:
            weights[user] = float(text)
        except ValueError:
            equals = ""
        if not equals or not user:
            raise typer.BadParameter(
                f"{pair!r}: write USER=W, for example anna=2", param_hint="--weight"
            )
    return weights


# ------------------------------------------------------------ what an org has


@orgs.command("add-user")
def orgs_add_user(
    name: OrgId,
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    called: Annotated[
        str | None, typer.Option("--name", help="For people. [default: USER]")
    ] = None,
    role: Annotated[UserRole, typer.Option(help="What it may do.")] = UserRole.ADMIN,
    why: WhyIfTold = None,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a user of an org, an admin if nothing else is said: its first, or one more.

    It has no key yet: millpond orgs make-key ORG NAME --user USER.
    """
    body = {"id": user, "name": called or user, "role": role, **if_told(why=why)}

    async def work(service: Service) -> None:
        told = await service.post(path_of("orgs", name, "users"), body)
        say_lines(told, user_line, as_json=as_json)

    talk(operators_place(url, operator_key_file, data_dir), work)


@orgs.command("make-key")
def orgs_make_key(
    name: OrgId,
    called: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    user: Annotated[str, typer.Option(help="For which user of the org.")],
    expires_in: ExpiresIn = None,
    why: WhyIfTold = None,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key for a user of an org, who lost the last one or never had any.

    It is printed to stdout, this once; all else goes to stderr.
    """
    body = {
        "user": user,
        "name": called,
        **if_told(expires_in_s=expires_in_s(expires_in), why=why),
    }

    async def work(service: Service) -> None:
        told = await service.post(path_of("orgs", name, "keys"), body)
        tell_new_key(told, f"user {told['user']} of org {name}", as_json=as_json)

    talk(operators_place(url, operator_key_file, data_dir), work)


@orgs.command("ledger")
def orgs_ledger(
    name: OrgId,
    most: MostRows = 100,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what each call of an org used, and what was entered by hand, the newest last.

    `millpond quota ledger --verify` checks the rows, in the data.
    """

    async def work(service: Service) -> None:
        found = [row async for row in service.rows(path_of("orgs", name, "ledger"), most=most)]
        rows = each(found[::-1])  # as `quota ledger` and `audit` have them
        await say_rows(rows, _LEDGER_COLUMNS, _ledger_cells, as_json=as_json)

    talk(operators_place(url, operator_key_file, data_dir), work)


# ------------------------------------------------------------ how it is told


def _cells(org: Told) -> list[Any]:
    application = org["application"]
    return [
        *(org["id"], org["name"], org["mode"]),
        "suspended" if org["suspended"] else "active",
        org["used"] + org["estimated"],
        "none" if org["quota"] is None else org["quota"],
        f"{application['number']} {application['stage']}" if application else None,
        moment(org["created_at"]),
    ]


def _lines(org: Told) -> Iterator[str]:
    state = ", suspended" if org["suspended"] else ""
    yield f"org {org['id']} ({org['name']}): {org['mode']} access{state}"
    yield f"  {quota_text(org)}"
    for endpoint, limits in sorted(org.get("limits", {}).items()):
        yield f"  {endpoint}: {limits}"
    for user, weight in sorted(org.get("weights", {}).items()):
        yield f"  user {user or '(none)'}: weight {weight:g}"
    if org["application"]:
        yield f"  application {org['application']['number']}: {org['application']['stage']}"


def _ledger_cells(row: Told) -> list[Any]:
    names = ("outcome", "characters", "used", "estimated", "call", "lane", "by", "why")
    return [moment(row["at"]), *(row[name] for name in names)]

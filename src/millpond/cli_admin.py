"""Commands of operators, through the service: orgs, the review desk, operators' keys."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from millpond import cli_values as values
from millpond.cli_account import (
    KEY_COLUMNS,
    ExpiresIn,
    application_lines,
    expires_in_s,
    key_cells,
    prose,
    quota_text,
    revoke,
    tell_new_key,
)
from millpond.cli_api_jobs import MostRows
from millpond.cli_service import (
    AsJson,
    OperatorKeyFile,
    OperatorUrl,
    Place,
    Service,
    Side,
    UpDir,
    path_of,
    talk,
)
from millpond.cli_tell import Told, each, moment, note, say_json, say_lines, say_rows
from millpond.domain.account import CHECKLIST
from millpond.domain.limit import parse_limits, write_limit_list

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
orgs = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
desk = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
operators = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    orgs, name="orgs", help="For operators: orgs of the service. (org: on a server's data.)"
)
app.add_typer(desk, name="desk", help="For operators: applications for full access.")
app.add_typer(operators, name="operators", help="For operators: operators' keys.")

OrgId = Annotated[str, typer.Argument(metavar="ORG", help="The org's id.")]
Why = Annotated[str, typer.Option(help="Why, for the org's audit.")]
WhyIfTold = Annotated[str | None, typer.Option(help="Why, for the org's audit.")]
NewLimits = Annotated[
    str | None,
    typer.Option(
        "--limits",
        metavar="ENDPOINT=AMOUNT/WINDOW,...;...",
        help="In place of the provider's: 'generate=60/60s,50000/1d'.",
    ),
]
NewQuota = Annotated[
    str | None, typer.Option("--quota", metavar="N|none", help="Characters of generate, in all.")
]
Number = Annotated[
    int | None,
    typer.Option(min=1, max=999_999_999, help="Of which application. [default: the latest]"),
]


def _place(url: str | None, key_file: Path | None, data_dir: Path | None) -> Place:
    return Place(url, key_file, data_dir, Side.OPERATOR)


def _terms(limits: str | None, quota: str | None) -> Told:
    """What is named of limits and quota, as the API takes it."""
    told: Told = {}
    if limits is not None:
        read = values.checked("--limits", parse_limits, limits)
        told["limits"] = {str(endpoint): write_limit_list(of) for endpoint, of in read.items()}
    if quota is not None:
        told["quota"] = values.quota(quota, None)
    return told


def _if_told(**fields: Any) -> Told:
    return {name: value for name, value in fields.items() if value is not None}


# ------------------------------------------------------------ orgs


_ORG_COLUMNS = ("id", "name", "mode", "state", ">used", ">quota", "application", "made")


def _org_cells(org: Told) -> list[Any]:
    application = org["application"]
    return [
        *(org["id"], org["name"], org["mode"]),
        "suspended" if org["suspended"] else "active",
        org["used"] + org["estimated"],
        "none" if org["quota"] is None else org["quota"],
        f"{application['number']} {application['stage']}" if application else None,
        moment(org["created_at"]),
    ]


def _org_lines(org: Told) -> Iterator[str]:
    state = ", suspended" if org["suspended"] else ""
    yield f"org {org['id']} ({org['name']}): {org['mode']} access{state}"
    yield f"  {quota_text(org)}"
    for endpoint, limits in sorted(org.get("limits", {}).items()):
        yield f"  {endpoint}: {limits}"
    for user, weight in sorted(org.get("weights", {}).items()):
        yield f"  user {user or '(none)'}: weight {weight:g}"
    if org["application"]:
        yield f"  application {org['application']['number']}: {org['application']['stage']}"


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
        await say_rows(rows, _ORG_COLUMNS, _org_cells, as_json=as_json)

    talk(_place(url, operator_key_file, data_dir), work)


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
        say_lines(await service.get(path_of("orgs", name)), _org_lines, as_json=as_json)

    talk(_place(url, operator_key_file, data_dir), work)


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
        **_terms(limits, quota),
        **_if_told(admin=first, why=why),
    }

    async def work(service: Service) -> None:
        told = await service.post(path_of("orgs"), body)
        if as_json:
            say_json(told)
            return
        for line in _org_lines(told["org"]):
            note(line)
        if told["key"]:
            tell_new_key(told["key"], f"admin {told['admin']['id']}", as_json=False)

    talk(_place(url, operator_key_file, data_dir), work)


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
    place = _place(url, operator_key_file, data_dir)
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
    place = _place(url, operator_key_file, data_dir)
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
    place = _place(url, operator_key_file, data_dir)
    body = {"why": why, **_terms(limits, quota)}
    _post(place, (name, "to-limited"), body, as_json=as_json)


def _post(place: Place, parts: tuple[str, ...], body: Told, *, as_json: bool) -> None:
    async def work(service: Service) -> None:
        told = await service.post(path_of("orgs", *parts), body, safe=True)
        say_lines(told, _org_lines, as_json=as_json)

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
    body = _terms(limits, quota)
    if weight:
        body["weights"] = _weights(weight)
    if not body:
        raise typer.BadParameter(
            "name what to change: --limits, --quota or --weight; `orgs show` shows what holds",
            param_hint="ORG",
        )

    async def work(service: Service) -> None:
        told = await service.ask(
            "PATCH", path_of("orgs", name, "limits"), body={**body, **_if_told(why=why)}, safe=True
        )
        say_lines(told, _org_lines, as_json=as_json)

    talk(_place(url, operator_key_file, data_dir), work)


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


# ------------------------------------------------------------ the review desk


def _desk_cells(told: Told) -> list[Any]:
    return [
        *(told["org"], told["number"], told["stage"], told["by"], moment(told["at"])),
        _short(told["use_case"]),
    ]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


def _desk_lines(told: Told) -> Iterator[str]:
    yield from application_lines(told)
    checklist = (told["decision"] or {}).get("checklist") or {}
    if checklist:
        ticked = ", ".join(name for name, is_ticked in checklist.items() if is_ticked)
        yield f"  ticked: {ticked or 'nothing'}"


@desk.command("list")
def desk_list(
    asked: Annotated[
        bool, typer.Option("--asked", help="Those that wait for the org's answer.")
    ] = False,
    most: MostRows = 100,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """List applications that wait for an operator, the oldest first."""
    stage = "asked" if asked else "open"

    async def work(service: Service) -> None:
        rows = service.rows(path_of("access", "desk"), most=most, stage=stage)
        columns = ("org", ">number", "stage", "by", "at", "use case")
        await say_rows(rows, columns, _desk_cells, as_json=as_json)

    talk(_place(url, operator_key_file, data_dir), work)


@desk.command("show")
def desk_show(
    name: OrgId,
    number: Number = None,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Show an org's application, with all that was asked and answered."""

    async def work(service: Service) -> None:
        told = await service.get(await _application(service, name, number))
        say_lines(told, _desk_lines, as_json=as_json)

    talk(_place(url, operator_key_file, data_dir), work)


@desk.command("approve")
def desk_approve(
    name: OrgId,
    why: Why,
    tick: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ITEM",
            help="An item that you have checked; all are needed: use_case_clear, risks_addressed, "
            "guidelines_accepted.",
        ),
    ] = None,
    number: Number = None,
    limits: NewLimits = None,
    quota: NewQuota = None,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Give an org full access, from the next decision on."""
    checklist = _checklist(tick)
    missing = [item for item in CHECKLIST if item not in checklist]
    if missing:
        raise typer.BadParameter(
            f"not ticked: {', '.join(missing)}; check it and write --tick for each",
            param_hint="--tick",
        )
    body = {"why": why, "checklist": checklist, **_terms(limits, quota)}
    _decide(_place(url, operator_key_file, data_dir), name, number, "approve", body, as_json)


@desk.command("reject")
def desk_reject(
    name: OrgId,
    why: Why,
    tick: Annotated[
        list[str] | None, typer.Option(metavar="ITEM", help="An item that was in order.")
    ] = None,
    number: Number = None,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Reject an application: the org stays as it is, is told why, and may apply again."""
    body = {"why": why, "checklist": _checklist(tick)}
    _decide(_place(url, operator_key_file, data_dir), name, number, "reject", body, as_json)


@desk.command("ask")
def desk_ask(
    name: OrgId,
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="What to ask; - is standard input.")
    ],
    number: Number = None,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask back. The application waits for the org's answer."""
    body = {"question": prose("QUESTION", question)}
    _decide(_place(url, operator_key_file, data_dir), name, number, "ask", body, as_json)


def _checklist(tick: list[str] | None) -> dict[str, bool]:
    for item in tick or []:
        if item not in CHECKLIST:
            raise typer.BadParameter(
                f"{item!r} is no item: there are {', '.join(CHECKLIST)}", param_hint="--tick"
            )
    return dict.fromkeys(tick or [], True)


async def _application(service: Service, org: str, number: int | None) -> str:
    """The path of an org's application: the latest, if none is named."""
    if number is None:
        latest = (await service.get(path_of("orgs", org)))["application"]
        if latest is None:
            raise typer.BadParameter(f"{org} has not applied for full access", param_hint="ORG")
        number = latest["number"]
    return path_of("access", org, str(number))


def _decide(
    place: Place, org: str, number: int | None, step: str, body: Told, as_json: bool
) -> None:
    async def work(service: Service) -> None:
        told = await service.post(f"{await _application(service, org, number)}/{step}", body)
        say_lines(told, _desk_lines, as_json=as_json)

    talk(place, work)


# ------------------------------------------------------------ operators


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
        await say_rows(each(told["data"]), KEY_COLUMNS, key_cells, as_json=as_json)

    talk(_place(url, operator_key_file, data_dir), work)


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
    body = {"name": name, **_if_told(expires_in_s=expires_in_s(expires_in), why=why)}

    async def work(service: Service) -> None:
        told = await service.post(path_of("operators"), body)
        tell_new_key(told, f"operator {told['name']}", as_json=as_json)

    talk(_place(url, operator_key_file, data_dir), work)


@operators.command("revoke")
def operators_revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as list shows it.")],
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """An operator's key is good no more, within 5 s."""
    revoke(_place(url, operator_key_file, data_dir), "operators", key, as_json=as_json)

"""Commands of operators about applications for full access: the review desk."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from millpond.cli_access import application_lines, prose
from millpond.cli_api_jobs import MostRows
from millpond.cli_operator import NewLimits, NewQuota, OrgId, Why, operators_place, terms
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
from millpond.cli_tell import Told, moment, say_lines, say_rows
from millpond.domain.account import CHECKLIST

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
desk = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(desk, name="desk", help="For operators: applications for full access.")

Number = Annotated[
    int | None,
    typer.Option(min=1, max=999_999_999, help="Of which application. [default: the latest]"),
]


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
        await say_rows(rows, columns, _cells, as_json=as_json)

    talk(operators_place(url, operator_key_file, data_dir), work)


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
        say_lines(told, _lines, as_json=as_json)

    talk(operators_place(url, operator_key_file, data_dir), work)


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
    body = {"why": why, "checklist": checklist, **terms(limits, quota)}
    _decide(
        operators_place(url, operator_key_file, data_dir), name, number, "approve", body, as_json
    )


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
    _decide(
        operators_place(url, operator_key_file, data_dir), name, number, "reject", body, as_json
    )


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
    _decide(operators_place(url, operator_key_file, data_dir), name, number, "ask", body, as_json)


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
        say_lines(told, _lines, as_json=as_json)

    talk(place, work)


def _cells(told: Told) -> list[Any]:
    return [
        *(told["org"], told["number"], told["stage"], told["by"], moment(told["at"])),
        _short(told["use_case"]),
    ]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


def _lines(told: Told) -> Iterator[str]:
    yield from application_lines(told)
    checklist = (told["decision"] or {}).get("checklist") or {}
    if checklist:
        ticked = ", ".join(name for name, is_ticked in checklist.items() if is_ticked)
        yield f"  ticked: {ticked or 'nothing'}"

"""Commands of operators by which an org is erased: the purge, and its receipt.

POST …/purge ── 202, its receipt so far ──▶ waits ── again ──▶ … ──▶ 200, the receipt
                who is cut off says the same again, and it goes on
"""

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from millpond.cli_operator import OrgId, Why, operators_place
from millpond.cli_service import (
    LATER,
    AsJson,
    OperatorKeyFile,
    OperatorUrl,
    Service,
    UpDir,
    path_of,
    talk,
)
from millpond.cli_tell import Told, moment, note, say_lines
from millpond.errors import MillpondError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

#: A request erases for 20 s, and is answered then.
_HOLD_S = 30.0
#: Between requests, while calls have to end.
_AGAIN_S = 5.0


@app.command("purge")
def orgs_purge(
    name: OrgId,
    why: Why,
    confirm: Annotated[
        str | None,
        typer.Option(
            metavar="ORG", help="The org's id once more. [default: asked for on a terminal]"
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=1, max=86_400, help="Seconds; what is left then goes when it is said again."
        ),
    ] = 600.0,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Erase an org with everything of it, for ever, and print the receipt.

    It is suspended at once. Interrupted, it is not taken back: said again it goes on. Exit codes:
    0 all is gone, 75 calls or a run were still in the way after --timeout.
    """
    _must_confirm(name, confirm)
    body = {"why": why, "confirm": name}

    async def work(service: Service) -> int:
        told = await _erase(service, name, body, timeout)
        say_lines(told, receipt_lines, as_json=as_json)
        if told["ended_at"] is None:
            note(f"millpond: not done in {timeout:g} s: {told['waits_for'] or 'there is more'}")
            note(f"millpond: {_way_out(name)}")
            return LATER
        return 0

    talk(operators_place(url, operator_key_file, data_dir), work)


@app.command("receipt")
def orgs_receipt(
    name: OrgId,
    url: OperatorUrl = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what was erased of an org, by whom, when and why; or how far it is."""

    async def work(service: Service) -> None:
        say_lines(await service.get(path_of("receipts", name)), receipt_lines, as_json=as_json)

    talk(operators_place(url, operator_key_file, data_dir), work)


def _must_confirm(name: str, confirm: str | None) -> None:
    """Nobody erases an org by a slip: its id is written twice."""
    if confirm is None and sys.stdin.isatty():
        note(f"everything of org {name} goes, for ever: users, keys, jobs, answers, its books")
        typer.echo("Write its id to go on: ", nl=False, err=True)
        confirm = sys.stdin.readline().strip()
    if confirm is None:
        raise typer.BadParameter(
            f"what goes cannot be brought back: write --confirm {name}", param_hint="--confirm"
        )
    if confirm != name:
        raise typer.BadParameter(
            f"{confirm!r} is not {name!r}: nothing was erased", param_hint="--confirm"
        )


async def _erase(service: Service, name: str, body: Told, timeout_s: float) -> Told:
    """Ask until all is gone or the time is over; the last receipt. Each change is told."""
    import asyncio

    path, now = path_of("orgs", name, "purge"), asyncio.get_running_loop().time
    until, last, begun = now() + timeout_s, "", False
    try:
        while True:
            told: Told = await service.ask("POST", path, body=body, safe=True, hold_s=_HOLD_S)
            begun = True
            if told["ended_at"] is not None or now() >= until:
                return told
            if (line := _progress(told)) != last:
                note(line)
                last = line
            if told["waits_for"] is not None:
                await asyncio.sleep(min(_AGAIN_S, max(0.0, until - now())))
    except asyncio.CancelledError:
        note(f"millpond: interrupted; {_way_out(name)}")
        raise
    except MillpondError:
        if begun:
            note(f"millpond: {_way_out(name)}")
        raise


def _way_out(name: str) -> str:
    return (
        "what was begun stays begun: say the same again, and it goes on; how far it is: "
        f"millpond orgs receipt {name}"
    )


def _progress(told: Told) -> str:
    erased = ", ".join(_counts(told)) or "nothing yet"
    waits = f"; waits: {told['waits_for']}" if told["waits_for"] else ""
    return f"erased so far: {erased}{waits}"


def _counts(told: Told) -> Iterator[str]:
    for kind, count in told["erased"].items():
        yield f"{kind.replace('_', ' ')}: {count:,}"


def receipt_lines(told: Told) -> Iterator[str]:
    state = "erased" if told["ended_at"] else "being erased"
    called = f" ({told['name']})" if told["name"] else ""
    yield f"org {told['org']}{called}: {state}, by {told['by']}: {told['why']}"
    yield f"  begun {moment(told['begun_at'])}, ended {moment(told['ended_at'])}"
    for line in _counts(told):
        yield f"  {line}"
    if told["waits_for"]:
        yield f"  waits: {told['waits_for']}"
    yield f"  left: {told['left']}"

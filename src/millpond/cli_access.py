"""Commands about the access mode of one's own org: the usage guidelines, and the application for
full access."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from millpond.cli_service import AsJson, KeyFile, Place, Service, UpDir, Url, path_of, talk
from millpond.cli_tell import Told, moment, say_lines

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
access = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(access, name="access", help="The usage guidelines, and the way to full access.")

_TEXT_BYTES_MOST = 64_000

Why = Annotated[str | None, typer.Option(help="Why, for the audit.")]


@access.command("show")
def access_show(
    guidelines: Annotated[
        bool, typer.Option("--guidelines", help="Show the text of the usage guidelines.")
    ] = False,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the org's access mode, the guidelines it accepted, and where its application stands."""

    async def work(service: Service) -> None:
        told = await service.get(path_of("access"))
        say_lines(told, _guideline_lines if guidelines else _access_lines, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@access.command("accept")
def access_accept(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version that was read.")],
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Accept the usage guidelines, which `access show --guidelines` shows."""

    async def work(service: Service) -> None:
        told = await service.post(path_of("access", "guidelines"), {"version": version}, safe=True)
        say_lines(told, lambda told: iter([_accepted(told)]), as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@access.command("apply")
def access_apply(
    guidelines: Annotated[
        str,
        typer.Option(
            "--accept", metavar="VERSION", help="The usage guidelines that were read: accept them."
        ),
    ],
    commit: Annotated[
        bool, typer.Option("--commit", help="Commit the org to responsible use; needed.")
    ] = False,
    use_case: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    use_case_file: Annotated[Path | None, typer.Option(help="File with that; -: stdin.")] = None,
    risks: Annotated[
        str | None, typer.Option(help="What may go wrong, and what is done about it.")
    ] = None,
    risks_file: Annotated[Path | None, typer.Option(help="File with that; -: stdin.")] = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Apply for full access. An operator decides."""
    if not commit:
        raise typer.BadParameter(
            "an application commits the org to responsible use: read `millpond access show "
            "--guidelines` and write --commit",
            param_hint="--commit",
        )
    if str(use_case_file) == str(risks_file) == "-":
        raise typer.BadParameter("standard input can be read once", param_hint="--risks-file")
    body = {
        "use_case": _prose("--use-case", use_case, use_case_file),
        "risks": _prose("--risks", risks, risks_file),
        "commitment": True,
        "guidelines": guidelines,
    }
    _application(Place(url, api_key_file, data_dir), ("application",), body, as_json=as_json)


@access.command("answer")
def access_answer(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The answer; - is standard input.")],
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Answer what the operator asked about the application."""
    body = {"text": prose("TEXT", text)}
    place = Place(url, api_key_file, data_dir)
    _application(place, ("application", "answer"), body, as_json=as_json)


@access.command("withdraw")
def access_withdraw(
    why: Why = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw the application."""
    place = Place(url, api_key_file, data_dir)
    _application(
        place, ("application", "withdraw"), {} if why is None else {"why": why}, as_json=as_json
    )


def _application(place: Place, parts: tuple[str, ...], body: Told, *, as_json: bool) -> None:
    async def work(service: Service) -> None:
        told = await service.post(path_of("access", *parts), body)
        say_lines(told, application_lines, as_json=as_json)

    talk(place, work)


# ------------------------------------------------------------ texts that people write


def _prose(option: str, text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise typer.BadParameter(f"write {option} TEXT or {option}-file FILE", param_hint=option)
    return prose(option, text) if file is None else _read(f"{option}-file", str(file))


def prose(option: str, text: str | None) -> str:
    """A text for people to read, or standard input."""
    return _read(option, "-") if text == "-" else text or ""


def _read(option: str, name: str) -> str:
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(_TEXT_BYTES_MOST + 1)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(_TEXT_BYTES_MOST + 1)
        text = raw.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise typer.BadParameter(f"{name} cannot be read: {why}", param_hint=option) from None
    if not text or len(raw) > _TEXT_BYTES_MOST:
        what = "is empty" if not text else "is too long to be read by anybody"
        raise typer.BadParameter(f"{name} {what}", param_hint=option)
    return text


# ------------------------------------------------------------ how it is told


def _guideline_lines(told: Told) -> Iterator[str]:
    yield f"usage guidelines {told['guidelines']['current']}"
    for number, line in enumerate(told["text"], start=1):
        yield f"  {number}. {line}"
    yield _accepted(told["guidelines"])


def _access_lines(told: Told) -> Iterator[str]:
    suspended = ", suspended" if told["suspended"] else ""
    yield f"access: {told['mode']}{suspended}"
    yield _accepted(told["guidelines"])
    if told["application"] is None:
        yield "it has not applied for full access: millpond access apply --help"
    else:
        yield from application_lines(told["application"])
    for one in told["history"]:
        yield f"before: application {one['number']}, {one['stage']}"


def _accepted(told: Told) -> str:
    if not told["accepted"]:
        return f"guidelines {told['current']}: not accepted"
    text = f"guidelines {told['accepted']}: accepted by {told['accepted_by']}"
    text += f" at {told['accepted_at']}"
    if told["accepted"] != told["current"]:
        text += f"; the present ones are {told['current']}"
    return text


def application_lines(told: Told) -> Iterator[str]:
    """An application, as the org and the reviewers see it."""
    yield (
        f"application {told['number']} of {told['org']}: {told['stage']}, "
        f"by {told['by']} at {moment(told['at'])}, guidelines {told['guidelines']}"
    )
    yield from _indented("use case", told["use_case"])
    yield from _indented("risks", told["risks"])
    for word in told["talk"]:
        yield from _indented(f"{word['how']} by {word['by']}", word["text"])
    if told["decision"]:
        decision = told["decision"]
        yield from _indented(f"{told['stage']} by {decision['by']}", decision["why"])


def _indented(what: str, text: str) -> Iterator[str]:
    first, *rest = text.splitlines() or [""]
    yield f"  {what}: {first}"
    for line in rest:
        yield f"    {line}"

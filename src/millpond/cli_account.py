"""Commands about one's own org at the service: usage, users, API keys, full access."""

import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from millpond.cli_api_jobs import MostRows
from millpond.cli_service import (
    AsJson,
    KeyFile,
    Place,
    Service,
    UpDir,
    Url,
    path_of,
    talk,
)
from millpond.cli_tell import Told, each, moment, note, say, say_json, say_lines, say_rows
from millpond.domain.job import Endpoint

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
users = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
access = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(users, name="users", help="Users of one's org at the service; most is for admins.")
app.add_typer(
    keys, name="keys", help="API keys of the service. (key: the orgs' keys at their provider.)"
)
app.add_typer(access, name="access", help="The usage guidelines, and the way to full access.")

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TEXT_BYTES_MOST = 64_000

Why = Annotated[str | None, typer.Option(help="Why, for the audit.")]
User = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]
ExpiresIn = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="How long it is good: 12h, 30d. [default: no end]"),
]


class UserRole(StrEnum):
    MEMBER = "member"
    ADMIN = "admin"


# ------------------------------------------------------------ usage


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


def quota_text(told: Told) -> str:
    spent = told["used"] + told["estimated"]
    if told["quota"] is None:
        return f"no quota; {spent:,} characters used"
    text = f"quota: {spent:,} of {told['quota']:,} characters used"
    if told["reserved"]:
        text += f", {told['reserved']:,} reserved for calls in flight"
    return text


# ------------------------------------------------------------ users


_USER_COLUMNS = ("id", "name", "role", "state", "made", "by")


def user_cells(user: Told) -> list[str]:
    state = "suspended" if user["suspended"] else "active"
    made = moment(user["created_at"])
    return [user["id"], user["name"], user["role"], state, made, user["by"]]


def _user_line(user: Told) -> Iterator[str]:
    state = ", suspended" if user["suspended"] else ""
    yield f"user {user['id']} ({user['name']}): {user['role']}{state}"


@users.command("list")
def users_list(
    most: MostRows = 1_000,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """List the users of the org, by their id."""

    async def work(service: Service) -> None:
        rows = service.rows(path_of("users"), most=most)
        await say_rows(rows, _USER_COLUMNS, user_cells, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@users.command("add")
def users_add(
    user: User,
    name: Annotated[str | None, typer.Option(help="For people. [default: USER]")] = None,
    role: Annotated[UserRole, typer.Option(help="What it may do.")] = UserRole.MEMBER,
    why: Why = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a user. It has no key yet: millpond keys make NAME --user USER."""
    body = {"id": user, "name": name or user, "role": role, **_why(why)}

    async def work(service: Service) -> None:
        say_lines(await service.post(path_of("users"), body), _user_line, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@users.command("role")
def users_role(
    user: User,
    role: Annotated[UserRole, typer.Argument(metavar="ROLE", help="member or admin.")],
    why: Why = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Change what a user may do."""
    _change(Place(url, api_key_file, data_dir), user, {"role": role, **_why(why)}, as_json=as_json)


@users.command("suspend")
def users_suspend(
    user: User,
    why: Why = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Let a user submit and change nothing until that is lifted."""
    _change(
        Place(url, api_key_file, data_dir), user, {"suspended": True, **_why(why)}, as_json=as_json
    )


@users.command("lift")
def users_lift(
    user: User,
    why: Why = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Lift a user's suspension."""
    _change(
        Place(url, api_key_file, data_dir), user, {"suspended": False, **_why(why)}, as_json=as_json
    )


def _change(place: Place, user: str, body: Told, *, as_json: bool) -> None:
    async def work(service: Service) -> None:
        told = await service.ask("PATCH", path_of("users", user), body=body, safe=True)
        say_lines(told, _user_line, as_json=as_json)

    talk(place, work)


@users.command("remove")
def users_remove(
    user: User,
    content: Annotated[
        bool, typer.Option("--content", help="What its jobs asked and were answered goes as well.")
    ] = False,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove a user, and its keys with it."""

    async def work(service: Service) -> None:
        erased, cursor = 0, None
        while True:
            query = {"content": "true" if content else None, "cursor": cursor}
            told = await service.ask("DELETE", path_of("users", user), query=query, hold_s=30)
            erased += (told or {}).get("erased", 0)
            cursor = (told or {}).get("next_cursor")
            if cursor is None:
                break
        if as_json:
            say_json({"id": user, "removed": True, "erased": erased})
        else:
            note(f"user {user} is removed" + (f"; {erased:,} jobs erased" if content else ""))

    talk(Place(url, api_key_file, data_dir), work)


def _why(why: str | None) -> Told:
    return {} if why is None else {"why": why}


# ------------------------------------------------------------ API keys


KEY_COLUMNS = ("id", "name", "user", "state", "made", "expires", "last used")


def key_cells(key: Told) -> list[str]:
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
        await say_rows(each(told["data"]), KEY_COLUMNS, key_cells, as_json=as_json)

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
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as list shows it.")],
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """An API key is good no more, within 5 s."""
    revoke(Place(url, api_key_file, data_dir), "keys", key, as_json=as_json)


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


# ------------------------------------------------------------ full access


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
    _application(place, ("application", "withdraw"), _why(why), as_json=as_json)


def _application(place: Place, parts: tuple[str, ...], body: Told, *, as_json: bool) -> None:
    async def work(service: Service) -> None:
        told = await service.post(path_of("access", *parts), body)
        say_lines(told, application_lines, as_json=as_json)

    talk(place, work)


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

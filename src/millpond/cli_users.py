"""Commands about the users of one's own org at the service."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer

from millpond.cli_api_jobs import MostRows
from millpond.cli_service import AsJson, KeyFile, Place, Service, UpDir, Url, path_of, talk
from millpond.cli_tell import Told, moment, note, say_json, say_lines, say_rows

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
users = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(users, name="users", help="Users of one's org at the service; most is for admins.")

Why = Annotated[str | None, typer.Option(help="Why, for the audit.")]
User = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]

_COLUMNS = ("id", "name", "role", "state", "made", "by")


class UserRole(StrEnum):
    MEMBER = "member"
    ADMIN = "admin"


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
        await say_rows(rows, _COLUMNS, _cells, as_json=as_json)

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
        say_lines(await service.post(path_of("users"), body), user_line, as_json=as_json)

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
        say_lines(told, user_line, as_json=as_json)

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


def _cells(user: Told) -> list[str]:
    state = "suspended" if user["suspended"] else "active"
    made = moment(user["created_at"])
    return [user["id"], user["name"], user["role"], state, made, user["by"]]


def user_line(user: Told) -> Iterator[str]:
    state = ", suspended" if user["suspended"] else ""
    yield f"user {user['id']} ({user['name']}): {user['role']}{state}"

"""Commands about millpond on this machine: its settings, whether all is well, shell completion."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from millpond import failpoints
from millpond.cli_doctor import Check, State, examine
from millpond.cli_service import VARIABLES, AsJson, KeyFile, Place, UpDir, Url
from millpond.cli_tell import each, note, plain, say_json, say_rows
from millpond.settings import PREFIX, Settings

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
config = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config, name="config", help="The settings, and where each is from.")

_MASK = "***"
_SECRET = {"MILLPOND_API_KEY", "MILLPOND_OPERATOR_KEY"}
_COMPLETE = "_MILLPOND_COMPLETE"


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as it is: `origin` is environment, default, or unknown for a name that is none;
    `wrong` says what is wrong with its value."""

    name: str
    value: str | None
    origin: str
    meaning: str
    wrong: str | None = None


# ------------------------------------------------------------ config


@config.command("show")
def config_show(
    changed: Annotated[
        bool, typer.Option("--changed", help="Only those that are not as by default.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show every setting: its value, where that is from, what it means; secrets are masked.

    Exits with 1 if a value cannot be used or a name is none.
    """
    import asyncio

    found = [one for one in read(os.environ) if not changed or one.origin != "default"]
    rows = [asdict(one) for one in found]
    columns = ("name", "value", "from", "meaning")
    asyncio.run(
        say_rows(
            each(rows),
            columns,
            lambda row: [row[key] for key in ("name", "value", "origin", "meaning")],
            as_json=as_json,
        )
    )
    wrong = [one for one in found if one.wrong]
    for one in wrong:
        note(f"millpond: {one.name}: {one.wrong}")
    raise typer.Exit(1 if wrong else 0)


def read(environment: Mapping[str, str]) -> Iterator[Setting]:
    """Every setting, then those of the service's callers, then names that are none."""
    ours = {name.upper(): text for name, text in environment.items()}
    faults = _faults()
    for field, about in Settings.model_fields.items():
        name = PREFIX + field.upper()
        meaning = about.description or ""
        if name in ours:
            value = _shown(ours[name], secret="Secret" in str(about.annotation))
            yield Setting(name, value, "environment", meaning, faults.get(field))
        else:
            yield Setting(name, _default(about.default), "default", meaning)
    for name, meaning in VARIABLES.items():
        if name in ours:
            value = _shown(ours[name], secret=name in _SECRET)
            yield Setting(name, value, "environment", meaning)
        else:
            yield Setting(name, None, "default", meaning)
    for name in unknown(environment):
        yield Setting(name, _MASK, "unknown", "", "no such setting: is it misspelt?")


def unknown(environment: Mapping[str, str]) -> list[str]:
    """Names that look like settings and are none."""
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    known |= failpoints.VARIABLES | set(VARIABLES)
    names = {name for name in environment if name.upper().startswith(PREFIX)}
    return sorted(name for name in names if name.upper() not in known)


def _faults() -> dict[str, str]:
    """What is wrong with values of this process's environment. Never tells the values."""
    from pydantic import ValidationError

    try:
        Settings()
    except ValidationError as error:
        return {str(one["loc"][0]): str(one["msg"]) for one in error.errors()}
    return {}


def _default(value: Any) -> str | None:
    if value is None or isinstance(value, bool | int | str):
        text = str(value).lower() if isinstance(value, bool) else value
        return None if text is None or text == "" else str(text)
    return None  # an empty secret


def _shown(text: str, *, secret: bool) -> str:
    """A value that may be seen: of an address all but its user and password."""
    if not text:
        return ""
    if secret:
        return _MASK
    try:
        has_secret = urlsplit(text).password is not None
    except ValueError:
        has_secret = "@" in text
    if has_secret:
        return re.sub(r"//.*@", f"//{_MASK}@", text)
    return re.sub(r"([?&][^=&]*(?:pass|key|secret)[^=&]*=)[^&]*", rf"\1{_MASK}", text)


# ------------------------------------------------------------ doctor


@app.command()
def doctor(
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Check whether millpond can work here: a line a check, with the way out.

    Looks at Python, the settings, the server (the embedded one, or the one that MILLPOND_REDIS_URL
    names), the master key, ports, the disk, and the service. Exits with 1 if a check fails.
    """
    import asyncio

    async def work() -> int:
        failed = 0
        async for check in examine(Place(url, api_key_file, data_dir), unknown(os.environ)):
            failed += check.state is State.FAIL
            _tell(check, as_json=as_json)
        return failed

    raise typer.Exit(1 if asyncio.run(work()) else 0)


def _tell(check: Check, *, as_json: bool) -> None:
    if as_json:
        say_json(asdict(check))
        return
    way_out = f": {check.way_out}" if check.way_out else ""
    typer.echo(plain(f"{check.state:<5} {check.name:<11} {check.told}{way_out}"))


# ------------------------------------------------------------ completion


@app.command()
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="Which shell.")],
) -> None:
    """Print a script that lets a shell complete commands and options.

    bash: source <(millpond completion bash), in ~/.bashrc; zsh: the same in ~/.zshrc; fish:
    millpond completion fish > ~/.config/fish/completions/millpond.fish
    """
    from typer._completion_shared import get_completion_script

    typer.echo(
        get_completion_script(prog_name="millpond", complete_var=_COMPLETE, shell=shell.value)
    )


def ready_to_complete() -> None:
    """If it is a shell's script that calls us, know what it asks. (Typer does that by itself only
    with options of its own, which would stand beside `completion`.)"""
    if _COMPLETE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()

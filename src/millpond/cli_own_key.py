"""Commands about the key that one's own org has at the provider: kept, taken away, never shown."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from millpond import cli_values as values
from millpond.cli_service import AsJson, KeyFile, Place, Service, UpDir, Url, path_of, talk
from millpond.cli_tell import Told, moment, note, say_json, say_lines

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

#: Longer than any key is at a provider.
_KEY_MOST = 500
#: Rows of the audit among which the last change of the key is looked for.
_ROWS_MOST = 1_000


@app.command("key")
def own_key(
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """For admins: show who last changed the org's key at the provider, and what waits for it.

    From the org's audit: the key's fingerprint, never its text.
    """

    async def work(service: Service) -> None:
        lanes = (await service.get(path_of("limits")))["endpoints"]
        paused = {name: lane["paused"] for name, lane in lanes.items() if lane["paused"]}
        told = {"change": await _last_change(service), "paused": paused}
        say_lines(told, _key_lines, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@app.command("set-key")
def own_set_key(
    rest: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File with it. [default: standard input, or asked for]")
    ] = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """For admins: keep the org's key at the provider, sealed; nobody can read it back.

    Takes 5 s if calls stand still for want of it, until every worker knows it; then they go on.
    """
    if rest:
        # Not even shown: whoever wrote the key here would find it in a log of what was run.
        raise typer.BadParameter(
            "the key is read from standard input or --key-file, not from the command line, where "
            "others see it: millpond own set-key < FILE",
            param_hint="KEY",
        )
    secret = _secret(key_file)

    async def work(service: Service) -> None:
        told = await service.ask("PUT", path_of("provider-key"), body={"key": secret}, safe=True)
        say_lines(told, _kept_lines, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@app.command("remove-key")
def own_remove_key(
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """For admins: take the org's key at the provider away. Calls stand still without one."""

    async def work(service: Service) -> None:
        await service.ask("DELETE", path_of("provider-key"))
        if as_json:
            say_json({"removed": True})
        else:
            note("the key is removed; calls stand still until another is set: own set-key")

    talk(Place(url, api_key_file, data_dir), work)


def _secret(file: Path | None) -> str:
    """The provider's key, wherever it is from. It stands in no message."""
    if file is None:
        secret = values.new_key()
    else:
        try:
            secret = file.read_text()[: 2 * _KEY_MOST].strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise typer.BadParameter(
                f"{file} cannot be read: {why}", param_hint="--key-file"
            ) from None
    if not re.fullmatch(rf"[!-~]{{1,{_KEY_MOST}}}", secret):
        raise typer.BadParameter(
            "it holds no key: up to 500 letters, digits and signs on one line; is it the right "
            "file?",
            param_hint="KEY",
        )
    if secret.startswith(("mpk_", "mpo_")):
        raise typer.BadParameter(
            "that is a key of a millpond, which no provider knows", param_hint="KEY"
        )
    return secret


async def _last_change(service: Service) -> Told | None:
    """The last change of the key that the audit tells of; None: of none. (The API tells nothing of
    a key that is kept.)"""
    async for row in service.rows(path_of("audit"), most=_ROWS_MOST):
        for one in row["changes"]:
            if one["what"] == "key" and one["field"] == "fingerprint":
                return {"at": row["at"], "by": row["by"], "fingerprint": one["to"] or None}
    return None


def _key_lines(told: Told) -> Iterator[str]:
    change = told["change"]
    if change is None:
        yield "the audit tells of no key: calls go with the service's own, if it has one"
    elif change["fingerprint"] is None:
        yield f"no key: removed by {change['by']} at {moment(change['at'])}"
    else:
        yield f"key {change['fingerprint']}, kept by {change['by']} at {moment(change['at'])}"
    for endpoint, why in told["paused"].items():
        yield f"  {endpoint} stands still: {why}"


def _kept_lines(told: Told) -> Iterator[str]:
    yield f"the org has the key {told['fingerprint']}"
    for lane in told["resumed"]:
        yield f"  {lane} goes on"

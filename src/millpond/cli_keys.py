"""The operators' commands about the orgs' keys at their provider: options, read and checked."""

from typing import Annotated

import typer

from millpond import cli_values as values
from millpond.cli_asked import HERE, AsJson, DataDir, OrgOption, asked
from millpond.cli_do import do

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
key = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(key, name="key", help="The orgs' keys at their provider, kept encrypted.")


@key.command("set")
def key_set(
    rest: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    org: OrgOption = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Keep an org's key, read from standard input or asked for.

    Takes a few seconds, until every worker knows it; then lanes that were paused for the key go on.
    """
    from millpond.operate import keys

    if rest:
        # Not even shown: whoever wrote the key here would find it in a log of what was run.
        raise typer.BadParameter(
            "the key is read from standard input, not from the command line, where others see "
            "it: millpond key set --org ORG < FILE",
            param_hint="KEY",
        )
    secret = values.new_key()
    raise typer.Exit(do(lambda it: keys.set_key(asked(it, data_dir, as_json), org, secret)))


@key.command("remove")
def key_remove(org: OrgOption = None, data_dir: DataDir = HERE, as_json: AsJson = False) -> None:
    """Take an org's key away: its calls stand still until another is set."""
    from millpond.operate import keys

    raise typer.Exit(do(lambda it: keys.remove_key(asked(it, data_dir, as_json), org)))


@key.command("list")
def key_list(data_dir: DataDir = HERE, as_json: AsJson = False) -> None:
    """List the orgs that have a key: its fingerprint, its master key, since when."""
    from millpond.operate import keys

    raise typer.Exit(do(lambda it: keys.list_keys(asked(it, data_dir, as_json))))


@key.command("rotate")
def key_rotate(data_dir: DataDir = HERE, as_json: AsJson = False) -> None:
    """Encrypt every key with the newest master key; exit 1 if one cannot be opened."""
    from millpond.operate import keys

    raise typer.Exit(do(lambda it: keys.rotate_keys(asked(it, data_dir, as_json))))

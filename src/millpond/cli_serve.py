"""Commands that serve: everything at once, or the producer alone."""

import os
from pathlib import Path
from typing import Annotated

import typer

from millpond import cli_values as values
from millpond.cli_do import do
from millpond.domain.limit import parse_limits
from millpond.providers.profile import PROFILES, ProviderName

app = typer.Typer()


@app.command()
def up(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the API; 0 takes a free one.")
    ] = 8080,
    operator_port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Of the operators' API, on this machine alone."),
    ] = 8081,
    host: Annotated[str, typer.Option(help="Where the API listens.")] = "127.0.0.1",
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path(
        ".millpond/up"
    ),
    provider: Annotated[
        ProviderName,
        typer.Option(help="simulator and local are started with it, unless --base-url."),
    ] = ProviderName.SIMULATOR,
    base_url: Annotated[str | None, typer.Option(help="The provider's address.")] = None,
    limits: Annotated[
        str | None,
        typer.Option(
            help="Of the org that an empty folder is given, in place of the provider's: "
            "ENDPOINT=AMOUNT/WINDOW,...;...",
        ),
    ] = None,
    quota: Annotated[
        str | None,
        typer.Option(help="And its characters for generate in all, or none."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    slots: Annotated[int, typer.Option(min=1, max=10_000, help="Calls in flight of each.")] = 200,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON on stdout once it can be used.")
    ] = False,
) -> None:
    """Run all of millpond on this machine: server, provider, scheduler, workers and HTTP API.

    An empty folder is given an org, a user and keys. Until Ctrl-C or SIGTERM.
    """
    from millpond.run.up import UpOptions, go_up
    from millpond.store.access import Terms

    profile = PROFILES[provider]
    named = values.checked("--limits", parse_limits, limits) if limits is not None else {}
    known = profile.limits["limited"] if profile.limits else {}
    variable = profile.key_variable
    key = os.environ.get(variable) if variable else None
    if variable and not key:
        typer.echo(f"millpond: set {variable} to the key of the provider", err=True)
        raise typer.Exit(2)
    options = UpOptions(
        data_dir=data_dir,
        host=host,
        port=port,
        operator_port=operator_port,
        provider=provider,
        base_url=values.address(base_url, None),
        key=key,
        terms=Terms("limited", values.quota(quota, profile.quota["limited"]), {**known, **named}),
        terms_named=limits is not None or quota is not None,
        workers=workers,
        slots=slots,
        as_json=as_json,
    )
    raise typer.Exit(do(lambda settings: go_up(options, settings)))


@app.command()
def producer(
    ready_file: Annotated[
        Path | None, typer.Option(help="Gets the addresses as JSON, in one step, once it serves.")
    ] = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Use a server that may forget.")
    ] = False,
) -> None:
    """Serve the HTTP API until told to stop.

    Reads MILLPOND_REDIS_URL, MILLPOND_MASTER_KEY or MILLPOND_MASTER_KEY_FILE, MILLPOND_LISTEN,
    MILLPOND_OPERATOR_LISTEN and MILLPOND_PROVIDER.
    """
    from millpond.producer.main import main as serve

    do(lambda settings: serve(settings, ready_file), fast=True, ephemeral=ephemeral)

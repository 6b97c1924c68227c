"""The operators' commands about models: their options, read and checked."""

import re
from typing import Annotated

import typer

from millpond import cli_values as values
from millpond.cli_asked import HERE, AsJson, DataDir, OrgOption, asked
from millpond.cli_do import do
from millpond.providers.profile import ProviderName

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
models = typer.Typer(rich_markup_mode=None)
app.add_typer(models, name="models")

ModelName = Annotated[
    str, typer.Argument(metavar="NAME", help="The model's whole name at the provider.")
]


@models.callback(invoke_without_command=True)
def models_list(
    context: typer.Context,
    provider: Annotated[ProviderName, typer.Option()] = ProviderName.SIMULATOR,
    mode: Annotated[
        values.Mode | None, typer.Option(help="Those that may be used in this access mode.")
    ] = None,
    own: Annotated[
        bool, typer.Option("--own", help="Also the fine-tuned models of --org.")
    ] = False,
    org: OrgOption = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """List models, what each serves and who may use it; register fine-tuned ones."""
    if context.invoked_subcommand is not None:
        return
    from millpond.operate import models

    raise typer.Exit(
        do(
            lambda it: models.list_models(
                asked(it, data_dir, as_json),
                provider,
                None if mode is None else mode.value,
                org,
                with_own=own or org is not None,
            )
        )
    )


@models.command("add")
def models_add(
    name: ModelName,
    base: Annotated[str, typer.Option(metavar="MODEL", help="What it was made of.")],
    org: OrgOption = None,
    provider: Annotated[
        ProviderName, typer.Option(help="Whose models --base is one of.")
    ] = ProviderName.COHERE,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Register a fine-tuned model to an org. It serves what its base serves, for that org alone."""
    from millpond.operate import models

    _must_name("NAME", name)
    _must_name("--base", base)
    raise typer.Exit(
        do(lambda it: models.add_model(asked(it, data_dir, as_json), org, name, base, provider))
    )


@models.command("remove")
def models_remove(
    name: ModelName, org: OrgOption = None, data_dir: DataDir = HERE, as_json: AsJson = False
) -> None:
    """A fine-tuned model is the org's no more."""
    from millpond.operate import models

    raise typer.Exit(do(lambda it: models.remove_model(asked(it, data_dir, as_json), org, name)))


def _must_name(option: str, text: str) -> None:
    if not re.fullmatch(r"[!-~]{1,200}", text):
        raise typer.BadParameter(
            f"{text!r} is no model's name: up to 200 letters, digits and signs, no spaces",
            param_hint=option,
        )

"""What operators' commands to the service have in common: options, and how they are read."""

from pathlib import Path
from typing import Annotated, Any

import typer

from millpond import cli_values as values
from millpond.cli_service import Place, Side
from millpond.cli_tell import Told
from millpond.domain.limit import parse_limits, write_limit_list

OrgId = Annotated[str, typer.Argument(metavar="ORG", help="The org's id.")]
Why = Annotated[str, typer.Option(help="Why, for the org's audit.")]
WhyIfTold = Annotated[str | None, typer.Option(help="Why, for the org's audit.")]
NewLimits = Annotated[
    str | None,
    typer.Option(
        "--limits",
        metavar="ENDPOINT=AMOUNT/WINDOW,...;...",
        help="In place of the provider's: 'generate=60/60s,50000/1d'.",
    ),
]
NewQuota = Annotated[
    str | None, typer.Option("--quota", metavar="N|none", help="Characters of generate, in all.")
]


def operators_place(url: str | None, key_file: Path | None, data_dir: Path | None) -> Place:
    return Place(url, key_file, data_dir, Side.OPERATOR)


def terms(limits: str | None, quota: str | None) -> Told:
    """What is named of limits and quota, as the API takes it."""
    told: Told = {}
    if limits is not None:
        read = values.checked("--limits", parse_limits, limits)
        told["limits"] = {str(endpoint): write_limit_list(of) for endpoint, of in read.items()}
    if quota is not None:
        told["quota"] = values.quota(quota, None)
    return told


def if_told(**fields: Any) -> Told:
    return {name: value for name, value in fields.items() if value is not None}

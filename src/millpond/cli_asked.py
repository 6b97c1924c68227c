"""The options that the operators' commands have in common."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millpond.settings import Settings

if TYPE_CHECKING:
    from millpond.operate.commands import Asked

HERE = Path(".millpond")

DataDir = Annotated[
    Path,
    typer.Option(help="Of a run that is alive; else MILLPOND_REDIS_URL names the server."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, an object a line.")]
#: Of commands that are about an org.
Org = Annotated[
    str | None,
    typer.Argument(
        metavar="ORG",
        help="The org, or the beginning of its name. May be left out if there is one only.",
    ),
]
#: Of commands that are about something of an org: a key, a model, a dead letter.
OrgOption = Annotated[
    str | None,
    typer.Option(
        "--org",
        metavar="ORG",
        help="The org, or the beginning of its name. May be left out if there is one only.",
    ),
]
Most = Annotated[int, typer.Option(min=1, max=100_000, help="So many rows, the newest.")]


def asked(settings: Settings, data_dir: Path, as_json: bool) -> "Asked":
    from millpond.operate.commands import Asked

    return Asked(data_dir, as_json, settings)

"""Commands that ask a server's data or, when told so, the service: explain, events and audit.

explain [ID]     a job, flow or lane, from the data            job_…       a job of the service
events [ORG]     the thresholds of the quota, from the data    --follow    the service's stream
audit [ORG]      who changed what, from the data               --org ORG, --operators, --own
"""

from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from millpond import cli_api_jobs, cli_operate
from millpond.cli_asked import HERE, DataDir, Most, Org
from millpond.cli_service import (
    AsJson,
    KeyFile,
    OperatorKeyFile,
    Place,
    Service,
    Side,
    Url,
    is_meant,
    path_of,
    talk,
)
from millpond.cli_tell import Told, moment, note, say_json, say_lines

app = typer.Typer()

#: How the id of a job of the service begins.
_OF_SERVICE = "job_"


@app.command()
def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="ID",
            help="A job, a flow or a lane; job_…: of the service, if one is named or runs here. "
            "[default: every lane of every org]",
        ),
    ] = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Say why something waits, what is before it, and when it will be answered.

    It is asked of a server's data; a job of the service, of the service.
    """
    if name is None or not name.startswith(_OF_SERVICE):
        _must_not("a job of the service (job_…)", {"--url": url, "--api-key-file": api_key_file})
        cli_operate.explain(name, data_dir, as_json)
        return
    place = Place(url, api_key_file)
    if url is not None or api_key_file is not None or (data_dir == HERE and is_meant(place)):
        up = None if data_dir == HERE else data_dir
        cli_api_jobs.jobs_explain(name, url, api_key_file, up, as_json)
    try:
        cli_operate.explain(name, data_dir, as_json)
    except SystemExit:
        note(
            f"a job of the service: millpond jobs explain {name}, with MILLPOND_URL and "
            "MILLPOND_API_KEY, or in the folder of a `millpond up`"
        )
        raise


@app.command()
def events(
    org: Org = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Of the service, as they come: jobs that end as well."),
    ] = False,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="With --follow: from after this event.")
    ] = None,
    most: Most = 100,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Show when an org's quota was used to 50, 80 and 100 %; or follow what happens.

    With --follow the service is asked, for the org that the key is of, until interrupted.
    """
    if not follow:
        _must_not("--follow", {"--after": after, "--url": url, "--api-key-file": api_key_file})
        cli_operate.events(org, most, data_dir, as_json)
        return
    if org is not None:
        raise typer.BadParameter("with --follow it is the key's", param_hint="ORG")

    async def work(service: Service) -> None:
        from millpond.client import AsyncClient

        async with AsyncClient(service.access.url, service.access.key) as client:
            async for event in client.events(after):
                told = {"event": event.kind, "id": event.id, "data": dict(event.data)}
                say_lines(told, _event_line, as_json=as_json)

    talk(Place(url, api_key_file, None if data_dir == HERE else data_dir), work)


def _event_line(told: Told) -> Iterator[str]:
    data = dict(told["data"])
    at = data.pop("at", None)
    rest = "\t".join(f"{name} {value}" for name, value in data.items())
    yield f"{moment(at)}\t{told['event']}\t{rest}".rstrip()


@app.command()
def audit(
    org: Org = None,
    of: Annotated[
        str | None,
        typer.Option("--org", metavar="ORG", help="Through the service, as an operator: this org."),
    ] = None,
    of_operators: Annotated[
        bool,
        typer.Option("--operators", help="The same: what belongs to no org."),
    ] = False,
    own: Annotated[
        bool, typer.Option("--own", help="Through the service, as an admin: one's own org.")
    ] = False,
    most: Most = 100,
    url: Annotated[
        str | None,
        typer.Option(help="The service, or with --org and --operators the operators' API."),
    ] = None,
    api_key_file: KeyFile = None,
    operator_key_file: OperatorKeyFile = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Show who has changed what: on a server's data, or through the service.

    ORG alone is an org in a server's data; --org, --operators or --own asks the service.
    """
    if (of is not None) + of_operators + own + (org is not None) > 1:
        raise typer.BadParameter("name one of ORG, --org, --operators, --own", param_hint="ORG")
    if of is None and not of_operators and not own:
        given = {
            "--url": url,
            "--api-key-file": api_key_file,
            "--operator-key-file": operator_key_file,
        }
        _must_not("--org, --operators or --own", given)
        cli_operate.audit(org, most, data_dir, as_json)
        return
    up = None if data_dir == HERE else data_dir
    if own:
        place = Place(url, api_key_file, up)
    else:
        place = Place(url, operator_key_file, up, Side.OPERATOR)
    path = path_of("audit") if of is None else path_of("orgs", of, "audit")

    async def work(service: Service) -> None:
        found = [row async for row in service.rows(path, most=most)]
        for row in reversed(found):  # the newest last, as of a server's data
            if as_json:
                say_json(row)
            else:
                say_lines(row, _audit_line, as_json=False)

    talk(place, work)


def _audit_line(row: Told) -> Iterator[str]:
    changes = "; ".join(
        f"{one['what']} {one['id']}: {one['field']} {one['from'] or '(none)'} -> "
        f"{one['to'] or '(none)'}"
        for one in row["changes"]
    )
    why = f"\t({row['why']})" if row["why"] else ""
    yield f"{moment(row['at'])}\t{row['by']}\tversion {row['version']}\t{changes}{why}"


def _must_not(without: str, given: Mapping[str, object]) -> None:
    for option, value in given.items():
        if value is not None:
            raise typer.BadParameter(f"goes with {without}", param_hint=option)

"""Commands about jobs of the service: those that were submitted over HTTP."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer

from millpond.cli_ask import Timeout, answer_lines, await_end, tell_end, waiting_text
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
from millpond.cli_tell import Told, moment, note, say_json, say_lines, say_rows
from millpond.domain.job import Endpoint, State

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
jobs = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    jobs, name="jobs", help="Jobs of the service. (job, dead: of a run, on a server's data.)"
)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id: job_…")]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs: job_…")]
MostRows = Annotated[int, typer.Option("--most", min=1, max=100_000, help="So many rows.")]

_COLUMNS = ("id", "state", "endpoint", "class", "user", "model", "submitted", "ended")


class JobClass(StrEnum):
    INTERACTIVE = "interactive"
    BULK = "bulk"


@jobs.command("list")
def jobs_list(
    state: Annotated[State | None, typer.Option(help="Those in this state.")] = None,
    endpoint: Annotated[Endpoint | None, typer.Option(help="Of this endpoint.")] = None,
    class_: Annotated[JobClass | None, typer.Option("--class", help="Of this class.")] = None,
    user: Annotated[str | None, typer.Option(help="Of this user.")] = None,
    search: Annotated[
        str | None, typer.Option(help="With this in their id, model or metadata.")
    ] = None,
    most: MostRows = 100,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """List the org's jobs, the latest first; all filters must fit."""
    query = {"state": state, "endpoint": endpoint, "class": class_, "user": user, "search": search}

    async def work(service: Service) -> None:
        rows = service.rows(path_of("jobs"), most=most, **query)
        await say_rows(rows, _COLUMNS, _row, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


def _row(job: Told) -> list[str | None]:
    at = (job["submitted_at"], job["ended_at"])
    return [
        *(job[name] for name in ("id", "state", "endpoint", "class", "user", "model")),
        *map(moment, at),
    ]


@jobs.command("show")
def jobs_show(
    job: JobId,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a job, with its answer once it has one."""

    async def work(service: Service) -> None:
        say_lines(await service.get(path_of("jobs", job)), _lines, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@jobs.command("cancel")
def jobs_cancel(
    job: JobIds,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Cancel jobs: those that wait at once, those that run at their worker's next heartbeat."""

    async def work(service: Service) -> None:
        for id in job:
            told = await service.post(path_of("jobs", id, "cancel"), safe=True)
            say_lines(told, _state_line, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@jobs.command("retry")
def jobs_retry(
    job: JobId,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask again what a job asked that has no answer, as a new job, whose id is printed."""

    async def work(service: Service) -> None:
        told = await service.post(path_of("jobs", job, "retry"))
        say_lines(told, lambda told: iter([told["id"]]), as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@jobs.command("delete")
def jobs_delete(
    job: JobIds,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Keep nothing of jobs, at once; those that have not ended are cancelled."""

    async def work(service: Service) -> None:
        for id in job:
            await service.ask("DELETE", path_of("jobs", id))
            if as_json:
                say_json({"id": id, "deleted": True})
            else:
                note(f"nothing is kept of job {id}")

    talk(Place(url, api_key_file, data_dir), work)


@jobs.command("explain")
def jobs_explain(
    job: JobId,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Say why a job waits, what is before it, and when it will be answered."""
    from millpond.operate.people import standing_lines

    async def work(service: Service) -> None:
        told = await service.get(path_of("jobs", job, "explain"))
        say_lines(told, standing_lines, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


@jobs.command("wait")
def jobs_wait(
    job: JobId,
    timeout: Timeout = 600.0,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a job has ended and print its answer. Exit codes as of generate."""

    async def work(service: Service) -> int:
        ended = await await_end(service, job, timeout)
        return tell_end(ended, job, timeout, as_json=as_json)

    talk(Place(url, api_key_file, data_dir), work)


def _state_line(job: Told) -> Iterator[str]:
    yield f"{job['id']}\t{'being cancelled' if job.get('cancelling') else job['state']}"


def _lines(job: Told) -> Iterator[str]:
    yield f"job {job['id']}: {waiting_text(job)}"
    yield f"  {job['endpoint']} by {job['model']}, {job['class']}, user {job['user']}"
    ended = f", ended {job['ended_at']}" if job["ended_at"] else ""
    yield f"  submitted {job['submitted_at']}{ended}, {job['attempts']} attempts"
    if job["again_of"]:
        yield f"  asks again what {job['again_of']} asked"
    if job["deadline"]:
        yield f"  expires {job['deadline']}"
    for name, value in job["metadata"].items():
        yield f"  {name}: {value}"
    if job["error"]:
        yield f"  {job['error']['message']} [{job['error']['code']}]"
    if job["result"]:
        yield ""
        yield from answer_lines(job)

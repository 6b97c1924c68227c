"""The operators' commands about single jobs: their options, read and checked."""

from typing import Annotated

import typer

from millpond.cli_asked import HERE, AsJson, DataDir, Most, OrgOption, asked
from millpond.cli_do import do

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
job = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
dead = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(job, name="job", help="Single jobs: of a run, RUN.LINE.")
app.add_typer(dead, name="dead", help="Dead letters: jobs that saw too many workers die.")


@job.command("cancel")
def job_cancel(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs.")],
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Cancel jobs: those that wait at once, those that run at their worker's next heartbeat."""
    from millpond.operate import jobs as operate

    raise typer.Exit(do(lambda it: operate.cancel(asked(it, data_dir, as_json), jobs)))


@dead.command("list")
def dead_list(
    org: OrgOption = None, most: Most = 100, data_dir: DataDir = HERE, as_json: AsJson = False
) -> None:
    """Show an org's dead letters, the latest first, with their last errors."""
    from millpond.operate import jobs as operate

    raise typer.Exit(do(lambda it: operate.list_dead(asked(it, data_dir, as_json), org, most=most)))


@dead.command("replay")
def dead_replay(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job that died.")],
    org: OrgOption = None,
    new: Annotated[
        str | None, typer.Option(metavar="ID", help="Of the new job. [default: made up]")
    ] = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Ask once more what a dead job asked, as a new job."""
    from millpond.operate import jobs as operate

    raise typer.Exit(do(lambda it: operate.replay(asked(it, data_dir, as_json), org, job, new)))

"""The command line. Data goes to stdout, everything else to stderr.

Exit codes: 0 all answered, 3 ended with error rows, 2 usage, 69 no server, 75 quota spent,
77 key refused, 130 interrupted, 141 nobody reads what is printed, 1 anything else.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from millpond import __version__
from millpond import cli_values as values
from millpond.cli_access import app as access
from millpond.cli_api_jobs import app as api_jobs
from millpond.cli_api_keys import app as api_keys
from millpond.cli_ask import app as ask
from millpond.cli_bootstrap import app as bootstrap
from millpond.cli_both import app as both
from millpond.cli_config import app as config
from millpond.cli_config import ready_to_complete
from millpond.cli_desk import app as desk
from millpond.cli_do import Whole, do
from millpond.cli_jobs import app as jobs
from millpond.cli_keys import app as keys
from millpond.cli_models import app as models
from millpond.cli_operate import app as operate
from millpond.cli_orgs import app as orgs
from millpond.cli_own import app as own
from millpond.cli_serve import app as servers
from millpond.cli_tell import say_json
from millpond.cli_users import app as users
from millpond.domain.job import Endpoint
from millpond.domain.limit import parse_limits
from millpond.local.commands import app as local_model
from millpond.providers.profile import PROFILES, ProviderName
from millpond.run.options import Options
from millpond.simulator.commands import app as simulator

app = typer.Typer(
    cls=Whole,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(simulator, name="simulator")
app.add_typer(local_model, name="local-model")
for operators in (operate, keys, models, jobs):
    app.add_typer(operators)
app.add_typer(servers)
app.add_typer(bootstrap)
for of_service in (ask, api_jobs, own, users, api_keys, access, orgs, desk, both, config):
    app.add_typer(of_service)


class Format(StrEnum):
    AUTO = "auto"
    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"
    OPENAI = "openai"


Ephemeral = Annotated[
    bool,
    typer.Option(
        "--ephemeral",
        help="Use the server that MILLPOND_REDIS_URL names even if it may forget: without "
        "persistence, or with eviction.",
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"millpond {__version__}")
        raise typer.Exit


@app.callback()
def millpond(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Feeds language-model calls to a provider exactly as fast as its limits allow."""


@app.command()
def run(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Records: JSON Lines, CSV, a prompt a line, or OpenAI batch lines; also .gz and "
            ".zst; - is standard input.",
        ),
    ],
    format: Annotated[Format, typer.Option(help="What FILE is.")] = Format.AUTO,
    template: Annotated[
        str | None,
        typer.Option(help="The prompt from a record's fields: 'Solve: {question}'."),
    ] = None,
    endpoint: Annotated[Endpoint, typer.Option(help="What to ask for.")] = Endpoint.GENERATE,
    model: Annotated[
        str | None, typer.Option(help="The model. [default: the provider's profile]")
    ] = None,
    model_unchecked: Annotated[
        bool,
        typer.Option("--model-unchecked", help="Send it, whatever `millpond models` says of it."),
    ] = False,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=JSON", help="A parameter of every request; repeatable."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, max=100_000, help="Longest answer, in tokens.")
    ] = 256,
    examples: Annotated[
        Path | None, typer.Option(help="For classify: texts with their labels, CSV or JSON Lines.")
    ] = None,
    provider: Annotated[
        ProviderName,
        typer.Option(
            help="simulator and local are started for the run, unless --base-url; openai is any "
            "server that speaks its API."
        ),
    ] = ProviderName.SIMULATOR,
    base_url: Annotated[str | None, typer.Option(help="The provider's address.")] = None,
    url: Annotated[
        str | None,
        typer.Option(help="A millpond service: it asks, inside its own limits and quota."),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the key. [default: CO_API_KEY or OPENAI_API_KEY; with --url "
            "MILLPOND_API_KEY]"
        ),
    ] = None,
    mode: Annotated[
        values.Mode,
        typer.Option(help="Access mode: limited has 500,000 characters on generate, in all."),
    ] = values.Mode.LIMITED,
    limits: Annotated[
        str | None,
        typer.Option(
            help="ENDPOINT=AMOUNT/WINDOW,...;... in place of the mode's: "
            "'generate=60/60s,50000/1d;embed=500/60s'."
        ),
    ] = None,
    quota: Annotated[
        str | None,
        typer.Option(help="Characters for generate in all, or none. [default: the mode's]"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    concurrency: Annotated[
        int, typer.Option(min=1, max=10_000, help="Calls in flight, over all workers.")
    ] = 200,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Longest wait for one answer, in seconds.")
    ] = 120.0,
    attempts: Annotated[
        int, typer.Option(min=1, max=100, help="Failures after which a line is given up.")
    ] = 5,
    interactive: Annotated[
        bool,
        typer.Option("--interactive", help="Somebody waits: go before bulk, 16 to 1."),
    ] = False,
    user: Annotated[str, typer.Option(help="Whose work it is: users take turns.")] = "",
    weight: Annotated[
        float, typer.Option(min=0.001, max=1000, help="Share beside other runs of the user.")
    ] = 1.0,
    service_time: Annotated[
        bool,
        typer.Option(
            "--service-time",
            help="Believe the provider's header on how long it worked: closer to the limit.",
        ),
    ] = False,
    reserve: Annotated[
        values.Reserve,
        typer.Option(
            help="Of the quota: all that an answer may use, or what 99 of 100 answers have come to."
        ),
    ] = values.Reserve.STRICT,
    for_interactive: Annotated[
        str | None,
        typer.Option(
            help="ENDPOINT=AMOUNT/WINDOW,...: so much of a window bulk leaves to interactive jobs."
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Only so many lines, chosen by chance.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Send nothing if any line is bad.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would come to, and send nothing.")
    ] = False,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="With --dry-run: what else it would come to under mode=full, quota=none, "
            "limits=generate=120/60s or concurrency=50; repeatable.",
        ),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(help="Where the run keeps what it needs to go on.")
    ] = Path(".millpond"),
    out: Annotated[Path | None, typer.Option(help="Answers. [default: FILE.answers.jsonl]")] = None,
    errors: Annotated[
        Path | None, typer.Option(help="Lines without one. [default: FILE.errors.jsonl]")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="A row for each call: its outcome and characters.")
    ] = None,
    ephemeral: Ephemeral = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The summary as a JSON object on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option(help="Say nothing but errors.")] = False,
) -> None:
    """Ask a provider every line of a file, inside its limits.

    Started again with the same options, it goes on where it was, also after a crash.
    """
    profile = PROFILES[provider]
    name = "stdin" if str(file) == "-" else file.name
    place = Path() if str(file) == "-" else file.parent
    named = values.checked("--limits", parse_limits, limits) if limits is not None else {}
    options = Options(
        file=None if str(file) == "-" else file,
        format=format.value,
        template=template,
        endpoint=endpoint,
        model=model,
        params=values.params(param or []),
        max_tokens=max_tokens,
        examples=values.examples(endpoint, examples),
        provider=provider,
        base_url=values.address(base_url, profile.base_url),
        key="" if url else values.key(provider, api_key_file, own=base_url is None),
        mode=mode.value,
        limits=named,
        quota=values.quota(quota, profile.quota[mode.value]),
        workers=min(workers, concurrency),
        concurrency=concurrency,
        timeout_ms=round(timeout * 1_000),
        attempts=attempts,
        interactive=interactive,
        user=values.user(user),
        weight=weight,
        service_time=service_time,
        reserve=reserve.value,
        for_interactive=values.for_interactive(
            for_interactive, named or (profile.limits[mode.value] if profile.limits else {})
        ),
        sample=sample,
        strict=strict,
        dry_run=dry_run,
        data_dir=data_dir,
        out=out or place / f"{name}.answers.jsonl",
        errors=errors or place / f"{name}.errors.jsonl",
        ledger=ledger,
        as_json=as_json,
        quiet=quiet,
        what_if=values.what_if(what_if or [], provider),
        model_unchecked=model_unchecked,
    )
    if what_if and not dry_run:
        raise typer.BadParameter("goes with --dry-run", param_hint="--what-if")
    values.must_differ(options)
    if url is not None:
        from millpond.cli_run_service import go

        go(context, options, url, api_key_file)
    from millpond.run.command import execute

    raise typer.Exit(do(lambda settings: execute(options, settings), ephemeral=ephemeral))


@app.command()
def limits(
    provider: Annotated[ProviderName, typer.Option()] = ProviderName.SIMULATOR,
    mode: Annotated[values.Mode, typer.Option()] = values.Mode.LIMITED,
    base_url: Annotated[str | None, typer.Option(help="The provider's address.")] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="As for run.")] = None,
    data_dir: Annotated[Path, typer.Option(help="As for run.")] = Path(".millpond"),
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show which limits a run would keep to, and where each is from."""
    from millpond.run.limits import find_limits

    profile = PROFILES[provider]
    url = values.address(base_url, profile.base_url)
    key = values.key(provider, api_key_file, own=base_url is None)
    found = find_limits(provider, mode.value, url, key, data_dir)
    if as_json:
        say_json(found.as_json())
        return
    for line in found.lines():
        typer.echo(line)


@app.command()
def demo(
    local: Annotated[
        bool, typer.Option("--local", help="Ask a small model on this machine instead.")
    ] = False,
) -> None:
    """Run twenty shipped prompts through the simulator and show the answers."""
    provider = ProviderName.LOCAL if local else ProviderName.SIMULATOR
    from millpond.run.demo import demonstrate

    def options_for(prompts: Path) -> Options:
        return Options(
            file=prompts,
            format="text",
            template=None,
            endpoint=Endpoint.GENERATE,
            model=None,
            params={},
            max_tokens=60,
            examples=(),
            provider=provider,
            base_url=None,
            key="demo",
            mode="limited",
            limits={},
            quota=PROFILES[provider].quota["limited"],
            workers=1,
            concurrency=20,
            timeout_ms=60_000,
            attempts=5,
            interactive=False,
            user="",
            weight=1.0,
            service_time=False,
            reserve="strict",
            for_interactive={},
            sample=None,
            strict=False,
            dry_run=False,
            data_dir=prompts.parent / "data",
            out=prompts.with_suffix(".answers.jsonl"),
            errors=prompts.with_suffix(".errors.jsonl"),
            ledger=None,
            as_json=False,
            quiet=False,
        )

    raise typer.Exit(do(lambda settings: demonstrate(options_for, settings)))


@app.command()
def worker(
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            envvar="MILLPOND_PROCESSES",
            help="So many, each with MILLPOND_SLOTS calls; one that dies is started again.",
        ),
    ] = 1,
    ephemeral: Ephemeral = False,
) -> None:
    """Claim released calls, make them and settle them, until told to stop.

    Reads MILLPOND_REDIS_URL, MILLPOND_BASE_URL, MILLPOND_PROVIDER_KEY (or MILLPOND_MASTER_KEY,
    which opens the orgs' own keys), MILLPOND_SLOTS and MILLPOND_QUEUE_URL. At SIGTERM calls may
    finish for MILLPOND_GRACE_MS; a second one cuts them.
    """
    from millpond.worker.supervisor import keep
    from millpond.worker.supervisor import main as supervise

    if processes > 1:
        raise typer.Exit(do(lambda settings: keep(settings, processes), ephemeral=ephemeral))
    do(supervise, fast=True, ephemeral=ephemeral)


@app.command()
def scheduler(ephemeral: Ephemeral = False) -> None:
    """Let calls go as limits and quota allow, until told to stop. Reads MILLPOND_REDIS_URL."""
    from millpond.scheduler.loop import main as schedule

    do(schedule, fast=True, ephemeral=ephemeral)


def main() -> None:
    """The program `millpond`."""
    ready_to_complete()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)

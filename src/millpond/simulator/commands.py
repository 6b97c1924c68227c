"""The options of the simulator. This file starts fast: what is heavy is imported when needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from millpond.simulator import chances, values
from millpond.simulator import faults as faults_
from millpond.simulator import limits as limits_
from millpond.simulator.values import BadValue
from millpond.simulator.windows import Kind

Value = TypeVar("Value")

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DURATION = "SECONDS, uniform:FROM,TO or lognormal:MEDIAN,SIGMA"
LENGTH = "N, uniform:FROM,TO or lognormal:MEDIAN,SIGMA"


@app.callback()
def simulator(
    context: typer.Context,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 0,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Gets the base URL, in one step, once calls are taken."),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(help="Gets a line a call; what is in it already is gone on with."),
    ] = None,
    limits: Annotated[
        str,
        typer.Option(
            help="ENDPOINT=AMOUNT[UNIT]/LENGTH,...;... or none. UNIT: calls (if there is none), "
            "inputs, characters, tokens. AMOUNT@once: calls in flight."
        ),
    ] = "generate=60/60s,50000/1d;embed=500/60s,100000/1d;classify=500/60s,100000/1d",
    books: Annotated[
        Kind,
        typer.Option(
            help="How windows of calls are kept: exact (sliding), bucket (refilled evenly), fixed "
            "(the clock's), slices (60 a window), count-refused (exact, but they count), "
            "two-fronts (two, with half the amount each)."
        ),
    ] = Kind.EXACT,
    quota: Annotated[
        str, typer.Option(help="Characters each organisation has on generate, or none.")
    ] = "none",
    service: Annotated[
        str, typer.Option(help=f"How long a call is worked on: {DURATION}.")
    ] = "0.05",
    delay_in: Annotated[
        str, typer.Option(help=f"From the body's end to where limits are counted: {DURATION}.")
    ] = "0",
    delay_out: Annotated[
        str, typer.Option(help=f"From the end of the work to the reply: {DURATION}.")
    ] = "0",
    stream_time: Annotated[
        str, typer.Option(help=f"From the first word of a stream to the last: {DURATION}.")
    ] = "0",
    tokens: Annotated[
        str, typer.Option(help=f"How long an answer is if it may be so long: {LENGTH}.")
    ] = "lognormal:40,0.6",
    seed: Annotated[int, typer.Option(help="Of all that is drawn, and of the answers.")] = 1,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=PROBABILITY; repeatable. 429=0.02,retry_after=3 (seconds), 429_garbage, "
            "500, 503, error_200, hang, reset_before, reset_after (works, then resets the "
            "connection), garbage, wrong_types, short_body, drip, stream_cut."
        ),
    ] = None,
) -> None:
    """Run a provider to try things on, with limits, faults and books of its own.

    It answers Cohere's /v1/generate, /v1/embed and /v1/classify and OpenAI's /v1/chat/completions
    and /v1/embeddings until SIGTERM or SIGINT. Any key is taken and names an organisation, but for
    the key "invalid".
    """
    if context.invoked_subcommand is not None:
        return
    from millpond.simulator.server import Simulation, serve

    simulation = Simulation(
        port=port,
        ready_file=ready_file,
        journal=journal,
        limits=_read("--limits", limits_.limits, limits),
        quota=_read("--quota", values.quota, quota),
        books=books,
        seed=seed,
        tokens=_read("--tokens", chances.length, tokens),
        service=_read("--service", chances.duration, service),
        delay_in=_read("--delay-in", chances.duration, delay_in),
        delay_out=_read("--delay-out", chances.duration, delay_out),
        stream=_read("--stream-time", chances.duration, stream_time),
        faults=_read("--fault", faults_.faults, fault or []),
    )
    _must_have_folder("--ready-file", ready_file)
    _must_have_folder("--journal", journal)
    try:
        serve(simulation)
    except BadValue as bad:
        raise typer.BadParameter(str(bad), param_hint="--journal") from None
    except OSError as fault_:
        typer.echo(f"the simulator cannot run on port {port}: {fault_.strerror}", err=True)
        raise typer.Exit(1) from None


@app.command()
def report(
    journal: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    total: Annotated[
        int | None,
        typer.Option(min=1, help="How many calls the run was to make. [default: those admitted]"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object instead of a table.")
    ] = False,
    org: Annotated[str | None, typer.Option(help="If there are several: whose calls.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="If there are several: generate, embed or classify.")
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(
            help="The window to measure by, as it was written, such as 20000tokens/60s. "
            "[default: the slowest of calls that is shorter than the run]"
        ),
    ] = None,
) -> None:
    """What a journal says about a run, measured against what was possible.

    sustained: average share of the window in use while there was work enough. bound: the most
    that a policy that is never refused can sustain. drain: seconds until the last admission.
    The ideal figures are those of the best such policy, under the delays of the same calls.
    """
    import orjson

    from millpond.simulator.journal import read
    from millpond.simulator.report import named, pick
    from millpond.simulator.report import report as summed

    history = _read("JOURNAL", read, journal)
    meant = _read("--org/--endpoint", lambda calls: pick(calls, org, endpoint), history.calls)
    calls = [call for call in history.calls if (call.org, call.endpoint) == meant]
    written = history.starts[-1].limits.get(meant[1], []) if history.starts and meant else []
    limits = [limits_.limit(one) for one in written]
    by = None if limit is None else _read("--limit", lambda text: named(limits, text), limit)
    rows = summed(calls, limits, total=total, by=by)
    if as_json:
        typer.echo(orjson.dumps(rows).decode())
        return
    for name in rows.__slots__:
        typer.echo(f"{name:<16} {_shown(getattr(rows, name))}")


def _read(option: str, read: Callable[[Any], Value], given: Any) -> Value:
    """The value of an option; one that cannot be read ends the command with code 2."""
    try:
        return read(given)
    except BadValue as bad:
        raise typer.BadParameter(str(bad), param_hint=option) from None


def _must_have_folder(option: str, path: Path | None) -> None:
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise typer.BadParameter(
            f"{path} is not a file in a folder that exists; name a file", param_hint=option
        )


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:.4f}"
        case dict():
            return ", ".join(f"{name}: {count}" for name, count in value.items()) or "none"
        case _:
            return str(value)

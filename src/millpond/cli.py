"""The command line. Data goes to stdout, everything else to stderr.

Exit codes: 0 all answered, 3 ended with error rows, 2 usage, 69 no server, 75 quota spent,
77 key refused, 130 interrupted, 1 anything else.
"""

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import orjson
import typer

from millpond import __version__
from millpond.domain.job import Endpoint
from millpond.domain.limit import parse_limits
from millpond.errors import MillpondError, NoServer, Refused
from millpond.run.options import LIMITED_QUOTA, Options, mode_limits
from millpond.settings import Settings, read_settings
from millpond.simulator.commands import app as simulator

Result = TypeVar("Result")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(simulator, name="simulator")


class Format(StrEnum):
    AUTO = "auto"
    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"


class Provider(StrEnum):
    SIMULATOR = "simulator"
    COHERE = "cohere"


class Mode(StrEnum):
    LIMITED = "limited"
    FULL = "full"


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
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Records: JSON Lines, CSV, or a prompt a line."),
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
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=JSON", help="A parameter of every request; repeatable."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, max=100_000, help="Longest answer, in tokens.")
    ] = 256,
    provider: Annotated[
        Provider,
        typer.Option(help="The simulator is started with the run's limits, unless --base-url."),
    ] = Provider.SIMULATOR,
    base_url: Annotated[str | None, typer.Option(help="The provider's address.")] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the key. [default: the variable CO_API_KEY]"),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(help="Access mode: limited has 500,000 characters on generate, in all."),
    ] = Mode.LIMITED,
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
    as_json: Annotated[
        bool, typer.Option("--json", help="The summary as a JSON object on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option(help="Say nothing but errors.")] = False,
) -> None:
    """Ask a provider every line of a file, inside its limits.

    Started again with the same options, it goes on where it was, also after a crash.
    """
    from millpond.providers import cohere

    named = _checked("--limits", parse_limits, limits) if limits is not None else {}
    if provider is Provider.COHERE and base_url is None:
        base_url = cohere.BASE_URL
    options = Options(
        file=file,
        format=format.value,
        template=template,
        endpoint=endpoint,
        model=model or cohere.MODELS[endpoint],
        params=_params(param or []),
        max_tokens=max_tokens,
        provider=provider.value,
        base_url=None if base_url is None else _checked("--base-url", _read_url, base_url),
        key=_key(provider, api_key_file, own=base_url is None),
        mode=mode.value,
        limits=mode_limits(mode.value, named),
        quota=_quota(quota, mode),
        workers=min(workers, concurrency),
        concurrency=concurrency,
        timeout_ms=round(timeout * 1_000),
        attempts=attempts,
        data_dir=data_dir,
        out=out or file.with_name(file.name + ".answers.jsonl"),
        errors=errors or file.with_name(file.name + ".errors.jsonl"),
        ledger=ledger,
        as_json=as_json,
        quiet=quiet,
    )
    _must_differ(options)
    from millpond.run.command import execute

    raise typer.Exit(_do(lambda settings: execute(options, settings)))


@app.command()
def demo() -> None:
    """Run twenty shipped prompts through the simulator and show the answers."""
    from millpond.providers import cohere
    from millpond.run.demo import demonstrate

    def options_for(prompts: Path) -> Options:
        return Options(
            file=prompts,
            format="text",
            template=None,
            endpoint=Endpoint.GENERATE,
            model=cohere.MODELS[Endpoint.GENERATE],
            params={},
            max_tokens=60,
            provider="simulator",
            base_url=None,
            key="demo",
            mode="limited",
            limits=mode_limits("limited", {}),
            quota=LIMITED_QUOTA,
            workers=1,
            concurrency=20,
            timeout_ms=60_000,
            attempts=5,
            data_dir=prompts.parent / "data",
            out=prompts.with_suffix(".answers.jsonl"),
            errors=prompts.with_suffix(".errors.jsonl"),
            ledger=None,
            as_json=False,
            quiet=False,
        )

    raise typer.Exit(_do(lambda settings: demonstrate(options_for, settings)))


@app.command()
def worker() -> None:
    """Claim released calls, make them and settle them, until told to stop.

    Reads MILLPOND_REDIS_URL, MILLPOND_BASE_URL, MILLPOND_API_KEY and MILLPOND_SLOTS.
    """
    from millpond.worker.supervisor import main as supervise

    _do(supervise, fast=True)


@app.command()
def scheduler() -> None:
    """Let calls go as limits and quota allow, until told to stop. Reads MILLPOND_REDIS_URL."""
    from millpond.scheduler.loop import main as schedule

    _do(schedule, fast=True)


def main() -> None:
    """The program `millpond`."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


def _do(work: Callable[[Settings], Awaitable[Result]], *, fast: bool = False) -> Result:
    """Run the program's loop; what is raised on purpose becomes a message and an exit code."""
    from millpond import logs

    try:
        settings = read_settings()
        logs.configure(settings.log_level)
        with asyncio.Runner(loop_factory=_fast_loop() if fast else None) as runner:
            return runner.run(_awaited(work(settings)))
    except NoServer as error:
        _end(error, 69)
    except Refused as error:
        _end(error, 1 if error.code == "folder_in_use" else 2)
    except (MillpondError, OSError) as error:
        _end(error, 1)


async def _awaited(work: Awaitable[Result]) -> Result:
    return await work


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed. (It cannot start children the way `run` must.)"""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _end(error: Exception, code: int) -> NoReturn:
    typer.echo(f"millpond: {error}", err=True)
    sys.exit(code)


def _checked(option: str, read: Callable[[str], Result], text: str) -> Result:
    try:
        return read(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _read_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{text!r} is no address: write http://HOST:PORT or https://HOST")
    return text.rstrip("/")


def _params(pairs: list[str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(
                f"{pair!r}: write KEY=JSON, for example temperature=0.3", param_hint="--param"
            )
        try:
            params[name] = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise typer.BadParameter(
                f"{pair!r}: the value is no JSON; a text needs its quotes: "
                f"""--param '{name}="{text}"'""",
                param_hint="--param",
            ) from None
    return params


def _quota(text: str | None, mode: Mode) -> int | None:
    if text is None:
        return LIMITED_QUOTA if mode is Mode.LIMITED else None
    if text == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise typer.BadParameter(
            f"{text!r}: write a whole number of characters, or none", param_hint="--quota"
        )
    return int(text)


def _key(provider: Provider, path: Path | None, *, own: bool) -> str:
    """The provider's key. A simulator that is our own never sees a real one."""
    if provider is Provider.SIMULATOR and own and path is None:
        return "demo"
    if path is not None:
        try:
            key = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(
                f"{path} cannot be read: {error}", param_hint="--api-key-file"
            ) from None
    else:
        key = os.environ.get("CO_API_KEY", "").strip()
    if provider is Provider.SIMULATOR:
        return key or "demo"
    if not key:
        raise typer.BadParameter(
            "cohere needs a key: set CO_API_KEY, or name a file that holds it with --api-key-file",
            param_hint="--provider",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise typer.BadParameter(
            "the key holds characters that no key has; is it the right file?",
            param_hint="--api-key-file",
        )
    return key


def _must_differ(options: Options) -> None:
    """The input, and each file that is written, are files of their own."""
    named = {
        "FILE": options.file,
        "--out": options.out,
        "--errors": options.errors,
        "--ledger": options.ledger,
    }
    seen: dict[Path, str] = {}
    for option, path in named.items():
        if path is None:
            continue
        place = path.resolve()
        if place in seen:
            raise typer.BadParameter(
                f"{path} is {seen[place]} already; name another file", param_hint=option
            )
        seen[place] = option

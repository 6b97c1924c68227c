"""The operators' commands about an org, its lanes and flows: their options, read and checked."""

import re
from typing import Annotated

import typer

from millpond import cli_values as values
from millpond.cli_asked import HERE, AsJson, DataDir, Most, Org, asked
from millpond.cli_do import do
from millpond.domain.limit import Limit, parse_limit, parse_limits
from millpond.providers.profile import ProviderName

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
quota = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
org = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
lane = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
flow = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(quota, name="quota", help="An org's characters: what is used, and by what.")
app.add_typer(org, name="org", help="Change what holds for an org.")
app.add_typer(lane, name="lane", help="Change what holds for a lane: an account and an endpoint.")
app.add_typer(flow, name="flow", help="Change what holds for a flow: here, a run.")

Why = Annotated[str, typer.Option(help="For the ledger.")]


@app.command()
def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="A job, a flow or a lane. [default: every lane of every org]"
        ),
    ] = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Say why something waits, what is before it, and when it will be answered."""
    from millpond.operate import commands

    raise typer.Exit(do(lambda it: commands.explain(asked(it, data_dir, as_json), name)))


@app.command()
def events(
    org: Org = None, most: Most = 100, data_dir: DataDir = HERE, as_json: AsJson = False
) -> None:
    """Show when an org's quota was used to 50, 80 and 100 %."""
    from millpond.operate import commands

    raise typer.Exit(
        do(lambda it: commands.show_events(asked(it, data_dir, as_json), org, most=most))
    )


@app.command()
def audit(
    org: Org = None, most: Most = 100, data_dir: DataDir = HERE, as_json: AsJson = False
) -> None:
    """Show who has changed what for an org."""
    from millpond.operate import commands

    raise typer.Exit(
        do(lambda it: commands.show_audit(asked(it, data_dir, as_json), org, most=most))
    )


@quota.command("show")
def quota_show(org: Org = None, data_dir: DataDir = HERE, as_json: AsJson = False) -> None:
    """Show what an org has used of its quota, and what is left."""
    from millpond.operate import commands

    raise typer.Exit(do(lambda it: commands.show_quota(asked(it, data_dir, as_json), org)))


@quota.command("ledger")
def quota_ledger(
    org: Org = None,
    most: Most = 100,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Check every row against the one before it; exit 1 if one is wrong."
        ),
    ] = False,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Show the rows of an org's ledger, the newest last, or check them all."""
    from millpond.operate import commands

    if verify:
        raise typer.Exit(do(lambda it: commands.verify_ledger(asked(it, data_dir, as_json), org)))
    raise typer.Exit(
        do(lambda it: commands.show_ledger(asked(it, data_dir, as_json), org, most=most))
    )


@quota.command("unknown")
def quota_unknown(org: Org = None, data_dir: DataDir = HERE, as_json: AsJson = False) -> None:
    """List calls of unknown outcome, with the characters that are kept for each."""
    from millpond.operate import commands

    raise typer.Exit(do(lambda it: commands.show_unknown(asked(it, data_dir, as_json), org)))


@quota.command("settle")
def quota_settle(
    why: Why,
    org: Org = None,
    call: Annotated[
        str | None, typer.Option(metavar="ID", help="A call of unknown outcome.")
    ] = None,
    characters: Annotated[int | None, typer.Option(min=0, help="What that call has used.")] = None,
    used: Annotated[
        int | None,
        typer.Option(min=0, help="In place of both: what all calls have used, by the provider."),
    ] = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Put the books right: of one call of unknown outcome, or of all."""
    from millpond.operate import commands

    _must_tell("--why", why)
    if used is not None:
        if call is not None or characters is not None:
            raise typer.BadParameter("goes without --call and --characters", param_hint="--used")
        one = commands.Adjustment("total", used, why)
    elif call is None or characters is None:
        raise typer.BadParameter(
            "write --call ID --characters N, or --used N for all calls", param_hint="--call"
        )
    else:
        one = commands.Adjustment("call", characters, why, call)
    raise typer.Exit(do(lambda it: commands.adjust(asked(it, data_dir, as_json), org, one)))


@quota.command("enter")
def quota_enter(
    why: Why,
    characters: Annotated[
        int, typer.Option(help="Used in addition; less than 0 takes an entry back.")
    ],
    org: Org = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Enter usage that we do not know of: before us, or by somebody else."""
    from millpond.operate import commands

    _must_tell("--why", why)
    one = commands.Adjustment("add", characters, why)
    raise typer.Exit(do(lambda it: commands.adjust(asked(it, data_dir, as_json), org, one)))


@org.command("set")
def org_set(
    org: Org = None,
    quota: Annotated[
        str | None, typer.Option(metavar="N|none", help="Characters for generate, in all.")
    ] = None,
    suspend: Annotated[
        bool | None,
        typer.Option("--suspend/--resume", help="No call goes; those in flight end."),
    ] = None,
    mode: Annotated[
        values.Mode | None,
        typer.Option(help="The limits and the quota of --provider's profile in this mode."),
    ] = None,
    provider: Annotated[
        ProviderName | None, typer.Option(help="Whose profile --mode is of.")
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="USER=W", help="A user's share beside others; repeatable."),
    ] = None,
    reserve: Annotated[values.Reserve | None, typer.Option(help="As for run.")] = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Change an org. It holds from the next call on."""
    from millpond.operate import commands
    from millpond.operate.changes import OrgChanges

    if (mode is None) != (provider is None):
        raise typer.BadParameter(
            "write both: --mode full --provider cohere", param_hint="--mode / --provider"
        )
    amount = None if quota is None else values.quota(quota, None)
    wanted = OrgChanges(
        quota=None if quota is None else "none" if amount is None else amount,
        suspended=suspend,
        mode=None if mode is None or provider is None else (mode.value, provider),
        weights=_weights(weight or []),
        reserve=None if reserve is None else reserve.value,
    )
    raise typer.Exit(do(lambda it: commands.set_org(asked(it, data_dir, as_json), org, wanted)))


@lane.command("set")
def lane_set(
    name: Annotated[
        str,
        typer.Argument(metavar="LANE", help="ACCOUNT.ENDPOINT, or the beginning of one."),
    ],
    limits: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT/WINDOW,...", help="In place of all: 60/60s,50000/1d."),
    ] = None,
    for_interactive: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT/WINDOW,...|none", help="So much bulk leaves to interactive jobs."
        ),
    ] = None,
    pause: Annotated[
        str | None, typer.Option(metavar="WHY", help="No call goes, for this reason.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Calls go again.")] = False,
    paced: Annotated[
        bool | None, typer.Option("--paced/--not-paced", help="Bulk always goes evenly.")
    ] = None,
    service_time: Annotated[
        bool | None,
        typer.Option("--service-time/--no-service-time", help="As for run."),
    ] = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Change a lane. It holds from the next call on."""
    from millpond.operate import commands
    from millpond.operate.changes import LaneChanges

    if pause is not None:
        _must_tell("--pause", pause)
        if resume:
            raise typer.BadParameter("goes without --resume", param_hint="--pause")
    wanted = LaneChanges(
        limits=None if limits is None else _limits("--limits", limits),
        kept=None if for_interactive is None else _kept(for_interactive),
        paused="" if resume else pause,
        paced=paced,
        service_time=service_time,
    )
    raise typer.Exit(do(lambda it: commands.set_lane(asked(it, data_dir, as_json), name, wanted)))


@flow.command("set")
def flow_set(
    name: Annotated[str, typer.Argument(metavar="FLOW", help="The whole name, as explain shows.")],
    weight: Annotated[
        float | None,
        typer.Option(min=0.001, max=1000, help="Share beside other flows of the user."),
    ] = None,
    pause: Annotated[
        bool | None, typer.Option("--pause/--resume", help="It takes no turns.")
    ] = None,
    data_dir: DataDir = HERE,
    as_json: AsJson = False,
) -> None:
    """Change a flow. It holds from the next call on."""
    from millpond.operate import commands

    raise typer.Exit(
        do(
            lambda it: commands.set_flow(
                asked(it, data_dir, as_json), name, weight=weight, paused=pause
            )
        )
    )


def _must_tell(option: str, text: str) -> None:
    if not text.strip() or len(text) > 500 or not text.isprintable():
        raise typer.BadParameter("write why, in up to 500 letters on a line", param_hint=option)


def _weights(pairs: list[str]) -> dict[str, float]:
    weights = {}
    for pair in pairs:
        user, equals, text = pair.rpartition("=")
        if not equals or not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text):
            raise typer.BadParameter(
                f"{pair!r}: write USER=W, for example anna=2", param_hint="--weight"
            )
        if not 0.001 <= float(text) <= 1000:
            raise typer.BadParameter(f"{pair!r}: W is 0.001 to 1000", param_hint="--weight")
        weights[values.user(user, option="--weight")] = float(text)
    return weights


def _limits(option: str, text: str) -> tuple[Limit, ...]:
    """Limits of one lane, so without an endpoint."""
    if "=" in text:
        raise typer.BadParameter(
            "a lane has one endpoint: write 60/60s,50000/1d without it", param_hint=option
        )
    read = values.checked(option, parse_limits, f"generate={text}")
    return next(iter(read.values()))


def _kept(text: str) -> tuple[Limit, ...]:
    if text == "none":
        return ()
    return tuple(values.checked("--for-interactive", parse_limit, one) for one in text.split(","))

"""Commands about one's own org at the service: what it used."""

from typing import Annotated

import typer

from millpond.cli_service import AsJson, KeyFile, Place, Service, UpDir, Url, path_of, talk
from millpond.cli_tell import Told, each, note, say_json, say_rows
from millpond.domain.job import Endpoint

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
def usage(
    days: Annotated[int, typer.Option(min=1, max=366, help="Today and those before.")] = 30,
    user: Annotated[str | None, typer.Option(help="Of this user.")] = None,
    endpoint: Annotated[Endpoint | None, typer.Option(help="Of this endpoint.")] = None,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what jobs of the service used, by day, user, endpoint and model, and the quota."""

    async def work(service: Service) -> None:
        told = await service.get(path_of("usage"), days=days, user=user, endpoint=endpoint)
        if as_json:
            say_json(told)
            return
        await say_rows(
            each(told["data"]),
            ("day", "user", "endpoint", "model", ">jobs", ">characters"),
            lambda row: [
                *(row[name] for name in ("day", "user", "endpoint", "model")),
                *(row[name] for name in ("jobs", "characters")),
            ],
            as_json=False,
        )
        note(quota_text(told))

    talk(Place(url, api_key_file, data_dir), work)


def quota_text(told: Told) -> str:
    spent = told["used"] + told["estimated"]
    if told["quota"] is None:
        return f"no quota; {spent:,} characters used"
    text = f"quota: {spent:,} of {told['quota']:,} characters used"
    if told["reserved"]:
        text += f", {told['reserved']:,} reserved for calls in flight"
    return text

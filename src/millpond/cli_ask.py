"""Commands that ask the service one thing and print the answer: generate, embed, classify."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from millpond import cli_values as values
from millpond.cli_service import (
    LATER,
    AsJson,
    KeyFile,
    Place,
    Service,
    UpDir,
    Url,
    path_of,
    talk,
)
from millpond.cli_tell import Told, note, plain, say, say_json
from millpond.domain.job import Endpoint

if TYPE_CHECKING:
    from millpond.domain.request import Example

app = typer.Typer()

#: Longer than most answers take: who is answered sooner is not told that it waits.
_SOON_S = 1.0
_LOOK_S, _LOOK_TTY_S = 10.0, 2.0
_CANCEL_S = 3.0
_INPUT_BYTES_MOST = 4 * 2**20
_ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})

Text = Annotated[str, typer.Argument(metavar="TEXT", help="What to ask; - is standard input.")]
ModelOption = Annotated[
    str | None, typer.Option(help="The model. [default: the provider's usual one]")
]
Param = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=JSON", help="A parameter of the request; repeatable."),
]
Timeout = Annotated[
    float,
    typer.Option(min=0.1, max=86_400, help="Seconds to wait; the job goes on after that."),
]


@app.command()
def generate(
    text: Text,
    model: ModelOption = None,
    param: Param = None,
    timeout: Timeout = 600.0,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask the service a prompt and print the answer. While it waits, stderr says for what.

    Exit codes: 1 it failed, 69 no service, 75 it has not ended yet, 77 the key is refused, 130
    interrupted: then the job is cancelled.
    """
    body = {"endpoint": "generate", "prompt": _text(text), **_options(model, param)}
    _ask(Place(url, api_key_file, data_dir), body, timeout, as_json)


@app.command()
def embed(
    text: Text,
    model: ModelOption = None,
    param: Param = None,
    timeout: Timeout = 600.0,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask the service for a text's vector and print it, as JSON. Exit codes as of generate."""
    body = {"endpoint": "embed", "text": _text(text), **_options(model, param)}
    _ask(Place(url, api_key_file, data_dir), body, timeout, as_json)


@app.command()
def classify(
    text: Text,
    examples: Annotated[
        Path | None, typer.Option(help="Texts with their labels, CSV or JSON Lines.")
    ] = None,
    model: ModelOption = None,
    param: Param = None,
    timeout: Timeout = 600.0,
    url: Url = None,
    api_key_file: KeyFile = None,
    data_dir: UpDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask the service for a text's label and print it. Exit codes as of generate."""
    found = values.examples(Endpoint.CLASSIFY, examples)
    body = {
        "endpoint": "classify",
        "text": _text(text),
        "examples": [_example(one) for one in found],
        **_options(model, param),
    }
    _ask(Place(url, api_key_file, data_dir), body, timeout, as_json)


def _text(text: str) -> str:
    """TEXT, or what is on standard input, without the newline at its end."""
    if text == "-":
        try:
            raw = sys.stdin.buffer.read(_INPUT_BYTES_MOST + 1)
            text = raw.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise typer.BadParameter("standard input is no UTF-8 text", param_hint="TEXT") from None
        if len(raw) > _INPUT_BYTES_MOST:
            raise typer.BadParameter(
                f"standard input has more than {_INPUT_BYTES_MOST:,} bytes", param_hint="TEXT"
            )
    if not text:
        raise typer.BadParameter("there is nothing to ask", param_hint="TEXT")
    return text


def _options(model: str | None, param: list[str] | None) -> Told:
    read = values.params(param or [])
    return {**({"model": model} if model else {}), **({"params": read} if read else {})}


def _example(one: "Example") -> Told:
    return {"text": one.text, "label": one.label}


# ------------------------------------------------------------ asking and waiting


def _ask(place: Place, body: Told, timeout_s: float, as_json: bool) -> NoReturn:
    async def work(service: Service) -> int:
        import uuid

        told = await service.ask("POST", path_of("jobs"), body=body, key=str(uuid.uuid4()))
        job = await await_end(service, told["id"], timeout_s, cancels=True)
        return tell_end(job, told["id"], timeout_s, as_json=as_json)

    talk(place, work)


async def await_end(
    service: Service, id: str, timeout_s: float, *, cancels: bool = False
) -> Told | None:
    """The job once it has ended; None: it has not yet. `cancels`: if we are interrupted, nobody
    wants it any more."""
    import asyncio

    line = _Line()
    until = asyncio.get_running_loop().time() + timeout_s
    hold_s = _SOON_S
    try:
        while True:
            left_s = until - asyncio.get_running_loop().time()
            if left_s <= 0:
                return None
            job: Told = await look(service, id, min(hold_s, left_s))
            if job["state"] in _ENDED:
                return job
            line.tell(waiting_text(job))
            hold_s = _LOOK_TTY_S if line.tty else _LOOK_S
    except asyncio.CancelledError:
        line.clear()
        if cancels:
            await _cancel(service, id)
        else:
            note(f"millpond: it goes on: millpond jobs wait {id}")
        raise
    finally:
        line.clear()


async def look(service: Service, id: str, hold_s: float) -> Told:
    told: Told = await service.ask(
        "GET", path_of("jobs", id), query={"wait": f"{hold_s:.3f}"}, hold_s=hold_s
    )
    return told


async def _cancel(service: Service, id: str) -> None:
    import asyncio
    from contextlib import suppress

    from millpond.errors import MillpondError

    with suppress(MillpondError, TimeoutError):
        async with asyncio.timeout(_CANCEL_S):
            told = await service.post(path_of("jobs", id, "cancel"), safe=True)
            note(f"millpond: interrupted; job {id} is {_state(told)}")


def _state(job: Told) -> str:
    return "being cancelled" if job.get("cancelling") else str(job["state"])


def waiting_text(job: Told) -> str:
    from millpond.operate.people import waits_text
    from millpond.standing.moments import for_people

    text = f"{job['state']}"
    if job.get("reason"):
        empty = dict.fromkeys(("amount", "used", "unit", "since", "next_release"))
        text += f": waits for {waits_text({**empty, **job['reason']})}"
    answered = (job.get("estimate") or {}).get("answered")
    if answered:
        text += f"; answered about {for_people(answered)}"
    return text


class _Line:
    """What is waited for: on a terminal a line that is written over, else a line a change."""

    def __init__(self) -> None:
        self.tty = sys.stderr.isatty()
        self._last = ""
        self._shown = False

    def tell(self, text: str) -> None:
        if self.tty:
            import shutil

            width = shutil.get_terminal_size().columns
            sys.stderr.write(f"\r\x1b[2K{plain(text)[: width - 1]}")
            sys.stderr.flush()
            self._shown = True
            return
        what = text.partition(", next at")[0].partition("; answered")[0]
        if what != self._last:
            self._last = what
            note(text)

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown = False


def tell_end(job: Told | None, id: str, timeout_s: float, *, as_json: bool) -> int:
    """Print the answer; the exit code."""
    if job is None:
        note(
            f"millpond: job {id} has not ended in {timeout_s:g} s; it goes on: "
            f"millpond jobs wait {id}"
        )
        return LATER
    if as_json:
        say_json(job)
    if job["state"] != "succeeded":
        error = job.get("error") or {}
        why = f": {error['message']} [{error['code']}]" if error else ""
        note(f"millpond: job {id} {_ended(job['state'])}{why}")
        return 1
    if not as_json:
        for line in answer_lines(job):
            say(line)
    return 0


def _ended(state: str) -> str:
    return {"cancelled": "was cancelled", "expired": "expired"}.get(state, "failed")


def answer_lines(job: Told) -> list[str]:
    """An answer as text: of generate the text, of embed the vector, of classify the label."""
    result: Any = job.get("result") or {}
    if "text" in result:
        return list(result.get("texts") or [result["text"]])
    return [_part(one) for one in result.get("results", [result])]


def _part(result: Told) -> str:
    import orjson

    if "embedding" in result:
        return orjson.dumps(result["embedding"]).decode()
    return str(result.get("label", ""))

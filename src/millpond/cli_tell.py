"""What the service told, for people and for programs: tables, lines, JSON; to stdout, and what is
beside it to stderr. Texts of others never reach a terminal with what would steer it."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import typer

Told = dict[str, Any]
Cells = Callable[[Told], Sequence[Any]]

_WIDE = 10_000


def note(text: str) -> None:
    """To whoever sits there, beside the data."""
    typer.echo(plain(text), err=True)


def say(text: str) -> None:
    """A line of data, or several. A file or a pipe gets it as it is."""
    typer.echo(plain(text) if sys.stdout.isatty() else text)


def say_json(told: Any) -> None:
    import orjson

    typer.echo(orjson.dumps(told).decode())


def say_lines(told: Any, lines: Callable[[Any], Iterator[str]], *, as_json: bool) -> None:
    """One thing."""
    if as_json:
        say_json(told)
        return
    for line in lines(told):
        typer.echo(plain(line))


async def say_rows(
    rows: AsyncIterator[Told], columns: Sequence[str], cells: Cells, *, as_json: bool
) -> int:
    """A list, and how many it had: an object a line as they come, or a table of the same columns
    whatever is in it."""
    count, kept = 0, []
    async for row in rows:
        count += 1
        if as_json:
            say_json(row)
        else:
            kept.append([_cell(one) for one in cells(row)])
    if not as_json:
        for line in table(columns, kept):
            typer.echo(line)
    return count


async def each(rows: Sequence[Told]) -> AsyncIterator[Told]:
    """Rows that are all there, as say_rows takes them."""
    for row in rows:
        yield row


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """As wide as the terminal, where long cells are folded; in a file or a pipe a row is a line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    tty = sys.stdout.isatty()
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for column in columns:
        numeric = column.startswith(">")
        made.add_column(
            Text(column.removeprefix(">").upper()),
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=not tty,
            header_style="bold" if tty else "",
        )
    for row in rows:
        made.add_row(*(Text(plain(cell).replace("\n", " ")) for cell in row))
    console = Console(width=None if tty else _WIDE, highlight=False, soft_wrap=False)
    with console.capture() as captured:
        console.print(made)
    for line in captured.get().splitlines():
        yield line.rstrip()


def plain(text: str) -> str:
    """Without characters that would steer a terminal; lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)


def moment(text: str | None) -> str:
    """`2026-11-24T15:55:36Z`, or a dash."""
    return text or "-"


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)

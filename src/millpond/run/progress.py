"""Showing how a run goes: a bar on a terminal, a line every few seconds elsewhere, on stderr."""

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TextIO

from millpond.clock import duration

_LINE_EVERY_S = 5.0
_RATE_OVER_S = 60.0


def say(text: str, *, quiet: bool) -> None:
    """A line for people, unless they want none."""
    if not quiet:
        print(text, file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands. Characters count against the quota; `waits_for` is for people; calls None:
    they are somebody else's to count."""

    lines: int
    succeeded: int
    failed: int
    calls: int | None
    characters: int
    quota: int | None
    seconds_left: float | None
    waits_for: str | None

    @property
    def counted(self) -> int:
        """What the rate is of: calls, or lines where nobody tells of calls."""
        return self.succeeded + self.failed if self.calls is None else self.calls


class Progress(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, standing: Standing) -> None: ...


def progress(*, quiet: bool, stream: TextIO = sys.stderr) -> Progress:
    """What fits the place that stderr is."""
    if quiet:
        return Silent()
    return Bar() if stream.isatty() else Line(stream)


class Silent:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def show(self, standing: Standing) -> None:
        return


class Line(Silent):
    """A line every few seconds, for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next_s = 0.0
        self._rate = Rate()

    def show(self, standing: Standing) -> None:
        now_s = time.monotonic()
        rate = self._rate.per_minute(standing.counted, now_s)
        if now_s >= self._next_s:
            self._next_s = now_s + _LINE_EVERY_S
            done = standing.succeeded + standing.failed
            print(
                f"{done:,} of {standing.lines:,} done, {describe(standing, rate)}",
                file=self._stream,
                flush=True,
            )


class Bar(Silent):
    """A bar on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._rate = Rate()
        self._bar = RichProgress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(stderr=True),
            transient=False,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("run", total=None, text="starting")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, standing: Standing) -> None:
        rate = self._rate.per_minute(standing.counted, time.monotonic())
        self._bar.update(
            self._task,
            total=standing.lines,
            completed=standing.succeeded + standing.failed,
            text=describe(standing, rate),
        )


class Rate:
    """Calls, or lines, a minute: over the last minute or what there is of it."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def per_minute(self, counted: int, now_s: float) -> int:
        self._seen.append((now_s, counted))
        while len(self._seen) > 2 and self._seen[1][0] < now_s - _RATE_OVER_S:
            self._seen.pop(0)
        first_s, first = self._seen[0]
        passed_s = now_s - first_s
        return round((counted - first) / passed_s * 60) if passed_s >= 1 else 0


def describe(standing: Standing, rate: int) -> str:
    """One line for people; what is nothing is left out."""
    parts = []
    if standing.failed:
        parts.append(f"{standing.failed:,} failed")
    parts.append(f"{rate:,} {'lines' if standing.calls is None else 'calls'}/min")
    if standing.quota is not None:
        parts.append(f"{standing.characters:,} of {standing.quota:,} characters")
    if standing.seconds_left is not None:
        parts.append(f"about {duration(standing.seconds_left)} left")
    if standing.waits_for:
        parts.append(f"waits for {standing.waits_for}")
    return ", ".join(parts)

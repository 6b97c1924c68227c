"""What a run came to: its end, its exit code, and the numbers that it tells."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import orjson

from millpond.run.options import Options
from millpond.standing.explain import Reason, quota_stops
from millpond.store.view import View

#: A provider that nobody could connect to, or that has answered nothing, for so long ends the run.
UNREACHABLE_MOST_MS = 15 * 60_000


class End(StrEnum):
    """Why a run ended."""

    DONE = "done"
    QUOTA = "quota"
    KEY_REFUSED = "key_refused"
    UNREACHABLE = "unreachable"
    UNWELL = "provider_unwell"
    NO_SERVER = "no_server"
    GAVE_UP = "gave_up"
    INTERRUPTED = "interrupted"


_EXIT = {
    End.QUOTA: 75,
    End.KEY_REFUSED: 77,
    End.UNREACHABLE: 69,
    End.UNWELL: 69,
    End.NO_SERVER: 69,
    End.GAVE_UP: 1,
    End.INTERRUPTED: 130,
}


#: How the pauses begin that what the provider says brings about. (An operator's begin otherwise.)
_PAUSES = {"quota:": End.QUOTA, "key:": End.KEY_REFUSED}

#: What people are told of an end that needs more than its name.
WORDS = {
    End.UNWELL: "the provider has been unwell for 15 minutes: it answered no call",
    End.UNREACHABLE: "nobody could connect to the provider for 15 minutes",
}


def exit_code(end: End, *, failed: int) -> int:
    """0 all answered, 3 ended with error rows, else why it ended."""
    if end is End.DONE:
        return 3 if failed else 0
    return _EXIT[end]


def end_of(view: View, *, fed: bool) -> End | None:
    """Whether the run must end for what the server says; `fed`: the file can add nothing now."""
    lane = view.lane
    for pause, end in _PAUSES.items():
        if lane.paused is not None and lane.paused.startswith(pause):
            return end
    if view.org.suspended or lane.paused is not None:
        return None  # somebody's word began it, and somebody's word ends it
    if fed and quota_stops(view):
        return End.QUOTA
    if _too_long(view.now_ms, lane.unreachable_since_ms):
        return End.UNREACHABLE
    if _too_long(view.now_ms, lane.trouble_since_ms):
        return End.UNWELL
    return None


def _too_long(now_ms: int, since_ms: int | None) -> bool:
    return since_ms is not None and now_ms - since_ms > UNREACHABLE_MOST_MS


def tell_json(options: Options, told: dict[str, Any]) -> None:
    """The summary for programs, on stdout, if it is wanted."""
    if options.as_json:
        print(orjson.dumps(told).decode(), flush=True)


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of the whole run, its resumes included; `seconds` are of this start alone.

    lines = succeeded + failed + waiting. `calls` were sent, `refusals` are 429s. Estimated
    characters are kept for calls of unknown outcome, reserved ones for calls in flight.
    """

    lines: int
    succeeded: int
    failed: int
    waiting: int
    waiting_reason: Reason | None
    calls: int | None
    refusals: int | None
    used_characters: int | None
    estimated_characters: int | None
    reserved_characters: int | None
    seconds: float
    resume_command: str | None

    def as_json(self) -> dict[str, Any]:
        reason = None if self.waiting_reason is None else self.waiting_reason.as_json()
        return {**asdict(self), "waiting_reason": reason, "seconds": round(self.seconds, 3)}

    def for_people(self) -> str:
        text = f"{self.succeeded:,} answered, {self.failed:,} failed, {self.waiting:,} waiting"
        if self.waiting_reason is not None:
            text += f" (for {self.waiting_reason.for_people()})"
        if self.calls is not None:
            text += (
                f"\n{self.calls:,} calls, {self.refusals:,} refused by the provider, "
                f"{self.used_characters:,} characters used"
            )
        if self.estimated_characters:
            text += f", {self.estimated_characters:,} kept for calls of unknown outcome"
        return text + f", {self.seconds:.1f} s"


def summarize(
    view: View | None,
    reason: Reason | None,
    *,
    lines: int,
    succeeded: int,
    failed: int,
    seconds: float,
    resume_command: str,
) -> Summary:
    waiting = lines - succeeded - failed
    flow = None if view is None else view.flow
    return Summary(
        lines=lines,
        succeeded=succeeded,
        failed=failed,
        waiting=waiting,
        waiting_reason=reason if waiting else None,
        calls=None if flow is None else flow.calls,
        refusals=None if flow is None else flow.refusals,
        used_characters=None if flow is None else flow.used,
        estimated_characters=None if flow is None else flow.estimated,
        reserved_characters=None if flow is None else flow.reserved,
        seconds=seconds,
        resume_command=resume_command if waiting else None,
    )

"""Who is measured, at what, and what is wanted of us."""

from dataclasses import dataclass
from typing import Literal

#: Ours: the worker with its scheduler; the worker on calls that were let go before it began.
MILLPOND, RELEASED = "millpond", "millpond-released"
BARE, ARQ, STREAQ = "bare", "arq", "streaq"

#: Counted for every call, and never reached.
LIMITS = ("500000/60s", "1000000/1d")


@dataclass(frozen=True)
class Competitor:
    """One program of `programs/` in the environment of the same name; ours have none."""

    title: str
    program: str = ""
    loop: str = "uvloop"
    #: A job is taken off the queue when its call has been answered, not before.
    acknowledges: bool = False

    @property
    def requirements(self) -> str:
        return self.program.removeprefix("with_")


COMPETITORS = {
    MILLPOND: Competitor("millpond"),
    RELEASED: Competitor("millpond, released beforehand"),
    BARE: Competitor("aiohttp alone", "with_bare"),
    ARQ: Competitor("arq", "with_arq", acknowledges=True),
    "saq": Competitor("saq", "with_saq", acknowledges=True),
    "taskiq": Competitor("taskiq, streams", "with_taskiq", acknowledges=True),
    "dramatiq": Competitor("dramatiq, threads", "with_dramatiq", "threads", acknowledges=True),
    "celery": Competitor("celery, threads", "with_celery", "threads", acknowledges=True),
    STREAQ: Competitor("streaq", "with_streaq", acknowledges=True),
}

OURS = (MILLPOND, RELEASED)
ACKNOWLEDGING = tuple(name for name, one in COMPETITORS.items() if one.acknowledges)


@dataclass(frozen=True)
class Want:
    """A bound for a figure of ours: of itself, or over that of another (the best, of several)."""

    figure: str
    how: Literal[">=", "<="]
    bound: float
    of: tuple[str, ...] = ()
    who: str = MILLPOND

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.how == ">=" else value <= self.bound


@dataclass(frozen=True)
class Row:
    """So many calls, `at_once` of them at any time, or (idle, accept) so many jobs.

    A call takes `delay_ms`, times a lognormal of this sigma.
    """

    what: str
    who: tuple[str, ...]
    calls: int
    wants: tuple[Want, ...]
    at_once: int = 200
    delay_ms: float = 50
    sigma: float = 0


def _most(figure: str, bound: float, *of: str) -> Want:
    return Want(figure, "<=", bound, of)


def _least(figure: str, bound: float, *of: str) -> Want:
    return Want(figure, ">=", bound, of)


IDLE, ACCEPT = "idle", "accept"

ROWS = {
    "steady": Row(
        "50 ms calls, 200 at once",
        tuple(COMPETITORS),
        12_000,
        (
            _most("cpu_us", 0.25, ARQ),
            _most("cpu_us", 1.4, BARE),
            _least("calls_s", 2.5, ARQ),
            _least("calls_s", 1.8, *ACKNOWLEDGING),
            _least("calls_s", 0.85, BARE),
        ),
    ),
    "wide": Row(
        "50 ms calls, 400 at once",
        (MILLPOND, RELEASED, BARE),
        16_000,
        (_least("calls_s", 0.7, BARE),),
        at_once=400,
    ),
    "uneven": Row(
        "50 ms x lognormal(sigma 1), 200 at once",
        (MILLPOND, BARE, ARQ),
        12_000,
        (_least("share", 0.85),),
        sigma=1,
    ),
    IDLE: Row(
        "accept to the first byte at the provider, nothing else to do",
        (MILLPOND,),
        300,
        (_most("p50_ms", 5), _most("p99_ms", 20)),
        delay_ms=10,
    ),
    ACCEPT: Row(
        "bulk accept of bodies of 100 bytes",
        (MILLPOND, STREAQ),
        60_000,
        (_least("jobs_s", 3, STREAQ),),
    ),
}

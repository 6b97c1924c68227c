"""A job and the states it passes through.

    queued ── release ──▶ released ── claim ──▶ running ── settle ──▶ succeeded
     ▲                     │                     │                  failed
     ├────── give back ────┴─────────────────────┤
     └────── settle (to try again), reap ────────┘  reap: failed, after too many crashes

    cancel: queued, released ──▶ cancelled; promote: the same ──▶ expired, when its deadline passes
    A job that is cancelled or passes its deadline on its way ends so where it would go back.

    flushed: one that has ended ──▶ gone, once that is safe elsewhere

Only the store moves a job, one script per arrow; everything else reads.
"""

from enum import StrEnum


class State(StrEnum):
    QUEUED = "queued"
    RELEASED = "released"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})
#: How a job ends that is not asked again, though it has no answer.
_OVERTAKEN = frozenset({State.CANCELLED, State.EXPIRED})

#: Every arrow of the picture: the states a verb leads from, and those it leads to.
ARROWS: dict[str, tuple[frozenset[State], frozenset[State]]] = {
    "release": (frozenset({State.QUEUED}), frozenset({State.RELEASED})),
    "claim": (frozenset({State.RELEASED}), frozenset({State.RUNNING})),
    "settle": (frozenset({State.RUNNING}), FINAL | {State.QUEUED}),
    "give_back": (
        frozenset({State.RELEASED, State.RUNNING}),
        frozenset({State.QUEUED}) | _OVERTAKEN,
    ),
    "reap": (frozenset({State.RUNNING}), frozenset({State.QUEUED, State.FAILED}) | _OVERTAKEN),
    "cancel": (frozenset({State.QUEUED, State.RELEASED}), frozenset({State.CANCELLED})),
    "promote": (
        frozenset({State.QUEUED, State.RELEASED}),
        frozenset({State.QUEUED, State.EXPIRED}),
    ),
}


class Class(StrEnum):
    """How a job takes turns: somebody waits for it, or it is one of many."""

    INTERACTIVE = "i"
    BULK = "b"


class Endpoint(StrEnum):
    """What a job asks for."""

    GENERATE = "generate"
    EMBED = "embed"
    CLASSIFY = "classify"


#: Endpoints whose characters count against an org's quota (the provider's rule).
COUNTED = frozenset({Endpoint.GENERATE})

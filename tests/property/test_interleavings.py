"""All orders in which two processes can say a few scripts, one after the other.

Where the model (`test_model.py`) draws long stories by chance, this goes through every short one,
in a world as small as can be: two workers that also release, a scheduler, two or three jobs, a
limit of one or two calls. The first job may have a deadline, and may be cancelled. Each step is
judged as in the model. Stories that lead to the same state go on as one.
"""

import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from conftest import START_MS
from millpond.domain.job import Class
from property.books import ENDED, Cap
from property.checks import check_all
from property.direct import PREFIX, Server
from property.test_model import GENERATE, Ending, Model

#: Steps of a story, after its beginning. CI has time for this many; more on demand.
DEPTH = int(os.environ.get("INTERLEAVE_DEPTH", "3"))
WINDOW_MS = 1_000
#: Of each moment on, at the very least, after those that lead to the same state.
STEPS_LEAST = 5
ANSWERED, UNKNOWN = Ending(), Ending(["retry"], None, trouble=True)

_TAKE = """
local all = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  all[#all + 1] = {key, redis.call('DUMP', key)}
end
return all
"""
_PUT = """
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do redis.call('DEL', key) end
for i = 2, #ARGV, 2 do redis.call('RESTORE', ARGV[i], 0, ARGV[i + 1]) end
"""

#: What of the model changes while a story is told.
_OWN = (
    *(
        "accepted",
        "said",
        "started",
        "runs",
        "life",
        "heard",
        "last_now",
        "lease_now",
        "told_wait_ms",
    ),
    *("ghosts", "settled", "slots", "books", "time", "was_p99"),
)


@dataclass(frozen=True)
class Moment:
    server: tuple[bytes, ...]
    model: bytes


class World:
    """`ends`: what may become of jobs though nobody answers them; only the first can expire."""

    def __init__(
        self,
        server: Server,
        amount: int,
        flows: dict[str, Any],
        jobs: int,
        ends: str,
        quota: int | None,
    ) -> None:
        self.server = server
        self.ends = ends
        self.take, self.put = (server.command("SCRIPT", "LOAD", one) for one in (_TAKE, _PUT))
        self.model = Model()
        limits = {GENERATE: [Cap(amount, WINDOW_MS)]}
        within_ms = WINDOW_MS if "expires" in ends else 0
        self.model.begin(flows, limits, quota, 2, [100] * jobs, within_ms)

    def moment(self) -> Moment:
        found = self.server.command("EVALSHA", self.take, 0, PREFIX)
        own = {name: getattr(self.model, name) for name in _OWN}
        clocks = [
            (store.gateway.now_ms, store.gateway.life, store.gateway._replied_ms)
            for store in self.model.stores
        ]
        return Moment(tuple(part for pair in found for part in pair), pickle.dumps((own, clocks)))

    def go_back(self, to: Moment) -> None:
        self.server.command("EVALSHA", self.put, 0, PREFIX, *to.server)
        own, clocks = pickle.loads(to.model)
        for name, value in own.items():
            setattr(self.model, name, value)
        for store, clock in zip(self.model.stores, clocks, strict=True):
            store.gateway._time = self.model.time
            store.gateway.now_ms, store.gateway.life, store.gateway._replied_ms = clock
        self.model.seen = None

    def state(self) -> str:
        """Equal where nothing that comes can tell the difference. Ids of rows are the server's own
        time, and of what was settled only the end is asked again."""
        dump = {
            key: [row for _, row in value] if key.endswith((":out", ":led", ":audit")) else value
            for key, value in sorted(self.model.look().items())
        }
        clocks = [(store.gateway.now_ms, store.gateway.life) for store in self.model.stores]
        about = (self.model.books, self.model.slots, self.model.time.passed_ms, clocks)
        return repr((dump, about, [one.id for one in self.model.settled]))

    def steps(self) -> dict[str, Callable[[], None]]:
        """What can come next."""
        model = self.model
        steps: dict[str, Callable[[], None]] = {
            "half a window passes": partial(self.time_passes, WINDOW_MS // 2),
            "a window passes": partial(self.time_passes, WINDOW_MS),
            "the scheduler reaps and promotes": self.scheduler,
            "the server is started again": partial(model._restart, 0),
        }
        for i, name in enumerate("AB"):
            steps |= {
                f"{name} releases": partial(model.release, 2 + i, 200),
                f"{name} claims": partial(model.claim, i, 1, reply_is_lost=False),
                f"{name} claims, unheard": partial(model.claim, i, 1, reply_is_lost=True),
                f"{name} beats": partial(model.beat, i, moves_on=True),
                f"{name} dies": partial(self.dies, i),
            }
        for id, job in model.books.jobs.items():
            if f"{id} is cancelled" in self.ends and job.place not in {*ENDED, "gone"}:
                steps[f"{id} is cancelled"] = partial(model._cancel, [id])
        for which, call in model._settles():
            steps |= {
                f"{call.id} is answered": partial(model._settle, which, [(call, ANSWERED)]),
                f"{call.id} is unknown": partial(model._settle, which, [(call, UNKNOWN)]),
                f"{call.id} is given back": partial(
                    model._give_back, which, call, unreachable=False
                ),
            }
        return steps

    def tell(self, name: str) -> None:
        """One step, judged."""
        self.steps()[name]()
        model = self.model
        assert model.last_now <= START_MS + model.time.passed_ms
        check_all(model.look(), model.books, model.last_now, model.time.passed_ms)

    def time_passes(self, ms: int) -> None:
        self.model.time.passed_ms += ms
        self.model._tick()

    def dies(self, which: int) -> None:
        """Of the second worker somebody knows which call it was."""
        held = self.model.slots[which].held if which else []
        self.model._die(which, seen=True, blamed="".join(held[:1]))

    def scheduler(self) -> None:
        self.model.reap(0)
        self.model.promote(0, 200)


def explore(world: World, begins: Sequence[str], depth: int) -> int:
    """Tell all stories that begin so and have so many steps more; how many steps were taken."""
    for name in begins:
        world.tell(name)
    taken = 0
    moments = {world.state(): (world.moment(), list(begins))}
    for _ in range(depth):
        found: dict[str, tuple[Moment, list[str]]] = {}
        for moment, story in moments.values():
            world.go_back(moment)
            for i, name in enumerate(world.steps()):
                if i:
                    world.go_back(moment)
                try:
                    world.tell(name)
                except AssertionError as error:
                    error.add_note(f"the story was: {'; '.join([*story, name])}")
                    raise
                taken += 1
                state = world.state()
                if state not in found:
                    found[state] = (world.moment(), [*story, name])
        moments = found
    return taken


BULK = {"f": (GENERATE, "ann", Class.BULK, 1)}
WITH_CHAT = BULK | {"h": (GENERATE, "ben", Class.INTERACTIVE, 1)}
PACKS = {"p": (GENERATE, "ann", Class.BULK, 2), "q": (GENERATE, "ben", Class.BULK, 2)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("amount", "flows", "jobs", "ends", "quota", "begins"),
    [
        (1, BULK, 2, "", None, []),
        (2, BULK, 3, "j1 expires", None, ["A releases", "A claims", "B claims"]),
        (2, WITH_CHAT, 1, "j1 is cancelled or expires", None, ["B releases", "A claims"]),
        (1, PACKS, 1, "j1 is cancelled", None, ["half a window passes", "A releases", "B claims"]),
        (2, BULK, 3, "j2 is cancelled", 150, ["A releases", "A claims", "1 is answered"]),
    ],
    ids=["one at a time", "two at a time", "chat and bulk", "packs", "quota"],
)
def test_whatever_the_order_of_the_scripts(
    server_url: str,
    amount: int,
    flows: dict[str, Any],
    jobs: int,
    ends: str,
    quota: int | None,
    begins: list[str],
) -> None:
    server = Model.server = Server(server_url)
    depth = DEPTH if begins else DEPTH + 1
    try:
        taken = explore(World(server, amount, flows, jobs, ends, quota), begins, depth)
    finally:
        server.close()
    assert taken > STEPS_LEAST**depth

"""Runs to which something happens: the server's clock is stepped, it is killed, it loses keys."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from random import Random

from bench.admission.figures import Figures, Place, judged
from bench.admission.files import FileRun, UnderWay
from redis import Redis

from millpond.embedded.server import EmbeddedServer
from millpond.store import keys
from rig import wait_until
from stepped import stepped_server

WINDOW_S = 6
RUN = FileRun(600, f"60/{WINDOW_S}s")


def clock_stepped(ms: int) -> Callable[[Place], Figures]:
    """The server's clock jumps by so much, and three windows later back."""

    def run(place: Place) -> Figures:
        with ExitStack() as exits:
            server = exits.enter_context(stepped_server(place.folder / "stepped"))
            env = {"MILLPOND_REDIS_URL": server.url}
            under_way = exits.enter_context(RUN.under_way(place, env=env))
            for calls, step_ms in ((150, ms), (330, -ms)):
                _at_a_random_moment(under_way, calls, place.chance)
                server.step(step_ms)
            return _judged(under_way)

    return run


def server_killed(place: Place) -> Figures:
    """The server dies at once; the run starts it again."""
    with RUN.under_way(place) as under_way:
        _at_a_random_moment(under_way, 150, place.chance)
        [server] = under_way.command.children("server")
        os.kill(server, signal.SIGKILL)
        return _judged(under_way)


def lanes_deleted(place: Place) -> Figures:
    """Everything that is known of limits and their use is gone; the workers live."""
    with RUN.under_way(place) as under_way:
        _at_a_random_moment(under_way, 150, place.chance)
        server = EmbeddedServer(place.folder / ".millpond" / "server")  # for its address
        with Redis.from_url(server.url) as redis:
            redis.delete(*redis.scan_iter(f"{keys.prefix('0')}l:*", count=10_000))
        return _judged(under_way)


def _at_a_random_moment(under_way: UnderWay, calls: int, chance: Random) -> None:
    """So many calls have been answered, and a part of a window has passed since."""
    journal = under_way.provider.journal
    wait_until(lambda: journal.read_bytes().count(b"\n") > calls, what=f"call {calls}")
    time.sleep(chance.uniform(0, WINDOW_S))


def _judged(under_way: UnderWay) -> Figures:
    under_way.wait()
    return judged(under_way.provider, total=RUN.lines)

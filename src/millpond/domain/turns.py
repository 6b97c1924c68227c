"""Whose turn it is in a lane: start-time fair queuing over classes, users and flows.

This is the reference that the store's scripts are compared with, tag by tag. Each level is a set
of members, each with a start tag; the lowest is next, and moves on by 1 / weight when it was
served. Who has nothing in line rests: it comes back where it stood, or as somebody new if the
others have come so far, so that nothing is gained by going and nothing saved up by staying away.
"""

from collections.abc import Set
from dataclasses import dataclass, field
from typing import NamedTuple

from millpond.domain.forecast import CLASS_WEIGHT
from millpond.domain.job import Class

#: Who is new comes so far behind who is next, and behind each that takes turns already: in the
#: order of arrival, and never before everybody else for ever.
BEHIND, BEHIND_EACH = 1 / 16, 1e-7


class Turn(NamedTuple):
    klass: Class
    user: str
    flow: str


@dataclass
class Level:
    """Start tags of those that take turns, and of those that rest."""

    tags: dict[str, float] = field(default_factory=dict)
    resting: dict[str, float] = field(default_factory=dict)

    @property
    def v(self) -> float:
        """Virtual time: the tag of who is next."""
        return min(self.tags.values())

    def join(self, member: str, *, behind: float = BEHIND, each: float = BEHIND_EACH) -> None:
        if member in self.tags:
            return
        stood = self.resting.pop(member, 0.0)
        if not self.tags:
            self.tags[member] = 0.0
        elif stood > self.v:
            self.tags[member] = stood
        else:
            self.tags[member] = self.v + behind + len(self.tags) * each

    def rest(self, member: str) -> None:
        """A level where nobody takes turns remembers nothing."""
        self.resting[member] = self.tags.pop(member)
        if not self.tags:
            self.resting.clear()

    def next(self) -> str:
        """Of equals the first by name."""
        return min(sorted(self.tags), key=self.tags.__getitem__)

    def serve(self, member: str, weight: float) -> None:
        self.tags[member] += 1 / weight


@dataclass
class Turns:
    """Of one lane. A class takes turns while one of its users does, a user while a flow does."""

    classes: Level = field(default_factory=Level)
    users: dict[Class, Level] = field(default_factory=lambda: {klass: Level() for klass in Class})
    flows: dict[tuple[Class, str], Level] = field(default_factory=dict)

    def enter(self, turn: Turn) -> None:
        """The flow has something in line. A class that comes is next."""
        self.flows.setdefault((turn.klass, turn.user), Level()).join(turn.flow)
        self.users[turn.klass].join(turn.user)
        self.classes.join(turn.klass, behind=0.0, each=0.0)

    def takes(self, turn: Turn) -> bool:
        """Whether the flow takes turns."""
        flows = self.flows.get((turn.klass, turn.user))
        return flows is not None and turn.flow in flows.tags

    def leave(self, turn: Turn) -> None:
        """It was found with nothing in line. Its class is looked at by `next`."""
        if not self.takes(turn):
            return
        flows = self.flows[turn.klass, turn.user]
        flows.rest(turn.flow)
        if not flows.tags:
            self.users[turn.klass].rest(turn.user)

    def drop(self, turn: Turn) -> None:
        """It is paused or moves, and its class goes with the last of its users."""
        self.leave(turn)
        if turn.klass in self.classes.tags and not self.users[turn.klass].tags:
            self.classes.rest(turn.klass)

    def next(self, may_go: Set[Class]) -> Turn | None:
        """Of equal classes the interactive one is first. One that is found with no users rests."""
        while open_to := [k for k in Class if k in may_go and k in self.classes.tags]:
            klass = min(open_to, key=self.classes.tags.__getitem__)
            if turn := self.next_of(klass):
                return turn
            self.classes.rest(klass)
        return None

    def next_of(self, klass: Class, *, leads: Turn | None = None) -> Turn | None:
        """Within a class: whose job comes next. What `leads` a call fills it first, then what else
        its user has, then the others in their order."""
        users = self.users[klass]
        if not users.tags:
            return None
        user = leads.user if leads and leads.user in users.tags else users.next()
        flows = self.flows[klass, user]
        flow = leads.flow if leads and leads.flow in flows.tags else flows.next()
        return Turn(klass, user, flow)

    def serve(
        self, turn: Turn, may_go: Set[Class], *, user_weight: float, flow_weight: float
    ) -> None:
        """A call has gone that this flow leads: it pays. Who rides along pays nothing, and a class
        that may not go now gets nothing back for it."""
        self.flows[turn.klass, turn.user].serve(turn.flow, flow_weight)
        self.users[turn.klass].serve(turn.user, user_weight)
        tags = self.classes.tags
        for other in tags.keys() - set(may_go) - {turn.klass}:
            tags[other] = max(tags[other], tags[turn.klass])
        self.classes.serve(turn.klass, CLASS_WEIGHT[turn.klass])

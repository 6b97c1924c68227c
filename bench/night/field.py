"""What happens in the night, and to whom."""

from dataclasses import dataclass
from random import Random

from bench.peers.field import SERVICE, Scenario

#: So many seconds of a real night pass in one of ours.
SCALE = 10
SEED = 1


@dataclass(frozen=True)
class Night:
    """`prompts` of bulk under a limit of `amount` calls in any `window_s`, and what comes between.

    All is a tenth of a real night: 500 calls a minute, work of about 2 s, 0.03 s on either way, a
    chat each ten seconds. Moments are counted from the first call.
    """

    prompts: int = 10_000
    amount: int = 500
    window_s: int = 6
    chat_every_s: float = 1.0
    #: Of the account, for so many windows.
    strangers_share: float = 0.2
    strangers_windows: int = 2

    @property
    def shortest_s(self) -> float:
        """What the prompts alone take at the rate of the limit."""
        return self.prompts / self.amount * self.window_s

    @property
    def longest_s(self) -> float:
        """A client that takes longer is ended, and what is not answered is lost."""
        return 2 * self.shortest_s

    @property
    def stranger_s(self) -> tuple[float, float]:
        begin_s = 0.3 * self.shortest_s
        return begin_s, begin_s + self.strangers_windows * self.window_s

    @property
    def kill_s(self) -> float:
        return self.shortest_s * 2 / 3

    @property
    def chats_s(self) -> list[float]:
        """When somebody asks: at a moment of each second, the same for all clients."""
        chance = Random(SEED)
        return [
            (number + chance.random()) * self.chat_every_s
            for number in range(1, int(self.longest_s / self.chat_every_s))
        ]

    @property
    def scenario(self) -> Scenario:
        """For the simulator and the prompts of the peers' bench."""
        return Scenario(
            f"{SERVICE} --delay-in lognormal:0.003,1 --delay-out lognormal:0.003,1",
            amount=self.amount,
            window_s=self.window_s,
            calls=self.prompts,
        )


@dataclass(frozen=True)
class Client:
    """One of the peers' environments and a program of `programs/`; without one: ourselves."""

    title: str
    requirements: str = ""
    program: str = ""
    processes: int = 4


CLIENTS = {
    "cookbook": Client("the cookbook's loop", "cookbook", "night_cookbook", processes=1),
    "litellm": Client("LiteLLM Router", "litellm", "night_litellm"),
    "arq": Client("arq + limits", "arq", "night_arq"),
    "millpond": Client("millpond"),
}

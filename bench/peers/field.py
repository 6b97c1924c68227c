"""Who is measured, and in what weather."""

from dataclasses import dataclass, replace

PROCESSES = 4

#: Our own name beside the others.
MILLPOND = "millpond"


@dataclass(frozen=True)
class Peer:
    """One program of `programs/` in one environment; `how` is handed to the program."""

    title: str
    requirements: str
    program: str
    how: str = ""
    processes: int = PROCESSES
    #: It counts by the minute of the clock: windows of another length would say nothing about it.
    minutes_only: bool = False


COOKBOOK = Peer("a loop in the cookbook's shape", "cookbook", "with_cookbook", "1", processes=1)
LITELLM = Peer(
    "LiteLLM Router, usage-based-v2", "litellm", "with_litellm", "usage", minutes_only=True
)
THROTTLED = Peer("throttled-py, GCRA, burst 1", "throttled", "with_throttled", "gcra")

PEERS = {
    "cookbook": COOKBOOK,
    "cookbook-75": replace(COOKBOOK, title="the same, told 75 % of the limit", how="0.75"),
    "litellm": LITELLM,
    "litellm-enforce": replace(
        LITELLM, title="LiteLLM Router, enforce_model_rate_limits", how="enforce"
    ),
    "limits": Peer("limits, moving window", "limits", "with_limits"),
    "pyrate": Peer("pyrate-limiter, Redis", "pyrate", "with_pyrate"),
    "throttled-gcra": THROTTLED,
    "throttled-sliding": replace(
        THROTTLED, title="throttled-py, sliding window", how="sliding_window"
    ),
    "aiolimiter": Peer("aiolimiter, smooth", "aiolimiter", "with_aiolimiter", processes=1),
    "arq": Peer("arq workers with limits", "arq", "with_arq"),
    "tenacity": Peer("no limiter, six tries (tenacity)", "tenacity", "with_tenacity"),
}


@dataclass(frozen=True)
class Scenario:
    """One limit of calls, and the simulator's options as in docs/simulator.md."""

    weather: str
    amount: int = 60
    window_s: int = 6
    calls: int = 300
    seeds: int = 3
    #: A run that takes longer is ended, and its row says so.
    longest_s: int = 120
    real: bool = False

    @property
    def limits(self) -> str:
        return f"generate={self.amount}/{self.window_s}s"


SERVICE = "--service lognormal:0.2,0.5"

SCENARIOS = {
    "calm": Scenario(SERVICE),
    "uniform": Scenario(f"{SERVICE} --delay-in uniform:0,0.6"),
    "lognormal": Scenario(
        f"{SERVICE} --delay-in lognormal:0.02,1.2 --delay-out lognormal:0.02,1.2"
    ),
    "real": Scenario(
        "--service 2 --delay-in lognormal:0.03,1 --delay-out lognormal:0.03,1",
        window_s=60,
        calls=240,
        seeds=1,
        longest_s=600,
        real=True,
    ),
}

"""Users of one account take turns: their shares, and who has but one job beside a million."""

import asyncio
from collections import Counter

from bench.admission.figures import Figures, Place, judged
from bench.admission.house import ORG, Flow, house, lane

from millpond.store.store import Changes
from rig import Simulator, simulator

LIMITS = "60/6s"
CALLS = 600
WEIGHTS = {f"u{weight}": weight for weight in range(1, 9)}
JOBS_EACH = 200


def by_weight(place: Place) -> Figures:
    """Eight users with weights 1 to 8, all with more in line than is called."""
    options = ("--limits", f"generate={LIMITS}", "--service", "lognormal:0.2,0.5")
    seed = ("--seed", str(place.seed))
    with simulator(place.folder / "provider", *options, *seed) as provider:
        users = asyncio.run(_take_turns(place, provider))
        calls = sorted(provider.calls(ORG), key=lambda call: float(call["received_ms"]))[:CALLS]
        found = Counter(users[call["attempt"]] for call in calls)
        whole = sum(WEIGHTS.values())
        off = [found[user] / CALLS - weight / whole for user, weight in WEIGHTS.items()]
        return {**judged(provider), "share_off": round(max(map(abs, off)), 4)}


async def _take_turns(place: Place, provider: Simulator) -> dict[str, str]:
    """Whose each call was."""
    async with house(place.folder, provider.url) as store:
        of = lane(LIMITS)
        flows = [Flow(store, user, of, place.chance, user=user) for user in WEIGHTS]
        for flow in flows:
            await flow.open()
        await store.change(ORG, Changes(weights=WEIGHTS, lane=of.id, paused="feeding"), by="bench")
        for flow in flows:
            await flow.feed(JOBS_EACH)
        await store.change(ORG, Changes(lane=of.id, paused=""), by="bench")
        while sum(len(flow.calls) for flow in flows) < CALLS + 20:
            await asyncio.gather(*(flow.drain() for flow in flows))
        return {call: flow.user for flow in flows for call in flow.calls.values()}

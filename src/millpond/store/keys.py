"""The one place in Python where keys are built. The scripts get the prefix and do the rest."""

from typing import Literal

_STREAMS = {"ledger": "led", "audit": "audit", "events": "ev"}


def prefix(partition: str) -> str:
    """All keys of a partition begin so."""
    return f"mp:{partition}:"


def partition(partition: str) -> str:
    """What holds for all of a partition: clock, life, counts."""
    return f"{prefix(partition)}m"


def scheduler_bell(partition: str) -> str:
    return f"{prefix(partition)}bell:s"


def worker_bell(partition: str, pool: str) -> str:
    return f"{prefix(partition)}bell:w:{pool}"


def flow(partition: str, flow: str) -> str:
    """A flow's record."""
    return f"{prefix(partition)}f:{flow}"


def rows(partition: str, flow: str) -> str:
    """The stream of a flow's answers and calls, until they are flushed."""
    return f"{prefix(partition)}f:{flow}:out"


def org(partition: str, org: str) -> str:
    """An org's quota and what is used of it."""
    return f"{prefix(partition)}o:{org}"


def unknown(partition: str, org: str) -> str:
    """An org's calls of unknown outcome, with the characters kept for each."""
    return f"{prefix(partition)}o:{org}:unknown"


def dead(partition: str, org: str) -> str:
    """An org's dead letters, by when they died."""
    return f"{prefix(partition)}o:{org}:dead"


def letter(partition: str, job: str) -> str:
    """What a job asked that saw too many workers die."""
    return f"{prefix(partition)}x:{job}"


def result(partition: str, call: str, job: str) -> str:
    """A large answer, until the call that brought it is settled."""
    return f"{prefix(partition)}r:{call}:{job}"


def records(partition: str, org: str, what: Literal["ledger", "audit", "events"]) -> str:
    """A stream of what happened to an org: its characters, its settings, what is worth telling."""
    return f"{prefix(partition)}o:{org}:{_STREAMS[what]}"


def lanes(partition: str, org: str) -> str:
    """The set of an org's lanes."""
    return f"{prefix(partition)}o:{org}:lanes"


def provider_key(partition: str, org: str) -> str:
    """An org's key at its provider, sealed."""
    return f"{prefix(partition)}o:{org}:key"


def own_models(partition: str, org: str) -> str:
    """An org's fine-tuned models, each with the model that it was made of."""
    return f"{prefix(partition)}o:{org}:models"


def stamps(partition: str, lane: str) -> str:
    """When each of a lane's calls was counted, as long as a window needs it."""
    return f"{prefix(partition)}l:{lane}:s"


def flight(partition: str, lane: str) -> str:
    """When each of a lane's calls in flight was released."""
    return f"{prefix(partition)}l:{lane}:flight"


def orgs(partition: str) -> str:
    """The set of all orgs that have been set."""
    return f"{prefix(partition)}orgs"


def background_queue(partition: str) -> str:
    """arq's queue: what is not on the path of a call."""
    return f"{prefix(partition)}arq"


def job(partition: str, job: str) -> str:
    """A job's record."""
    return f"{prefix(partition)}j:{job}"


def answer(partition: str, job: str) -> str:
    """A single job's answer, or why it has none."""
    return f"{prefix(partition)}a:{job}"


def asked(partition: str, job: str) -> str:
    """What a job asks."""
    return f"{prefix(partition)}y:{job}"


def idempotency(partition: str, org: str, digest: str) -> str:
    """What was submitted under an idempotency key, which is known by its digest."""
    return f"{prefix(partition)}i:{org}:{digest}"


def singles(partition: str, org: str) -> str:
    """An org's single jobs, by when they were submitted."""
    return f"{prefix(partition)}o:{org}:jobs"


def done(partition: str) -> str:
    """The stream of single jobs that have ended."""
    return f"{prefix(partition)}done"


def orgs_sorted(partition: str) -> str:
    """All orgs by their id: made of `orgs`, to be read page by page."""
    return f"{prefix(partition)}orgs:sorted"


def users(partition: str, org: str) -> str:
    """An org's users, by their id."""
    return f"{prefix(partition)}o:{org}:users"


def user(partition: str, org: str, user: str) -> str:
    """A user's record."""
    return f"{prefix(partition)}o:{org}:u:{user}"


def users_api_keys(partition: str, org: str, user: str) -> str:
    """A user's API keys, by when they were made."""
    return f"{prefix(partition)}o:{org}:u:{user}:keys"


def operators(partition: str) -> str:
    """Operators' API keys, by when they were made."""
    return f"{prefix(partition)}operators"


def api_key(partition: str, key: str) -> str:
    """Whose an API key is, and its mark."""
    return f"{prefix(partition)}k:{key}"


def audit(partition: str) -> str:
    """The stream of changes of what belongs to no org."""
    return f"{prefix(partition)}audit"


def application(partition: str, org: str, number: int) -> str:
    """An org's application for full access."""
    return f"{prefix(partition)}o:{org}:app:{number}"


def talk(partition: str, org: str, number: int) -> str:
    """What was asked back about an application, and answered."""
    return f"{prefix(partition)}o:{org}:app:{number}:talk"


def desk(partition: str, stage: str) -> str:
    """Applications of all orgs that are in this stage, the oldest first."""
    return f"{prefix(partition)}desk:{stage}"


def usage(partition: str, org: str, day: int) -> str:
    """What an org's single jobs used on a day, by what and whom."""
    return f"{prefix(partition)}o:{org}:use:{day}"


def counts(partition: str) -> str:
    """How many single jobs were submitted and ended, since ever, by state and endpoint."""
    return f"{prefix(partition)}counts"

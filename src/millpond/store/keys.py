"""The one place in Python where keys are built. The scripts get the prefix and do the rest."""


def prefix(partition: str) -> str:
    """All keys of a partition begin so."""
    return f"mp:{partition}:"


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


def orgs(partition: str) -> str:
    """The set of all orgs that have been set."""
    return f"{prefix(partition)}orgs"


def background_queue(partition: str) -> str:
    """arq's queue: what is not on the path of a call."""
    return f"{prefix(partition)}arq"

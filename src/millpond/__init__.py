"""millpond: an asynchronous job queue with rate-aware scheduling for language-model calls."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millpond.client import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    """The client, once it is asked for: the server's programs do without it."""
    if name not in ("AsyncClient", "Client"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import millpond.client

    return getattr(millpond.client, name)

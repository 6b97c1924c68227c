"""Whether the key that a request came with is still good: asked again by what takes long."""

from millpond.producer.http.app import Authenticate
from millpond.producer.http.problems import Problem
from millpond.producer.http.table import Call


class StillGood:
    """Asks `authenticate` again, which remembers its answers for a few seconds."""

    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    async def is_good(self, call: Call) -> bool:
        """Whether the caller still is who it was."""
        _, _, token = call.request.headers["Authorization"].partition(" ")
        who = await self._authenticate(token.strip(" "))
        return who is not None and who.org == call.caller.org

    async def check(self, call: Call) -> None:
        """Raises a Problem if the key is good no more."""
        if not await self.is_good(call):
            raise Problem("unauthorized", headers={"WWW-Authenticate": "Bearer"})

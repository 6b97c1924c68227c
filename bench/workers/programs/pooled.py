"""One POST with urllib3, for the programs that work in threads or greenlets."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import urllib3
from given import HEADERS, Given, answer, body


class Provider:
    def __init__(self, given: Given) -> None:
        self._url = given.url
        self._pool = urllib3.PoolManager(maxsize=given.at_once, retries=False, headers=HEADERS)

    def ask(self, prompt: str) -> str:
        reply = self._pool.request("POST", self._url, body=body(prompt))
        assert reply.status == 200
        said: str = answer(reply.data)
        return said

"""Where the server is and with which key it is asked. The key is shown nowhere."""

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from millpond.client.errors import ClientError

URL, API_KEY = "MILLPOND_URL", "MILLPOND_API_KEY"


@dataclass(frozen=True, slots=True)
class Access:
    """A server and a key."""

    url: str
    key: str = field(repr=False)

    def hidden(self, text: str) -> str:
        """A text of somebody else's, without the key in it."""
        return text.replace(self.key, "***")


def read_access(url: str | None, api_key: str | None) -> Access:
    """What is given, else what the environment says. Raises ClientError, which says the way
    out."""
    url = url or os.environ.get(URL)
    if not url:
        raise ClientError(
            f"no server is named: pass url=, or set {URL} (`millpond up` prints both url and key)"
        )
    api_key = api_key or os.environ.get(API_KEY)
    if not api_key:
        raise ClientError(
            f"no key is given: pass api_key=, or set {API_KEY} (`millpond up` prints one)"
        )
    if not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ClientError("the key holds characters that no key has: was it copied whole?")
    return Access(_checked(url), api_key)


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname)
        port = parts.port
    except ValueError:
        fits, port = False, None
    if not fits or port == 0:
        raise ClientError("the url is not one of a server: it looks like http://127.0.0.1:8080")
    if parts.username is not None or parts.query or parts.fragment:
        raise ClientError("the url may hold a host, a port and a path, and nothing else")
    return url.rstrip("/")

"""What every program is told, and what it asks of the provider."""

import json
import sys
from dataclasses import dataclass
from typing import Any

TEXT_BYTES = 100
PATH = "/v1/generate"
HEADERS = {"Authorization": "Bearer bench", "Content-Type": "application/json"}


@dataclass(frozen=True)
class Given:
    """So many jobs, of which so many are in hand at any time."""

    redis_url: str
    base_url: str
    jobs: int
    at_once: int

    @classmethod
    def read(cls) -> "Given":
        return cls(**json.loads(sys.argv[2]))

    @property
    def url(self) -> str:
        return self.base_url + PATH

    def texts(self) -> list[str]:
        return [text(number) for number in range(self.jobs)]


def enqueues() -> bool:
    """Whether this process puts the jobs in line; else it works on them until it is stopped."""
    return sys.argv[1] == "enqueue"


def text(number: int) -> str:
    return f"{number}: ".ljust(TEXT_BYTES, "x")


def body(prompt: str) -> bytes:
    """The request, as our own worker writes it."""
    asked = {"prompt": prompt, "max_tokens": 256, "model": "command", "stream": True}
    return json.dumps(asked).encode()


def answer(reply: bytes) -> str:
    """What the provider said."""
    told: dict[str, Any] = json.loads(reply)
    said: str = told["generations"][0]["text"]
    return said

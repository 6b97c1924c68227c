"""The words and numbers in the answers. They depend on the seed and on what was asked, alone.

One word is one token: two to four letters and the space before the next, so about four
characters a token and never more than five.
"""

import struct
from dataclasses import dataclass
from hashlib import blake2b
from math import hypot
from random import Random

from millpond.simulator.chances import Chance, Lognormal

DIMENSIONS = 32

#: How many tokens a text has if none are forbidden.
LENGTH = Lognormal(40, 0.6)

_WORDS = """
    the and but for with from over by at in on to of as if so then when now here
    mill pond weir wind rain snow ice sun moon star sky sea lake hill path road
    gate door roof wall barn farm seed corn oat rye hay leaf tree oak elm ash
    bird crow owl hen duck swan fish frog fox hare goat cow ox dog cat bee
    man boy girl aunt son king cook
    go goes come run runs turn fill flow rise fall wait hold keep give take let
    see hear say tell sing call ask find lose stay rest work play help grow
    old new big low high long wide deep cold warm wet dry slow fast soft full
    one two six ten all each few most half day year hour week dawn dusk noon
    no not yet once soon late far near up down out off back
    it is was are be has had can may will its my our his her we he they you me
"""
WORDS = tuple(_WORDS.split())


@dataclass(frozen=True, slots=True)
class Text:
    """`cut`: more would have come, had more tokens been allowed."""

    words: tuple[str, ...]
    cut: bool

    def __str__(self) -> str:
        return " ".join(self.words)

    def pieces(self) -> list[str]:
        """One for each token: joined, they are the text."""
        return [word if nth == 0 else f" {word}" for nth, word in enumerate(self.words)]


class Author:
    def __init__(self, seed: int, length: Chance = LENGTH) -> None:
        self._key = str(seed).encode()[:64]
        self._length = length

    def text(self, prompt: str, *, tokens_max: int, nth: int = 0) -> Text:
        """The nth answer to the prompt; fewer tokens give the beginning of the same text."""
        rng = Random(self._digest(f"{nth} {prompt}", size=16))
        tokens = max(1, round(self._length.draw(rng)))
        words = rng.choices(WORDS, k=min(tokens, tokens_max))
        return Text(tuple(words), cut=tokens > tokens_max)

    def vector(self, text: str) -> list[float]:
        """A direction in space: of length 1, but for the rounding."""
        raw = struct.unpack(f"<{DIMENSIONS}h", self._digest(text, size=2 * DIMENSIONS))
        length = hypot(*raw)
        return [round(one / length, 6) for one in raw]

    def taste(self, text: str) -> bytes:
        """What decides between two that are equally good."""
        return self._digest(text, size=8)

    def _digest(self, text: str, *, size: int) -> bytes:
        return blake2b(text.encode(), digest_size=size, key=self._key).digest()

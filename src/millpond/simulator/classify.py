"""Which label a text gets: the one whose examples share the most words with it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from millpond.simulator.author import Author

DIGITS = 9


@dataclass(frozen=True, slots=True)
class Example:
    text: str
    label: str


class Labels:
    """What was learnt from examples: the words of each label."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._words: dict[str, set[str]] = {}
        for example in examples:
            self._words.setdefault(example.label, set()).update(_words(example.text))

    def shares(self, text: str, author: Author) -> dict[str, float]:
        """The confidence in each label. They add up to 1, and one is above all others.

        A label weighs one more than the words it shares; the best gets another one for being it.
        """
        words = _words(text)
        shared = {label: len(words & its) for label, its in self._words.items()}
        most = max(shared.values())
        tied = [label for label, count in shared.items() if count == most]
        best = max(tied, key=lambda label: author.taste(f"{text}\n{label}"))
        total = sum(shared.values()) + len(shared) + 1
        shares = {label: round((count + 1) / total, DIGITS) for label, count in shared.items()}
        shares[best] = 0.0
        shares[best] = round(1 - sum(shares.values()), DIGITS)
        return shares


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))

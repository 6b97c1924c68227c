"""How many characters a call may use at most: what is reserved for it before it goes.

The quota of an organisation counts characters of prompts and of answers. What an answer will have
is not known beforehand, so the most is reserved that `max_tokens` allows; when the answer is
there, what was really used is charged and the rest returned. Characters are Unicode code points.
"""

#: Most characters an answer has per token. Measured ratios lie near 4.2 for English text; there is
#: no hard ceiling, so this is a bound with room, not a law.
CHARACTERS_PER_TOKEN = 6


def generate_need(prompt_characters: int, max_tokens: int, generations: int) -> int:
    """Characters to reserve for a generate call: prompt + bound x max_tokens x outputs."""
    return prompt_characters + CHARACTERS_PER_TOKEN * max_tokens * generations


def tokens_of(text: str) -> int:
    """Tokens that a text has at most, with room: English has one per four characters, and is
    bounded here by one per two. No hard bound is useful (a token can be a single byte)."""
    return len(text) // 2 + 1

"""What an API key looks like.

    mpk_k4cmzq2xhw7d_<43 characters: the secret><6: a checksum of all before>
    mpo_…                                                      an operator's

A key that was mistyped or cut off is known as such without asking anybody.
"""

import re
import secrets
import zlib
from dataclasses import dataclass
from enum import StrEnum

_ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 12
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BITS, _SECRET_LENGTH = 256, 43
_CHECK_LENGTH = 6
_FORM = re.compile(r"(mp[ko])_([a-z2-7]{12})_[0-9A-Za-z]{43}([0-9A-Za-z]{6})")


class Kind(StrEnum):
    """Whose a key is, as it begins."""

    USER = "mpk"
    OPERATOR = "mpo"


@dataclass(frozen=True, slots=True)
class KeyName:
    """What may be told of a key: it holds nothing of its secret."""

    kind: Kind
    id: str


def make_key_text(kind: Kind) -> tuple[KeyName, str]:
    """A new key and its name."""
    id = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
    begin = f"{kind}_{id}_{_base62(secrets.randbits(_SECRET_BITS), _SECRET_LENGTH)}"
    return KeyName(kind, id), begin + _check(begin)


def read_key_text(text: str) -> KeyName | None:
    """The name of a key; None: nobody was ever given such a text."""
    found = _FORM.fullmatch(text)
    if not found or found[3] != _check(text[:-_CHECK_LENGTH]):
        return None
    return KeyName(Kind(found[1]), found[2])


def _check(begin: str) -> str:
    return _base62(zlib.crc32(begin.encode()), _CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))

"""Which custom_ids there were already, in about 13 bytes an id, however long the ids are.

    custom_id ── 32 bits of its hash ─▶ a chunk (12 bits), and in it, sorted:
                                            20 bits of the hash, offset of the record    8 bytes
                                            line of the record                           4 bytes

Two ids may share those 32 bits, so a hit counts only when the record that was noted has been read
again and has the same id.
"""

import os
from array import array
from bisect import bisect_left
from collections.abc import Callable
from hashlib import blake2b

#: A file has at most 2^44 bytes, which is 16 TiB, and 2^32 lines.
_OFFSET_BITS = 44
_CHUNK_BITS = 12
_TAG_BITS = 20

_TAG_MASK = (1 << _TAG_BITS) - 1
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1

#: So that nobody can write a file of ids that all share a hash.
_KEY = os.urandom(16)


class SeenIds:
    """`custom_id_at` reads, by line and offset, the id of a record that was noted before."""

    def __init__(self, custom_id_at: Callable[[int, int], str | None]) -> None:
        self._custom_id_at = custom_id_at
        self._places: dict[int, array[int]] = {}
        self._lines: dict[int, array[int]] = {}

    def first_line(self, custom_id: str, line: int, offset: int) -> int | None:
        """The line of an earlier record with this id; if there is none, this one is noted."""
        hashed = _hash(custom_id)
        chunk, tag = hashed >> _TAG_BITS, hashed & _TAG_MASK
        places = self._places.get(chunk)
        if places is None:
            places = self._places[chunk] = array("Q")
            self._lines[chunk] = array("I")
        lines = self._lines[chunk]
        at = bisect_left(places, tag << _OFFSET_BITS)
        while at < len(places) and places[at] >> _OFFSET_BITS == tag:
            if self._custom_id_at(lines[at], places[at] & _OFFSET_MASK) == custom_id:
                return lines[at]
            at += 1
        places.insert(at, tag << _OFFSET_BITS | offset)
        lines.insert(at, line)
        return None


def _hash(custom_id: str) -> int:
    return int.from_bytes(blake2b(custom_id.encode(), digest_size=4, key=_KEY).digest())

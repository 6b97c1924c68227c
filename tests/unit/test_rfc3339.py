"""Moments as they are told."""

import pytest

from millpond.clock import rfc3339
from millpond.producer.api.wall import Wall


@pytest.mark.parametrize(
    ("unix_s", "told"),
    [
        (0.9, "1970-01-01T00:00:00Z"),
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
        (253_402_300_800, "9999-12-31T23:59:59Z"),
        (1e300, "9999-12-31T23:59:59Z"),
        (-1e300, "0001-01-01T00:00:00Z"),
    ],
)
def test_every_moment_can_be_told(unix_s: float, told: str) -> None:
    assert rfc3339(unix_s) == told
    assert Wall(0, unix_s).at(0) == told

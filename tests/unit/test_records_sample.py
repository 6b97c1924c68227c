"""Lines chosen by chance: so many, each as likely as another, and the same ones again."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.producer.records import Format, Reader


def reader(folder: Path, content: bytes, format: Format = Format.TEXT) -> Reader:
    path = folder / "input"
    path.write_bytes(content)
    return Reader(path, format, field="prompt", template=None)


def test_the_same_seed_chooses_the_same_lines_on_every_machine(tmp_path: Path) -> None:
    found = reader(tmp_path, b"a\n" * 1_000)

    assert found.sample_lines(5, "seed") == {43, 720, 807, 819, 970}
    assert found.sample_lines(5, "another") == {52, 382, 487, 601, 730}


def test_lines_are_those_where_records_begin_good_or_bad(tmp_path: Path) -> None:
    content = b'prompt\n"a\nb"\n\n"c\nd"\ne,too many\n'

    assert reader(tmp_path, content, Format.CSV).sample_lines(9, "") == {2, 4, 5, 7}


@given(st.integers(0, 30), st.integers(0, 30), st.text(max_size=5))
def test_there_are_as_many_as_asked_for_or_all(
    tmp_path_factory: pytest.TempPathFactory, records: int, n: int, seed: str
) -> None:
    found = reader(tmp_path_factory.getbasetemp(), b"a\n" * records)

    lines = found.sample_lines(n, seed)

    assert len(lines) == min(n, records)
    assert lines <= set(range(1, records + 1))


def test_each_line_is_as_likely_as_another(tmp_path: Path) -> None:
    found = reader(tmp_path, b"a\n" * 20)
    count: Counter[int] = Counter()
    for seed in range(4_000):
        count.update(found.sample_lines(5, str(seed)))

    # 1,000 each is expected, with a deviation of 27.
    assert set(count) == set(range(1, 21))
    assert 870 < min(count.values()) <= max(count.values()) < 1_130

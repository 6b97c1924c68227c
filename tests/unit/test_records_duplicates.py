"""A custom_id is one record's: the second with it is Invalid, whatever was skipped."""

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.producer import seen
from millpond.producer.records import Format, Invalid, Reader, Record
from millpond.producer.seen import SeenIds


def reader(folder: Path, content: bytes, format: Format = Format.JSONL) -> Reader:
    path = folder / "input"
    path.write_bytes(content)
    return Reader(path, format, field="prompt", template=None)


def duplicates(found: Reader, skip: Any = lambda line: False) -> list[tuple[int, str]]:
    return [
        (one.line, one.message.partition(" has the custom_id")[0])
        for one in found.read(skip)
        if isinstance(one, Invalid) and one.code == "duplicate_custom_id"
    ]


def test_the_second_record_with_a_custom_id_is_invalid_and_names_the_first(tmp_path: Path) -> None:
    content = b'{"prompt": "a", "custom_id": "x"}\n{"prompt": "b", "custom_id": "x"}\n'

    first, second = reader(tmp_path, content).read()

    assert isinstance(first, Record)
    assert second == Invalid(
        line=2,
        offset=34,
        length=33,
        input={"prompt": "b", "custom_id": "x"},
        custom_id="x",
        code="duplicate_custom_id",
        message="line 1 has the custom_id x already: give each record its own",
        pointer="/custom_id",
    )


@pytest.mark.parametrize(
    ("format", "content", "found"),
    [
        (Format.JSONL, b'{"prompt":"a","custom_id":"x"}\n' * 3, [(2, "line 1"), (3, "line 1")]),
        (Format.JSONL, b'{"prompt":"a","custom_id":7}\n{"prompt":"a","custom_id":"7"}',
         [(2, "line 1")]),
        (Format.JSONL, b'{"prompt":"a","custom_id":"\\u0078"}\n{"prompt":"a","custom_id":"x"}',
         [(2, "line 1")]),
        (Format.JSONL, b'{"prompt":"a","custom_id":"x"}\n{"prompt":"a","\\u0063ustom_id":"x"}',
         [(2, "line 1")]),
        (Format.JSONL, b'{"custom_id":"x"}\n{"prompt":"a","custom_id":"x"}', [(2, "line 1")]),
        (Format.JSONL, b'\xef\xbb\xbf{"prompt":"a","custom_id":"x"}\n\n{"prompt":"a",'
         b'"custom_id":"x"}', [(3, "line 1")]),
        (Format.JSONL, b'{"prompt":"a","custom_id":"x"}\n{"prompt":"a","custom_id":"X"}', []),
        (Format.JSONL, b'{"prompt":"a","custom_id":null}\n' * 3, []),
        (Format.JSONL, b'{"prompt":"a","custom_id":""}\n' * 3, []),
        (Format.JSONL, b'{"prompt":"a"}\n' * 3, []),
        (Format.JSONL, b'{"line":9,"custom_id":"x","endpoint":"generate","status":"failed",'
         b'"error":{},"attempts":1,"input":{"prompt":"a"}}\n' * 2, [(2, "line 1")]),
        (Format.CSV, b'prompt,custom_id\n"a\nb",x\na,y\na,x\n', [(5, "line 2")]),
        (Format.CSV, b"prompt,custom_id\na,\na,\na", []),
        (Format.CSV, b"prompt,custom_id\na,x,extra\na,x\n", [(3, "line 2")]),
        (Format.CSV, b"prompt,id\na,x\na,x\n", []),
        (Format.CSV, b"custom_id,prompt\n\xef\xbb\xbfx,a\nx,a\n\xef\xbb\xbfx,a\n",
         [(4, "line 2")]),
        (Format.TEXT, b"x\nx\n", []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("skipped", [0, 2])
def test_a_custom_id_is_taken_by_the_first_record_that_has_it(
    tmp_path: Path, format: Format, content: bytes, found: list[tuple[int, str]], skipped: int
) -> None:
    got = duplicates(reader(tmp_path, content, format), lambda line: line <= skipped)

    assert got == [one for one in found if one[0] > skipped]


def test_a_record_with_a_fault_of_its_own_keeps_that(tmp_path: Path) -> None:
    content = b'{"prompt": "a", "custom_id": "x"}\n{"custom_id": "x"}\n'

    _, second = reader(tmp_path, content).read()

    assert isinstance(second, Invalid)
    assert second.code == "missing_field"


def test_each_reading_finds_the_same_duplicates(tmp_path: Path) -> None:
    found = reader(tmp_path, b'{"prompt": "a", "custom_id": "x"}\n' * 2)

    assert duplicates(found) == duplicates(found) == [(2, "line 1")]


def test_found_again_by_its_position_a_duplicate_is_a_record(tmp_path: Path) -> None:
    found = reader(tmp_path, b'{"prompt": "a", "custom_id": "x"}\n' * 2)

    _, second = found.read()

    assert found.at(second.line, second.offset, second.length) == Record(
        2, 34, 33, {"prompt": "a", "custom_id": "x"}, "a", "x", {}
    )


def test_a_file_that_became_shorter_makes_no_false_alarm(tmp_path: Path) -> None:
    records = reader(tmp_path, b'{"prompt": "a", "custom_id": "x"}\n' * 2).read()
    next(records)
    (tmp_path / "input").write_bytes(b"")

    assert isinstance(next(records), Record)  # it was read ahead, and cannot be compared


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=30),
    st.sampled_from([0, 1, 1 << 20, (1 << 32) - 1, None]),
    st.sampled_from([Format.JSONL, Format.CSV]),
)
@settings(max_examples=200, deadline=None)
def test_ids_that_share_a_hash_are_no_duplicates(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[tuple[str, bool]],
    hashed: int | None,
    format: Format,
) -> None:
    if format is Format.CSV:
        rows = ["prompt,custom_id", *(f'"p\np",{custom_id}' for custom_id, _ in records)]
        lines = [2 + 2 * at for at in range(len(records))]
    else:
        rows = [f'{{"prompt": "p", "custom_id": "{custom_id}"}}' for custom_id, _ in records]
        lines = [1 + at for at in range(len(records))]
    expected, first = [], dict[str, int]()
    for line, (custom_id, skipped) in zip(lines, records, strict=True):
        if custom_id in first and not skipped:
            expected.append((line, f"line {first[custom_id]}"))
        first.setdefault(custom_id, line)
    skips = {line for line, (_, skipped) in zip(lines, records, strict=True) if skipped}

    with pytest.MonkeyPatch.context() as patch:
        if hashed is not None:
            patch.setattr(seen, "_hash", lambda custom_id: hashed)
        found = reader(tmp_path_factory.getbasetemp(), "\n".join(rows).encode(), format)

        assert duplicates(found, skips.__contains__) == expected


def test_an_id_takes_at_most_sixteen_bytes() -> None:
    ids = SeenIds(lambda line, offset: None)
    gc.collect()
    tracemalloc.start()
    for number in range(100_000):
        assert ids.first_line(f"a-rather-long-custom-id-{number:0100}", number, number) is None
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    # Beside them the chunks themselves, which a larger file does not have more of.
    assert taken < 100_000 * 16 + 1_500_000


def test_the_places_of_a_very_large_file_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []

    def custom_id_at(line: int, offset: int) -> str:
        read.append((line, offset))
        return "a"

    monkeypatch.setattr(seen, "_hash", lambda custom_id: (1 << 32) - 1)
    ids = SeenIds(custom_id_at)

    assert ids.first_line("a", 2**32 - 1, 2**44 - 1) is None
    assert ids.first_line("a", 7, 7) == 2**32 - 1
    assert read == [(2**32 - 1, 2**44 - 1)]


def test_many_records_of_one_id_are_found_in_reasonable_time(tmp_path: Path) -> None:
    row = orjson.dumps({"prompt": "a", "custom_id": "x"}) + b"\n"

    assert len(duplicates(reader(tmp_path, row * 20_000))) == 19_999

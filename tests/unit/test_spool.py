import gzip
import io
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.producer import spool as spooling
from millpond.producer.records import BadInput
from millpond.producer.spool import plain_name, spool

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstd.compress}
SKIPPABLE = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"


def spooled(folder: Path, content: bytes, name: str = "input") -> bytes:
    (folder / name).write_bytes(content)
    return spool(folder / name, folder / "target").read_bytes()


def refused(folder: Path, content: bytes) -> str:
    with pytest.raises(BadInput) as error:
        spooled(folder, content)
    assert sorted(path.name for path in folder.iterdir()) == ["input"]
    return str(error.value)


# What is read


@pytest.mark.parametrize(
    "content", [b"", b"a", b"hello\n", b"\x1f", b"\x28\xb5\x2f", b"PK\x03\x04"]
)
@pytest.mark.parametrize("name", ["input", "input.gz", "input.zst"])
def test_a_plain_file_is_read_where_it_is_whatever_its_name(
    tmp_path: Path, content: bytes, name: str
) -> None:
    (tmp_path / name).write_bytes(content)

    assert spool(tmp_path / name, tmp_path / "target") == tmp_path / name
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("content", [b"", b"a", b"hello\n" * 500_000, os.urandom(300_000)])
@pytest.mark.parametrize("name", ["input", "input.jsonl"])
def test_a_packed_file_is_unpacked_whatever_its_name(
    tmp_path: Path, packing: str, content: bytes, name: str
) -> None:
    assert spooled(tmp_path, PACK[packing](content), name) == content
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "target"]


@pytest.mark.parametrize("packing", PACK)
def test_a_file_may_be_packed_in_pieces(tmp_path: Path, packing: str) -> None:
    pack = PACK[packing]

    assert spooled(tmp_path, pack(b"a\n") + pack(b"") + pack(b"b\n") * 1_000) == (
        b"a\n" + b"b\n" * 1_000
    )


def test_gzip_data_may_be_padded_with_zeros_as_on_tapes(tmp_path: Path) -> None:
    assert spooled(tmp_path, gzip.compress(b"a") + bytes(1_000)) == b"a"


def test_zstd_frames_that_are_to_be_skipped_are(tmp_path: Path) -> None:
    frame = zstd.compress(b"a")

    assert spooled(tmp_path, SKIPPABLE + frame + SKIPPABLE + frame) == b"aa"


@pytest.mark.parametrize("content", [b"", b"a", b"ab\n" * 500_000])
@pytest.mark.parametrize("pack", [bytes, *PACK.values()])
def test_a_pipe_is_copied_and_unpacked(
    tmp_path: Path, content: bytes, pack: Callable[[bytes], bytes]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(pack(content),))
    writer.start()

    path = spool(pipe, tmp_path / "target")
    writer.join(10)

    assert path == tmp_path / "target"
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"a\r\nb\xff", gzip.compress(b"a\r\nb\xff")], ids=["plain", "gz"]
)
def test_standard_input_is_copied_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    assert spool(None, tmp_path / "target").read_bytes() == b"a\r\nb\xff"
    assert not sys.stdin.closed


def test_a_target_that_is_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old and longer")

    assert spooled(tmp_path, gzip.compress(b"new")) == b"new"


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.sampled_from(sorted(PACK)))
@settings(max_examples=60, deadline=None)
def test_whatever_was_packed_comes_back(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], packing: str
) -> None:
    packed = b"".join(map(PACK[packing], pieces))

    assert spooled(tmp_path_factory.getbasetemp(), packed) == b"".join(pieces)


# What is refused


@pytest.mark.parametrize("packing", PACK)
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path, packing: str) -> None:
    packed = PACK[packing](os.urandom(200) * 3)

    for length in range(4, len(packed)):
        assert f"is cut off: its {packing[:1]}" in refused(tmp_path, packed[:length])


def test_a_cut_off_file_is_told_by_where_it_ends(tmp_path: Path) -> None:
    whole = gzip.compress(b"a\n" * 1_000)

    assert refused(tmp_path, whole + whole[:-1]) == (
        f"{tmp_path / 'input'} is cut off: its gzip data ends too early, at byte "
        f"{2 * len(whole) - 1} and after 4,000 bytes of content. Fetch or pack it again"
    )


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("garbage", [b"\n", b"garbage", b"more than a header of garbage" * 100])
def test_what_follows_the_packed_data_is_refused(
    tmp_path: Path, packing: str, garbage: bytes
) -> None:
    message = refused(tmp_path, PACK[packing](b"a" * 5_000) + garbage)

    assert str(tmp_path / "input") in message
    assert "after 5,000 bytes of content" in message


@pytest.mark.parametrize("packing", PACK)
def test_a_damaged_file_is_refused_and_told_by_how_far_it_was_good(
    tmp_path: Path, packing: str
) -> None:
    pieces = [PACK[packing](os.urandom(100_000)) for _ in range(20)]
    packed = b"".join([*pieces[:10], b"\1" * 40, *pieces[11:]])

    message = refused(tmp_path, packed)

    assert "after 1,000,000 bytes of content" in message
    assert "is damaged, or has something else behind its" in message


def test_a_checksum_that_is_wrong_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"a" * 1_000))
    packed[-6] ^= 1

    assert "CRC check failed" in refused(tmp_path, bytes(packed))


@pytest.mark.parametrize("pack", PACK.values())
def test_a_bomb_is_refused_before_it_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(spooling, "MAX_SPOOL_BYTES", 1_000_000)

    assert spooled(tmp_path, pack(bytes(1_000_000))) == bytes(1_000_000)
    (tmp_path / "target").unlink()
    assert "holds more than 1,000,000 bytes" in refused(tmp_path, pack(bytes(1_000_001)))


def test_what_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "MAX_SPOOL_BYTES", 1_000_000)

    with pytest.raises(BadInput, match=r"/dev/zero holds more than 1,000,000 bytes"):
        spool(Path("/dev/zero"), tmp_path / "target")


@pytest.mark.parametrize("pack", PACK.values())
def test_what_is_unpacked_is_never_in_memory_as_a_whole(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "input").write_bytes(pack(bytes(64_000_000)))

    tracemalloc.start()
    path = spool(tmp_path / "input", tmp_path / "target")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert path.stat().st_size == 64_000_000
    assert peak < 8_000_000


def test_what_cannot_be_read_or_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(gzip.compress(b"a"))
    target = tmp_path / "target"
    cases = {
        (tmp_path, target): "is a directory, not a file",
        (tmp_path / "none", target): "there is no file",
        (tmp_path / "file" / "below", target): "cannot be read: Not a directory",
        (tmp_path / "file", tmp_path / "none" / "t"): "t cannot be written: No such file",
        (tmp_path / "file", tmp_path / "file" / "t"): "t cannot be written: Not a directory",
    }
    for (source, to), complaint in cases.items():
        with pytest.raises(BadInput, match=complaint):
            spool(source, to)

    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(BadInput, match="there is no standard input"):
        spool(None, target)


def test_a_target_stays_as_it_was_when_the_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")

    with pytest.raises(BadInput):
        spooled(tmp_path, gzip.compress(b"new")[:-1])

    assert (tmp_path / "target").read_bytes() == b"old"


# The name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.jsonl", "a.jsonl"),
        ("a.jsonl.gz", "a.jsonl"),
        ("in/a.csv.zst", "a.csv"),
        ("a.CSV.GZ", "a.CSV"),
        ("a.gz", "a"),
        ("a.tar.gz.gz", "a.tar.gz"),
        (".gz", ".gz"),
        ("gz", "gz"),
    ],
)
def test_the_plain_name_is_without_the_packing(path: str, name: str) -> None:
    assert plain_name(Path(path)) == name

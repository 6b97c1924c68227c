"""Files of rows: safe when they are said to be, and copied where the user wants them."""

from pathlib import Path

import pytest

from millpond.run.rows import ForeignFile, RowFile, UnusableFile, write_lines


def row(line: int, size: int = 20) -> bytes:
    return b'{"line":%d,"text":"%s"}' % (line, b"x" * size)


def filled(own: Path, copy: Path | None, *lines: int) -> None:
    file = RowFile(own, copy)
    file.append([row(line) for line in lines])
    file.sync()
    file.close()


def test_rows_are_counted_and_their_lines_known_again_at_the_next_start(tmp_path: Path) -> None:
    filled(tmp_path / "own", None, 3, 1)

    again = RowFile(tmp_path / "own")
    again.append([row(12)])
    again.sync()

    assert again.rows == 3
    assert list(again.lines()) == [3, 1, 12]
    assert (tmp_path / "own").read_bytes() == b"".join(row(n) + b"\n" for n in (3, 1, 12))


def test_a_row_torn_off_at_the_end_is_cut(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_bytes(row(1) + b"\n" + row(2)[:-3])

    file = RowFile(own)

    assert own.read_bytes() == row(1) + b"\n"
    assert (file.rows, list(file.lines())) == (1, [1])


def test_a_file_that_is_one_torn_row_is_empty_even_if_the_row_is_long(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_bytes(row(1, 3 * 1024 * 1024))

    assert RowFile(own).rows == 0
    assert own.read_bytes() == b""


def test_what_is_synced_can_be_read_in_the_copy(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "own", tmp_path / "copy")
    file.append([row(1), row(2)])
    file.sync()

    assert (tmp_path / "copy").read_bytes() == (tmp_path / "own").read_bytes() != b""


def test_nothing_is_in_the_copy_that_is_not_safe_in_the_original(tmp_path: Path) -> None:
    """If the machine stops, the copy must not be ahead: it would be taken for somebody else's."""
    file = RowFile(tmp_path / "own", tmp_path / "copy")
    file.append([row(line, 100_000) for line in range(1, 10)])

    assert (tmp_path / "copy").read_bytes() == b""

    file.sync()
    file.sync()
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "own").read_bytes() != b""


@pytest.mark.parametrize("kept", [0, 1, len(row(1)), len(row(1)) + 1, len(row(1)) + 9])
def test_a_copy_that_is_a_beginning_is_completed_wherever_it_was_cut_off(
    tmp_path: Path, kept: int
) -> None:
    own, copy = tmp_path / "own", tmp_path / "copy"
    filled(own, None, 1, 2, 3)
    copy.write_bytes(own.read_bytes()[:kept])

    RowFile(own, copy)

    assert copy.read_bytes() == own.read_bytes()


def test_a_copy_that_was_deleted_is_written_again(tmp_path: Path) -> None:
    own, copy = tmp_path / "own", tmp_path / "new folder" / "copy"
    filled(own, None, 1, 2, 3)

    file = RowFile(own, copy)
    file.append([row(4)])
    file.sync()

    assert copy.read_bytes() == own.read_bytes()
    assert copy.read_bytes().count(b"\n") == 4


@pytest.mark.parametrize(
    "foreign",
    [
        b"my notes",
        b"my notes\n",
        row(7) + b"\n",
        row(1) + b"\n" + row(3) + b"\n",
        row(1) + b"\n" + row(2) + b"\n" + b"one line too many",
    ],
)
def test_a_copy_that_holds_something_else_is_refused_and_left_alone(
    tmp_path: Path, foreign: bytes
) -> None:
    own, copy = tmp_path / "own", tmp_path / "copy"
    filled(own, None, 1, 2)
    copy.write_bytes(foreign)

    with pytest.raises(ForeignFile, match="holds something else"):
        RowFile(own, copy)

    assert copy.read_bytes() == foreign
    assert own.read_bytes() == row(1) + b"\n" + row(2) + b"\n"


def test_a_file_of_the_users_is_refused_by_a_run_without_rows_too(tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"my notes")

    with pytest.raises(ForeignFile):
        RowFile(tmp_path / "own", tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == b"my notes"


def test_a_copy_that_cannot_be_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="cannot be written: Is a directory"):
        RowFile(tmp_path / "own", tmp_path)


def test_a_file_written_anew_replaces_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_bytes(b"old and longer than the new one\n")

    write_lines(tmp_path / "ledger", [b"a", b"b"])

    assert (tmp_path / "ledger").read_bytes() == b"a\nb\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ledger"]

"""An input as a plain regular file, which can be read more than once.

    a plain file                 ──▶ itself
    a pipe, standard input       ──▶ copied      ─┐
    .gz, .zst, in any of these   ──▶ unpacked    ─┴▶ target

What is packed is told by its first bytes; neither packing begins like a text.
"""

import gzip
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from millpond.producer.bad_input import BadInput

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: A few bytes can be packed that unpack to more than any disk holds.
MAX_SPOOL_BYTES = 64 * 1024**3

_BLOCK_BYTES = 1024 * 1024
_MAGIC_BYTES = 4
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
#: The last three of a skippable frame, with which some programs begin. The first is 0x50 to 0x5f.
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"


def spool(source: Path | None, target: Path) -> Path:
    """The path of the plain input: `source` itself, or `target`, written anew.

    None is standard input. Raises BadInput for what cannot be read or unpacked; then no target was
    written, and one that was there is as it was.
    """
    name = "standard input" if source is None else str(source)
    with _opened(source) as file:
        beginning = _beginning_of(file, name)
        packed = _packing(beginning)
        if packed is None and source is not None and source.is_file():
            return source
        _write(target, _blocks(name, _Counted(file, beginning), packed))
    return target


def plain_name(path: Path) -> str:
    """The name of what is in the file: `a.csv` for `a.csv.gz`."""
    return path.stem if path.suffix.lower() in (".gz", ".zst") else path.name


def _opened(source: Path | None) -> AbstractContextManager[BufferedReader]:
    if source is None:
        if sys.stdin is None:
            raise BadInput("there is no standard input")
        return nullcontext(cast(BufferedReader, sys.stdin.buffer))
    try:
        if stat.S_ISDIR(source.stat().st_mode):
            raise BadInput(f"{source} is a directory, not a file")
        return source.open("rb")
    except FileNotFoundError:
        raise BadInput(f"there is no file {source}") from None
    except OSError as error:
        raise BadInput(f"{source} cannot be read: {error.strerror}") from error


def _beginning_of(file: BufferedReader, name: str) -> bytes:
    try:
        return file.read(_MAGIC_BYTES)
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror}") from error


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Counted:
    """A file of which the beginning was read already, and how far it was read."""

    def __init__(self, file: _Readable, beginning: bytes) -> None:
        self._file = file
        self._beginning = beginning
        self.count = 0

    def read(self, size: int = -1, /) -> bytes:
        piece = self._beginning[:size] if size >= 0 else self._beginning
        self._beginning = self._beginning[len(piece) :]
        if not piece:
            piece = self._file.read(size)
        self.count += len(piece)
        return piece


def _packing(beginning: bytes) -> str | None:
    if beginning.startswith(_GZIP_MAGIC):
        return "gzip"
    skippable = beginning[1:] == _ZSTD_SKIPPABLE and beginning[0] >> 4 == 5
    return "zstd" if beginning == _ZSTD_MAGIC or skippable else None


def _blocks(name: str, file: _Counted, packed: str | None) -> Iterator[bytes]:
    total = 0
    try:
        for block in _unpacked(file, packed):
            total += len(block)
            if total > MAX_SPOOL_BYTES:
                raise BadInput(
                    f"{name} holds more than {MAX_SPOOL_BYTES:,} bytes: split it, or unpack it "
                    "to a file and give that"
                )
            yield block
    except EOFError:
        raise BadInput(
            f"{name} is cut off: its {packed} data ends too early, at byte {file.count:,} "
            f"and after {total:,} bytes of content. Fetch or pack it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error, zstd.ZstdError) as error:
        raise BadInput(
            f"{name} is damaged, or has something else behind its {packed} data: not after byte "
            f"{file.count:,}, and after {total:,} bytes of content ({error}). "
            "Fetch or pack it again"
        ) from error
    except OSError as error:
        raise BadInput(
            f"{name} cannot be read on from byte {file.count:,}: {error.strerror}"
        ) from error


def _unpacked(file: _Counted, packed: str | None) -> Iterator[bytes]:
    # With `read1` nothing that was unpacked is lost when what follows it cannot be.
    read: Callable[[int], bytes]
    stream = cast(BinaryIO, file)
    match packed:
        case "gzip":
            read = gzip.GzipFile(fileobj=stream, mode="rb").read1
        case "zstd":
            read = zstd.ZstdFile(stream, "rb").read1
        case _:
            read = file.read
    while block := read(_BLOCK_BYTES):
        yield block


def _write(target: Path, blocks: Iterable[bytes]) -> None:
    draft = target.with_name(target.name + ".new")
    try:
        with draft.open("wb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        raise BadInput(f"{target} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)

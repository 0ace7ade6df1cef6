"""The bytes of a FASTA file, whatever it is packed in: plain, bgzip (with block offsets) or plain gzip."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from genossm.core.errors import InputFileError

Packing = Literal["plain", "bgzip", "gzip"]

_PIECE = 1 << 22
_GZIP_MAGIC = b"\x1f\x8b"
_HEADER = struct.Struct("<BBBBIBBH")
_EXTRA_FLAG = 4
# Every complete bgzip file ends with this empty block (SAM specification, section 4.1.2).
END_BLOCK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def packing_of(path: Path) -> Packing:
    """How a file is packed, by its first bytes and not by its name.

    Raises: InputFileError if it is missing, a directory, unreadable or empty.
    """
    if path.is_dir():
        raise InputFileError(f"{path} is a directory; wanted a FASTA file, or a genome store ending in .zarr.")
    try:
        with open(path, "rb") as handle:
            head = handle.read(18)
    except FileNotFoundError:
        raise InputFileError(f"No file at {path}. Check the path.") from None
    except OSError as error:
        raise InputFileError(f"Cannot read {path}: {error.strerror}.") from error
    if not head:
        raise InputFileError(f"{path} is empty; wanted a FASTA file.")
    if not head.startswith(_GZIP_MAGIC):
        return "plain"
    return "bgzip" if len(head) == 18 and head[3] & _EXTRA_FLAG and head[12:14] == b"BC" else "gzip"


def head_of(path: Path, size: int) -> bytes:
    """The first `size` unpacked bytes, fewer if the file is shorter or damaged there.

    Raises: InputFileError if it is missing, a directory, unreadable or empty.
    """
    packed = packing_of(path) != "plain"
    with open(path, "rb") as handle:
        head = handle.read(size)
    if not packed:
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, size)
    except zlib.error:
        # Whoever reads the file says what is wrong with it.
        return b""


def require_end_block(path: Path) -> None:
    """Raise `InputFileError` if a bgzip file lacks its end-of-file block, so was cut off."""
    with open(path, "rb") as handle:
        handle.seek(0, 2)
        handle.seek(max(0, handle.tell() - len(END_BLOCK)))
        if handle.read() != END_BLOCK:
            raise _truncated(path)


def pieces(path: Path, on_block: Callable[[int, int], None] | None = None) -> Iterator[bytes]:
    """The unpacked bytes of a file, piece by piece.

    on_block: for bgzip, called with (offset in the file, offset in the unpacked bytes) at the start of each block
        that is not empty.
    Raises: InputFileError if the file is cut off or damaged.
    """
    packing = packing_of(path)
    try:
        if packing == "gzip":
            with gzip.open(path, "rb") as unpacked:
                yield from iter(lambda: unpacked.read(_PIECE), b"")
            return
        with open(path, "rb") as handle:
            if packing == "plain":
                yield from iter(lambda: handle.read(_PIECE), b"")
            else:
                yield from _blocks(handle, path, on_block)
    except EOFError:
        raise _truncated(path) from None
    except (zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise InputFileError(f"{path} is damaged and cannot be unpacked ({error}). Fetch it again.") from error


def _blocks(handle: BinaryIO, path: Path, on_block: Callable[[int, int], None] | None) -> Iterator[bytes]:
    packed = unpacked = 0
    last = b""
    while header := handle.read(_HEADER.size):
        if len(header) < _HEADER.size:
            raise _truncated(path)
        size = _block_size(header, extra := handle.read(_HEADER.unpack(header)[-1]), path)
        rest = handle.read(size - len(header) - len(extra))
        if len(rest) < size - len(header) - len(extra):
            raise _truncated(path)
        data = zlib.decompress(rest[:-8], wbits=-15)
        if zlib.crc32(data) != int.from_bytes(rest[-8:-4], "little"):
            raise InputFileError(
                f"{path} is damaged: the checksum of the block at byte {packed} is wrong. Fetch it again."
            )
        if on_block and data:
            on_block(packed, unpacked)
        packed, unpacked, last = packed + size, unpacked + len(data), header + extra + rest
        if data:
            yield data
    if last != END_BLOCK:
        raise _truncated(path)


def _block_size(header: bytes, extra: bytes, path: Path) -> int:
    if not header.startswith(_GZIP_MAGIC) or not header[3] & _EXTRA_FLAG:
        raise InputFileError(
            f"{path} is damaged: something follows its bgzip blocks. Fetch it again, or recompress it."
        )
    place = 0
    while place + 4 <= len(extra):
        length = int.from_bytes(extra[place + 2 : place + 4], "little")
        if extra[place : place + 2] == b"BC":
            return int.from_bytes(extra[place + 4 : place + 6], "little") + 1
        place += 4 + length
    raise InputFileError(f"{path} is damaged: a block does not say its size. Fetch it again, or recompress it.")


def _truncated(path: Path) -> InputFileError:
    return InputFileError(f"{path} is truncated: it ends in the middle of its compressed data. Fetch it again.")

"""Reading a one-dimensional uint8 Zarr array straight from its chunk files, on this machine or behind a URL.

A window of a megabase is five chunks. Zarr's own indexing spends more time on scheduling them than on unpacking
them, so the three codecs that stores are built with are unpacked here, into place; any other array is read through
Zarr itself. A chunk that is missing is an error, never silence or N.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genossm.core.errors import InputFileError
from genossm.genome.remote import is_remote, read_file, read_together, zarr_location
from genossm.genome.shards import ShardedChunks, sharding
from genossm.sequence.tokenizer import translate_into

Unpack = Callable[[bytes, npt.NDArray[np.uint8]], None]

_KEPT_BYTES = 1 << 22
_REMOTE_CHUNKS = 32
_THREAD = threading.local()


class ChunkedBytes:
    """A uint8 array of a genome store, opened for reading.

    Raises: InputFileError if it is no such array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        metadata = _metadata(path)
        self.length = int(metadata["shape"][0])
        self.chunk_length = file_length = int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
        self._shards: ShardedChunks | None = None
        inner = sharding(metadata)
        if inner is not None:
            self.chunk_length = int(inner["chunk_shape"][0])
            self._shards = ShardedChunks(path, file_length // self.chunk_length)
            metadata = {**metadata, "codecs": inner["codecs"]}
        self._unpack = _unpacker(metadata)
        # Small windows come in crowds, one a variant: they share the last few unpacked chunks.
        self._kept = lru_cache(maxsize=max(1, _KEPT_BYTES // self.chunk_length))(self._chunk)

    def read_into(self, start: int, end: int, table: bytes, out: npt.NDArray[np.uint8]) -> None:
        """Write `table[value]` of elements start to end into `out` (end - start,)."""
        if self._unpack is None:
            translate_into(_through_zarr(self.path, start, end), table, out)
            return
        small = end - start <= self.chunk_length
        buffer = None if small else _scratch(self.chunk_length)
        indices = range(start // self.chunk_length, (end - 1) // self.chunk_length + 1)
        chunks = map(self._kept, indices) if buffer is None else self._chunks(indices, buffer)
        for index, chunk in zip(indices, chunks):
            first = index * self.chunk_length
            low, high = max(start, first), min(end, first + self.chunk_length)
            translate_into(chunk[low - first : high - first].data, table, out[low - start : high - start])

    def _chunk(self, index: int) -> npt.NDArray[np.uint8]:
        """One chunk in memory of its own."""
        (chunk,) = self._chunks(range(index, index + 1), np.empty(self.chunk_length, dtype=np.uint8))
        return chunk

    def _chunks(self, indices: range, buffer: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
        """Chunks one after the other, unpacked into `buffer` each."""
        at_once = _REMOTE_CHUNKS if is_remote(self.path) else 1
        for first in range(0, len(indices), at_once):
            group = indices[first : first + at_once]
            try:
                for packed in self._packed(group):
                    self._unpack(packed, buffer)  # type: ignore[misc]
                    yield buffer
            except (OSError, RuntimeError, ValueError) as error:
                raise InputFileError(
                    f"{self._file(group[0])}: a piece of the genome store is missing or damaged ({error}). Build it "
                    "again."
                ) from error

    def _file(self, index: int) -> Path:
        return self.path / "c" / str(index) if self._shards is None else self._shards.file(index)

    def _packed(self, indices: range) -> list[bytes]:
        """Chunks as they are stored."""
        if self._shards is not None:
            return self._shards.read(indices)
        paths = [self._file(index) for index in indices]
        return read_together(paths) if is_remote(self.path) else [read_file(path) for path in paths]


def _scratch(length: int) -> npt.NDArray[np.uint8]:
    """This thread's buffer of at least `length`, cut to it: new memory would cost a window a fifth of its time."""
    buffer = getattr(_THREAD, "buffer", None)
    if buffer is None or len(buffer) < length:
        buffer = _THREAD.buffer = np.empty(length, dtype=np.uint8)
    return buffer[:length]


def _metadata(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(read_file(path / "zarr.json"))
        if metadata["data_type"] != "uint8" or len(metadata["shape"]) != 1:
            raise InputFileError(f"{path} is no one-dimensional uint8 array. Build the store again.")
        return metadata
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputFileError(
            f"{path}: a part of the genome store is missing or damaged ({error!r}). Build it again."
        ) from error


def _unpacker(metadata: dict[str, Any]) -> Unpack | None:
    """How a chunk file is unpacked, or None if only Zarr knows."""
    keys = metadata["chunk_key_encoding"]
    if keys["name"] != "default" or keys.get("configuration", {}).get("separator", "/") != "/":
        return None
    names = tuple(codec["name"] for codec in metadata["codecs"])
    return {("bytes",): _unpack_plain, ("bytes", "blosc"): _unpack_blosc, ("bytes", "zstd"): _unpack_zstd}.get(names)


def _unpack_plain(packed: bytes, out: npt.NDArray[np.uint8]) -> None:
    _require_length(len(packed), len(out))
    out[:] = np.frombuffer(packed, dtype=np.uint8)


def _unpack_blosc(packed: bytes, out: npt.NDArray[np.uint8]) -> None:
    from numcodecs.blosc import decompress

    # Blosc believes its header; a file that was cut off would be read past its end.
    _require_length(len(packed), int.from_bytes(packed[12:16], "little"))
    _require_length(int.from_bytes(packed[4:8], "little"), len(out))
    decompress(packed, out)


def _unpack_zstd(packed: bytes, out: npt.NDArray[np.uint8]) -> None:
    from numcodecs.zstd import decompress

    _unpack_plain(decompress(packed), out)


def _require_length(found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"{found} bytes, wanted {wanted}")


def _through_zarr(path: Path, start: int, end: int) -> memoryview:
    import zarr

    array = zarr.open_array(zarr_location(path), mode="r")
    return np.ascontiguousarray(array[start:end]).data

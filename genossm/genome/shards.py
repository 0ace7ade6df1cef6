"""Files of a Zarr v3 array that hold several chunks each, with a table of their places at the end ("sharding")."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genossm.genome.remote import is_remote, read_ranges

_ENTRY_BYTES, _CHECKSUM_BYTES = 16, 4
_KEPT_TABLES = 256


class ShardedChunks:
    """Packed chunks by number.

    path: of the array, on this machine or behind a URL.   per_shard: chunks in a file.
    """

    def __init__(self, path: Path, per_shard: int) -> None:
        self.path, self.per_shard = path, per_shard
        self._table = lru_cache(maxsize=_KEPT_TABLES)(self._read_table)

    def file(self, index: int) -> Path:
        """The file that holds a chunk."""
        return self.path / "c" / str(index // self.per_shard)

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Packed chunks. Raises: OSError or ValueError if one is missing or cut off."""
        entries = [self._table(index // self.per_shard)[index % self.per_shard].tolist() for index in indices]
        ends = [offset + size for offset, size in entries]
        found = _ranges([self.file(index) for index in indices], [offset for offset, _ in entries], ends)
        for index, packed, (_, size) in zip(indices, found, entries):
            if not size or len(packed) != size:
                raise ValueError(f"chunk {index} has {len(packed)} of {size} bytes")
        return found

    def _read_table(self, number: int) -> npt.NDArray[np.uint64]:
        """(per_shard, 2) offset and size of each chunk of a file, both 0 where a chunk is missing."""
        wanted = self.per_shard * _ENTRY_BYTES
        (found,) = _ranges([self.path / "c" / str(number)], [-wanted - _CHECKSUM_BYTES], [None])
        table = np.frombuffer(found[:wanted], "<u8").reshape(self.per_shard, 2)
        return np.where(table[:, 1:] == np.iinfo(np.uint64).max, 0, table)


def _ranges(paths: Sequence[Path], starts: Sequence[int], ends: Sequence[int | None]) -> list[bytes]:
    """Bytes of files; a start below 0 counts from the end. Raises: OSError."""
    if is_remote(paths[0]):
        return read_ranges(paths, starts, ends)
    found = []
    for path, start, end in zip(paths, starts, ends):
        with open(path, "rb") as file:
            file.seek(start, os.SEEK_SET if start >= 0 else os.SEEK_END)
            # A table that is damaged may say any size.
            size = os.fstat(file.fileno()).st_size
            found.append(file.read(-1 if end is None else min(end, size) - start))
    return found


def sharding(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How an array's files are divided: its "sharding_indexed" configuration, if it is one that is read here."""
    if [codec["name"] for codec in metadata["codecs"]] != ["sharding_indexed"]:
        return None
    configuration = metadata["codecs"][0]["configuration"]
    table = [codec["name"] for codec in configuration["index_codecs"]]
    plain = table == ["bytes", "crc32c"] and configuration.get("index_location", "end") == "end"
    return configuration if plain else None

"""Files of a Zarr v3 array that hold several chunks each, with a table of their places at the end ("sharding")."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_ENTRY_BYTES, _CHECKSUM_BYTES = 16, 4
_KEPT_TABLES = 256


class ShardedChunks:
    """Packed chunks by number, read from a store on this machine.

    path: of the array.   per_shard: chunks in a file.
    """

    def __init__(self, path: Path, per_shard: int) -> None:
        self.path, self.per_shard = path, per_shard
        self._table = lru_cache(maxsize=_KEPT_TABLES)(self._read_table)

    def read(self, index: int) -> bytes:
        """One packed chunk. Raises: OSError or ValueError if it is missing or cut off."""
        number, within = divmod(index, self.per_shard)
        offset, size = self._table(number)[within].tolist()
        with open(self._file(number), "rb") as file:
            file.seek(offset)
            packed = file.read(size)
        if len(packed) != size:
            raise ValueError(f"chunk {index} has {len(packed)} of {size} bytes")
        return packed

    def _file(self, number: int) -> Path:
        return self.path / "c" / str(number)

    def _read_table(self, number: int) -> npt.NDArray[np.uint64]:
        """(per_shard, 2) offset and size of each chunk of a file; one that is missing has none that can be true."""
        wanted = self.per_shard * _ENTRY_BYTES
        with open(self._file(number), "rb") as file:
            file.seek(-(wanted + _CHECKSUM_BYTES), os.SEEK_END)
            table = np.frombuffer(file.read(wanted), "<u8").reshape(self.per_shard, 2)
            end = file.tell()
        present = table[:, 1] != np.iinfo(np.uint64).max
        if (table[present].sum(axis=1) > end).any():
            raise ValueError(f"the table of shard {number} points past its end")
        return np.where(present[:, None], table, 0)


def sharding(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How an array's files are divided: its "sharding_indexed" configuration, if it is one that is read here."""
    if [codec["name"] for codec in metadata["codecs"]] != ["sharding_indexed"]:
        return None
    configuration = metadata["codecs"][0]["configuration"]
    table = [codec["name"] for codec in configuration["index_codecs"]]
    plain = table == ["bytes", "crc32c"] and configuration.get("index_location", "end") == "end"
    return configuration if plain else None

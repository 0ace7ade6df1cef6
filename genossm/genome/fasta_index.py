"""Finding or making the index of a FASTA file, without writing beside a file that is not ours.

An index next to the file is used if it is not older than the file. Otherwise one is built in the user's cache
folder (`GENOSSM_CACHE`, else `XDG_CACHE_HOME`, else `~/.cache`), or in a temporary folder if that is read-only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

from genossm.core.atomic import atomic_file
from genossm.core.errors import InputFileError
from genossm.genome.fasta_records import records
from genossm.genome.raw import Packing


@dataclass(frozen=True)
class FastaIndex:
    """Where the index files are; temporary ones go when this object does."""

    fai: Path
    gzi: Path | None


def index_for(path: Path, packing: Packing) -> FastaIndex:
    """The index of a plain or bgzip FASTA file, built if there is none that can be trusted.

    Raises: InputFileError for a file that is no FASTA, or whose lines are uneven.
    """
    compressed = packing == "bgzip"
    beside = FastaIndex(Path(f"{path}.fai"), Path(f"{path}.gzi") if compressed else None)
    if _is_current(beside, path):
        return beside
    folder, key = _cache_folder(), _key(path)
    cached = FastaIndex(folder / f"{key}.fai", folder / f"{key}.gzi" if compressed else None)
    if cached.fai.is_file() and (cached.gzi is None or cached.gzi.is_file()):
        return cached
    fai, gzi = _build(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write(cached, fai, gzi)
    except OSError:
        temporary = tempfile.mkdtemp(prefix="genossm-index-")
        name = Path(temporary) / "genome"
        index = FastaIndex(name.with_suffix(".fai"), name.with_suffix(".gzi") if compressed else None)
        weakref.finalize(index, shutil.rmtree, temporary, ignore_errors=True)
        return _write(index, fai, gzi)


def _cache_folder() -> Path:
    own = os.environ.get("GENOSSM_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genossm"
    return base / "fasta-index"


def _key(path: Path) -> str:
    status = path.stat()
    identity = f"{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _is_current(index: FastaIndex, path: Path) -> bool:
    changed = path.stat().st_mtime_ns
    files = [index.fai, *([index.gzi] if index.gzi else [])]
    return all(file.is_file() and file.stat().st_mtime_ns >= changed for file in files)


def _build(path: Path) -> tuple[bytes, bytes]:
    blocks: list[tuple[int, int]] = []
    lines = []
    for record in records(path, on_block=lambda packed, unpacked: blocks.append((packed, unpacked))):
        shape = record.line_shape()
        if shape is None:
            raise InputFileError(
                f"{path}: lines of contig {record.name!r} are of uneven length, so positions cannot be looked up. "
                "Build a store from it, which reads any line length: genossm genome build FASTA -o STORE.zarr"
            )
        lines.append("\t".join(map(str, (record.name, len(record.sequence()), record.offset, *shape))) + "\n")
    # The first block stands at 0, 0 and is not listed.
    gzi = struct.pack("<Q", max(0, len(blocks) - 1)) + b"".join(struct.pack("<QQ", *block) for block in blocks[1:])
    return "".join(lines).encode(), gzi


def _write(index: FastaIndex, fai: bytes, gzi: bytes) -> FastaIndex:
    if index.gzi is not None:
        with atomic_file(index.gzi, force=True) as temporary:
            temporary.write_bytes(gzi)
    with atomic_file(index.fai, force=True) as temporary:
        temporary.write_bytes(fai)
    return index

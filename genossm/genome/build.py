"""Writing a genome store: a reference is streamed contig by contig, and the store appears when it is whole.

Chunk length and codec are chosen by measurement: human chr20 (63 Mb, GRCh37), windows of 1,048,576 and of 8,192 bases
at random places to token ids, every other one of the minus strand, one process on two quiet cores of an AMD EPYC 9004,
warm. Gb/s of either windows, bytes a base on disk:

    chunk      blosc-lz4             blosc-zstd            zstd                  none
    65,536     0.39, 0.063; 0.48     0.41, 0.071; 0.46     0.41, 0.066; 0.29     0.59, 0.201; 1.00
    131,072    0.53, 0.043; 0.48     0.39, 0.047; 0.46     0.43, 0.040; 0.29     0.66, 0.170; 1.00
    262,144    0.62, 0.027; 0.48     0.42, 0.029; 0.45     0.46, 0.025; 0.29     0.82, 0.143; 1.00
    1,048,576  0.36, 0.009; 0.48     0.35, 0.006; 0.45     0.36, 0.005; 0.28     0.67, 0.051; 1.02
    4,194,304  0.21, 0.004; 0.48     0.19, 0.002; 0.45     0.16, 0.002; 0.27     0.57, 0.013; 1.07

The default is blosc-lz4 with 262,144: compressed, and the fastest of these for megabase windows. The same windows from
bgzip FASTA 0.18, 0.033, through plain Zarr indexing 0.20, 0.009, through pyfaidx from plain FASTA 0.31, 0.221, through
pysam 0.64, 0.316, from a NumPy memmap 0.39, 0.368. A run differs from the next by a fifth and more: the default gave
0.47 to 0.71 in others. Reproduce: `python -m genossm.testing.benchmark_genome FASTA`.

Files of several chunks (sharding) are an option and not the default: the same chr20 with blosc-lz4 and 262,144 is 22
files instead of 247 in shards of 4,194,304, 10 in shards of 16,777,216, of the same size together, read at 0.55, 0.029
and 0.56, 0.044 Gb/s. They are for file systems and object stores that mind the number of files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from genossm.core.atomic import atomic_directory
from genossm.core.errors import ConfigError, UsageError
from genossm.core.provenance import Provenance
from genossm.core.strict import to_mapping
from genossm.genome.fasta_records import records
from genossm.genome.formats import format_of, open_source
from genossm.genome.layout import (
    ATTRIBUTE,
    KIND,
    N_RUNS,
    SCHEMA,
    SEQUENCE,
    SOFT_MASK,
    StoreAttributes,
    StoredContig,
    array_path,
)
from genossm.genome.names import ContigNames
from genossm.genome.remote import is_url
from genossm.genome.runs import Runs, reference_digest, survey, total
from genossm.genome.source import Source

Codec = Literal["blosc-lz4", "blosc-zstd", "zstd", "none"]
Progress = Callable[[str, int], None]

DEFAULT_CHUNK_LENGTH = 1 << 18
DEFAULT_CODEC: Codec = "blosc-lz4"
_RUN_CHUNK = 1 << 16
_IDENTITY = bytes(range(256))


@dataclass(frozen=True)
class StoreSummary:
    """What was built: bases over all contigs, wall-clock seconds."""

    path: Path
    contigs: int
    bases: int
    seconds: float
    reference_digest: str


def build(
    source: Path,
    target: Path,
    *,
    aliases: Mapping[str, str] | None = None,
    circular: Collection[str] = (),
    chunk_length: int = DEFAULT_CHUNK_LENGTH,
    codec: Codec = DEFAULT_CODEC,
    shard_length: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> StoreSummary:
    """Encode a FASTA (plain, bgzip or gzip, any line length), 2bit, GenBank or EMBL file as a Zarr v3 genome store.

    aliases: further names, alias to contig.   circular: contigs whose end joins their start, by any name; both are
        added to what the file itself says.
    chunk_length: bases a chunk.   shard_length: bases a file, a multiple of it; None for one chunk a file.
    progress: called with (contig, bases so far) after every contig.
    Memory: a few times the longest contig; a GenBank or EMBL file as a whole. A build that fails or is killed leaves
    nothing at `target`.
    Raises: InputFileError for a bad file or alias, OutputError / OutputExistsError, UsageError for a bad option.
    """
    _check_options(target, chunk_length, codec, shard_length)
    started = time.perf_counter()
    with atomic_directory(target, force=force, marker="zarr.json") as temporary:
        with _reading(source) as content:
            layout = _Layout(chunk_length, codec, shard_length)
            contigs = tuple(_write_contigs(content.letters, temporary, layout, progress))
            attributes = _attributes(
                source, contigs, {**content.aliases, **(aliases or {})}, {*content.circular, *circular}
            )
        _write_attributes(temporary, attributes)
    bases = sum(contig.length for contig in contigs)
    return StoreSummary(target, len(contigs), bases, time.perf_counter() - started, attributes.reference_digest)


@dataclass(frozen=True)
class _Layout:
    """Of the sequence's arrays."""

    chunk_length: int
    codec: Codec
    shard_length: int | None


@dataclass(frozen=True)
class _Content:
    """letters: (contig, its letters in the file's case), one contig in memory at a time where the format allows it."""

    letters: Iterator[tuple[str, bytes]]
    aliases: Mapping[str, str] = field(default_factory=dict)
    circular: Collection[str] = ()


@contextmanager
def _reading(path: Path) -> Iterator[_Content]:
    # A stream of FASTA takes what random access does not: gzip and uneven lines.
    if path.is_dir() or format_of(path) == "fasta":
        yield _Content((record.name, record.sequence()) for record in records(path))
        return
    with closing(open_source(path)) as source:
        yield _Content(
            ((contig, _letters(source, contig, length)) for contig, length in source.lengths.items()),
            source.aliases,
            source.circular,
        )


def _letters(source: Source, contig: str, length: int) -> bytes:
    letters = np.empty(length, dtype=np.uint8)
    source.read_into(contig, 0, length, _IDENTITY, letters)
    return letters.tobytes()


def _check_options(target: Path, chunk_length: int, codec: str, shard_length: int | None) -> None:
    if is_url(target):
        raise UsageError(f"A store is built on this machine and copied where it is to be; got the URL {target}.")
    if target.suffix != ".zarr":
        raise UsageError(f"A genome store's name ends in .zarr, got {target.name!r}. Call it {target.name}.zarr")
    if chunk_length < 1:
        raise ConfigError(f"chunk_length: got {chunk_length}, wanted at least 1 base.")
    if shard_length is not None and (shard_length < 1 or shard_length % chunk_length):
        raise ConfigError(f"shard_length: got {shard_length}, wanted a multiple of chunk_length, {chunk_length}.")
    if codec not in get_args(Codec):
        raise ConfigError(f"codec: got {codec!r}, wanted one of {', '.join(get_args(Codec))}.")


def _write_contigs(
    stream: Iterator[tuple[str, bytes]], store: Path, layout: _Layout, progress: Progress | None
) -> Iterator[StoredContig]:
    import zarr

    done = 0
    # A chunk of N alone is written too: a missing chunk must mean damage.
    with zarr.config.set({"array.write_empty_chunks": True}):
        root = zarr.open_group(str(store), mode="a", zarr_format=3)
        for contig, letters in stream:
            found = survey(letters)
            _write_sequence(root, contig, letters.upper(), layout)
            _write_runs(root, array_path(N_RUNS, contig), found.n_runs)
            _write_runs(root, array_path(SOFT_MASK, contig), found.soft_mask)
            done += len(letters)
            if progress:
                progress(contig, done)
            yield StoredContig(contig, len(letters), found.m5, total(found.n_runs), total(found.soft_mask))


def _write_sequence(root: Any, contig: str, letters: bytes, layout: _Layout) -> None:
    array = root.create_array(
        array_path(SEQUENCE, contig),
        shape=(len(letters),),
        chunks=(layout.chunk_length,),
        shards=None if layout.shard_length is None else (layout.shard_length,),
        dtype="uint8",
        compressors=_compressor(layout.codec),
        fill_value=ord("N"),
    )
    array[:] = np.frombuffer(letters, dtype=np.uint8)


def _write_runs(root: Any, path: str, runs: Runs) -> None:
    if len(runs):
        array = root.create_array(path, shape=runs.shape, chunks=(_RUN_CHUNK, 2), dtype="int64", fill_value=0)
        array[:] = runs


def _compressor(codec: Codec) -> Any:
    from zarr.codecs import BloscCodec, ZstdCodec

    match codec:
        case "blosc-lz4":
            return BloscCodec(typesize=1, cname="lz4", clevel=5, shuffle="bitshuffle")
        case "blosc-zstd":
            return BloscCodec(typesize=1, cname="zstd", clevel=5, shuffle="bitshuffle")
        case "zstd":
            return ZstdCodec(level=3)
        case "none":
            return None


def _attributes(
    source: Path, contigs: tuple[StoredContig, ...], aliases: dict[str, str], circular: Collection[str]
) -> StoreAttributes:
    names = ContigNames({contig.name: contig.length for contig in contigs}, aliases, source.name)
    rings = {names.resolve(name) for name in circular}
    contigs = tuple(
        StoredContig(**{**asdict(contig), "topology": "circular" if contig.name in rings else "linear"})
        for contig in contigs
    )
    digest = reference_digest((contig.name, contig.length, contig.m5) for contig in contigs)
    provenance = Provenance(reference_digest=digest).as_dict()
    return StoreAttributes(SCHEMA, KIND, source.name, contigs, digest, aliases, provenance)


def _write_attributes(store: Path, attributes: StoreAttributes) -> None:
    import zarr

    zarr.open_group(str(store), mode="r+").attrs[ATTRIBUTE] = to_mapping(attributes)

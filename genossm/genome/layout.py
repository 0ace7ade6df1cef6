"""What a genome store looks like on disk: names of its arrays, its attributes, its schema version.

    ref.zarr/
      zarr.json                    attributes["genossm"]: schema, contigs, aliases, digest, provenance
      sequence/<contig>            uint8 (length,): upper-case ASCII
      soft_mask/<contig>           int64 (runs, 2): start and end of every lower-case run; absent if there is none
      n_runs/<contig>              int64 (runs, 2): start and end of every run of N; absent if there is none

The attributes are written last: a store without them is not whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from genossm.core.errors import ConfigError, InputFileError
from genossm.core.strict import from_mapping
from genossm.genome.remote import is_remote, read_file

SCHEMA = 1
ATTRIBUTE = "genossm"
KIND = "genome store"
SEQUENCE, SOFT_MASK, N_RUNS = "sequence", "soft_mask", "n_runs"


@dataclass(frozen=True)
class StoredContig:
    """One contig's entry in the attributes.

    m5: SAM M5 digest.   n_bases, masked_bases: how many bases are N, are lower case.
    """

    name: str
    length: int
    m5: str
    n_bases: int
    masked_bases: int
    topology: Literal["linear", "circular"] = "linear"


@dataclass(frozen=True)
class StoreAttributes:
    """What stands in the store's `zarr.json` under "genossm"."""

    schema: int
    kind: str
    source: str
    contigs: tuple[StoredContig, ...]
    reference_digest: str
    aliases: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def array_path(group: str, contig: str) -> str:
    """Where an array of a contig is; letters that file systems or Zarr keep for themselves are percent-encoded."""
    name = quote(contig, safe="")
    if name.startswith((".", "__")) or name == "zarr.json":
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return f"{group}/{name}"


def read_attributes(path: Path) -> StoreAttributes:
    """The attributes of the store at `path`.

    Raises: InputFileError if there is no whole genome store, or one of a newer schema.
    """
    try:
        content = json.loads(read_file(path / "zarr.json"))["attributes"][ATTRIBUTE]
        schema = content["schema"]
    except OSError as error:
        if is_remote(path) and not isinstance(error, FileNotFoundError):
            raise InputFileError(
                f"{path} cannot be read ({error}). Check the URL, and that you may read it."
            ) from error
        raise _no_store(path) from None
    except (ValueError, KeyError, TypeError):
        raise _no_store(path) from None
    if not isinstance(schema, int) or schema > SCHEMA:
        raise InputFileError(
            f"{path} was written by a newer genossm (store schema {schema}, this one reads up to {SCHEMA}). "
            "Update genossm, or build the store again."
        )
    try:
        return from_mapping(StoreAttributes, content)
    except ConfigError as error:
        raise InputFileError(f"{path}: the store's attributes are damaged ({error}). Build it again.") from error


def _no_store(path: Path) -> InputFileError:
    return InputFileError(f"{path} is no whole genome store. Build it again: genossm genome build FASTA -o {path.name}")

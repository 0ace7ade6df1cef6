"""VCF and BCF out: written beside the target and renamed when whole, with an index."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pysam
import pysam.bcftools

from genossm.core.atomic import atomic_file, behind_link
from genossm.core.errors import UsageError
from genossm.variants.bcf import write_bcf
from genossm.variants.vcf_input import quiet_htslib

Format = Literal["v", "z", "b"]

_SUFFIXES: dict[str, Format] = {".vcf": "v", ".vcf.gz": "z", ".vcf.bgz": "z", ".bcf": "b"}
# TBI cannot say more.
_TBI_LIMIT = 1 << 29


def format_for(target: str | Path, asked: Format | None) -> Format:
    """VCF ("v"), bgzip ("z") or BCF ("b"): as asked, else by the name's end; plain VCF for "-".

    Raises: UsageError if neither says.
    """
    if asked:
        return asked
    if str(target) == "-":
        return "v"
    for suffix, found in _SUFFIXES.items():
        if str(target).endswith(suffix):
            return found
    raise UsageError(
        f"Cannot tell the format of {target} by its name. Let it end in {', '.join(_SUFFIXES)}, or pass -O v, z or b."
    )


@dataclass
class VcfOutput:
    """Takes lines; remembers what an index needs to know.

    The header waits for the first record, so that a run that stops before it has put nothing on standard output.
    """

    _write: Callable[[bytes], object]
    sorted: bool = True
    highest: int = 0
    _contig: bytes | None = None
    _seen: set[bytes] = field(default_factory=set)
    _last: int = 0
    _header: list[bytes] = field(default_factory=list)

    def header(self, lines: Iterable[bytes]) -> None:
        self._header = list(lines)

    def finish(self) -> None:
        """Write what waits."""
        for line in self._header:
            self._write(line + b"\n")
        self._header = []

    def record(self, line: bytes, contig: bytes, pos1: int) -> None:
        if self._header:
            self.finish()
        self._write(line + b"\n")
        if contig != self._contig:
            self.sorted = self.sorted and contig not in self._seen
            self._seen.add(contig)
            self._contig, self._last = contig, 0
        self.sorted = self.sorted and pos1 >= self._last
        self._last = pos1
        self.highest = max(self.highest, pos1)


@contextmanager
def open_output(target: str | Path, kind: Format, *, index: bool, force: bool) -> Iterator[VcfOutput]:
    """A whole file at `target`, and its index, when the block ends well; nothing at all when it does not.

    target: "-" is standard output, which has no index; BCF comes there when it is whole, VCF as it is written.
    index: write one for bgzip (.tbi, or .csi for positions past 512 Mb) and BCF (.csi), if records are sorted.
    Raises: OutputExistsError if `target` exists, without `force`; InputFileError for records that BCF cannot hold.
    """
    if str(target) == "-":
        with _standard_output(kind) as output:
            yield output
        return
    target = Path(target)
    placed = behind_link(target)
    with atomic_file(target, force=force) as temporary:
        with _open_kind(temporary, kind) as output:
            yield output
        indexed = index and kind != "v" and output.sorted
        built = _build_index(temporary, kind, output.highest) if indexed else None
    # An index of the file that was there before would be read for this one.
    for path in {target, placed}:
        for suffix in (".tbi", ".csi"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    if built is not None:
        os.replace(built, f"{placed}{built.suffix}")
        if placed != target:
            # Readers look for the index beside the name that they were given.
            Path(f"{target}{built.suffix}").symlink_to(f"{placed}{built.suffix}")


@contextmanager
def _open_kind(path: Path, kind: Format) -> Iterator[VcfOutput]:
    if kind == "v":
        with open(path, "wb") as file:
            yield (output := VcfOutput(file.write))
            output.finish()
    elif kind == "z":
        with quiet_htslib(), pysam.BGZFile(str(path), "wb", None) as packed:
            yield (output := VcfOutput(packed.write))
            output.finish()
    else:
        with tempfile.TemporaryFile(dir=path.parent) as text:
            yield (output := VcfOutput(text.write))
            output.finish()
            write_bcf(text, path)


@contextmanager
def _standard_output(kind: Format) -> Iterator[VcfOutput]:
    if kind == "v":
        yield (output := VcfOutput(sys.stdout.buffer.write))
        output.finish()
        sys.stdout.buffer.flush()
        return
    with tempfile.TemporaryDirectory(prefix="genossm-") as folder:
        path = Path(folder) / ("out.bcf" if kind == "b" else "out.vcf.gz")
        with _open_kind(path, kind) as output:
            yield output
        with open(path, "rb") as whole:
            shutil.copyfileobj(whole, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _build_index(path: Path, kind: Format, highest: int) -> Path:
    suffix = ".csi" if kind == "b" or highest > _TBI_LIMIT else ".tbi"
    index = Path(f"{path}{suffix}")
    try:
        with quiet_htslib():
            pysam.bcftools.index("-f", "-c" if suffix == ".csi" else "-t", "-o", str(index), str(path))
    except BaseException:
        index.unlink(missing_ok=True)
        raise
    return index

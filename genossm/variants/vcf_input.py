"""VCF and BCF in: header lines and records as text, whatever they are packed in.

Records stay the bytes that they were, so that what we do not add to is written as it came. htslib reads BCF; text is
split here, because htslib refuses plain gzip and contigs or filters that the header does not declare, and says about a
malformed line neither where it is nor what is wrong.
"""

from __future__ import annotations

import gzip
import io
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pysam

from genossm.core.atomic import is_stream
from genossm.core.errors import InputFileError
from genossm.genome.raw import END_BLOCK, require_end_block

COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
_GZIP_MAGIC = b"\x1f\x8b"
_WHOLE_NUMBER_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Record:
    """One data line.   place: "line 12" or "record 3", for messages.   columns: the first eight, then all others."""

    place: str
    columns: tuple[bytes, ...]

    @property
    def contig(self) -> str:
        return self.columns[0].decode("utf-8", errors="surrogateescape")

    @property
    def pos1(self) -> int:
        return int(self.columns[1])

    @property
    def ref(self) -> str:
        return self.columns[3].decode("latin-1")

    @property
    def alts(self) -> tuple[str, ...]:
        """ALT alleles as written; empty for a record without any."""
        return () if self.columns[4] == b"." else tuple(self.columns[4].decode("latin-1").split(","))

    @property
    def info(self) -> bytes:
        return self.columns[7]

    def with_info(self, info: bytes) -> bytes:
        """The whole line, without its end, holding another INFO."""
        return b"\t".join((*self.columns[:7], info, *self.columns[8:]))


@dataclass(frozen=True)
class VcfInput:
    """name: for messages.   header: its lines up to and with the column names.   records: read once, in order."""

    name: str
    header: tuple[bytes, ...]
    records: Iterator[Record]


def can_be_read_twice(source: str | Path) -> bool:
    """Not standard input, nor what a shell's <(…) makes, nor a device; a file that is missing is for others to name."""
    return str(source) != "-" and not is_stream(source)


@contextmanager
def open_vcf(source: str | Path) -> Iterator[VcfInput]:
    """Open a VCF (plain, bgzip, gzip) or BCF file, or standard input for "-"; what it is, its first bytes say.

    Raises: InputFileError if it is missing, empty, cut off, damaged or no VCF; while reading, for a line that is
    malformed, naming it.
    """
    with ExitStack() as stack:
        name = "standard input" if str(source) == "-" else str(source)
        try:
            raw = sys.stdin.buffer if str(source) == "-" else stack.enter_context(open(source, "rb"))
        except FileNotFoundError:
            raise InputFileError(f"No file at {source}. Check the path.") from None
        except OSError as error:
            raise InputFileError(f"Cannot read {source}: {error.strerror}.") from error
        with _readable(name):
            stream = _unpacked(raw, name)
            start = stream.peek(5)[:5]
        if start[:3] == b"BCF":
            yield _open_bcf(stack, stream, name)
        else:
            yield _open_text(stream, start, name)


class _EndWatcher(io.RawIOBase):
    """Passes bytes on and remembers the last few: a bgzip stream that was cut between blocks lacks its last one."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.tail = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self.tail = (self.tail + data)[-len(END_BLOCK) :]
        return len(data)


class _Bgzip(io.RawIOBase):
    """The unpacked bytes of bgzip; raises EOFError where the last block is missing."""

    def __init__(self, source: BinaryIO) -> None:
        self._watcher = _EndWatcher(source)
        self._unpacked = gzip.GzipFile(fileobj=io.BufferedReader(self._watcher, 1 << 16))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        count = self._unpacked.readinto(buffer)
        if count == 0 and self._watcher.tail != END_BLOCK:
            raise EOFError
        return count


def _unpacked(raw: BinaryIO, name: str) -> io.BufferedReader:
    reader = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)  # type: ignore[type-var]
    head = reader.peek(18)[:18]
    if not head:
        raise InputFileError(f"{name} is empty; wanted a VCF or BCF file (one without variants still has a header).")
    if not head.startswith(_GZIP_MAGIC):
        return reader
    if len(head) == 18 and head[3] & 4 and head[12:14] == b"BC":
        return io.BufferedReader(_Bgzip(reader), 1 << 16)
    return io.BufferedReader(gzip.GzipFile(fileobj=reader), 1 << 16)  # type: ignore[type-var]


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turns what unpacking raises into an error for users."""
    try:
        yield
    except EOFError:
        raise InputFileError(f"{name} is truncated: its compressed data ends too early. Fetch it again.") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InputFileError(f"{name} is damaged and cannot be unpacked ({error}). Fetch it again.") from error
    except IsADirectoryError:
        raise InputFileError(f"{name} is a directory; wanted a VCF or BCF file.") from None


def _open_text(stream: io.BufferedReader, start: bytes, name: str) -> VcfInput:
    if not start.startswith(b"##"):
        raise InputFileError(
            f"{name} is neither VCF nor BCF: it starts with {start!r}, wanted ##fileformat=VCF. Check the path."
        )
    header: list[bytes] = []
    with _readable(name):
        for line in stream:
            header.append(line.rstrip(b"\r\n"))
            if not line.startswith(b"##"):
                break
    _require_header(header, name)
    return VcfInput(name, tuple(header), _text_records(stream, len(header), header[-1], name))


def _require_header(header: list[bytes], name: str) -> None:
    if not header[0].startswith(b"##fileformat=VCF"):
        raise InputFileError(f"{name} is no VCF: its first line is {_shown(header[0])}, wanted ##fileformat=VCFv4.x.")
    last = header[-1]
    if last.startswith(COLUMNS) and last[len(COLUMNS) :][:1] in (b"", b"\t"):
        return
    if last.startswith(b"#CHROM"):
        raise InputFileError(
            f"{name}, line {len(header)}: the column names are {_shown(last)}, wanted CHROM POS ID REF ALT QUAL FILTER "
            "INFO, divided by single tabs. Correct that line."
        )
    raise InputFileError(
        f"{name}, line {len(header)}: got {_shown(last)} before any line of column names (#CHROM …). "
        "The header is incomplete; fetch the file again."
    )


def _text_records(stream: io.BufferedReader, line_number: int, names: bytes, name: str) -> Iterator[Record]:
    tabs = names.count(b"\t")
    blank = 0
    with _readable(name):
        for line in stream:
            line_number += 1
            body = line.rstrip(b"\r\n")
            if not body:
                # Blank lines at the very end harm nobody.
                blank = blank or line_number
                continue
            if blank:
                raise InputFileError(f"{name}, line {blank} is blank, amid the records. Remove it.")
            yield _record(body, f"line {line_number}", tabs, name)


def _record(line: bytes, place: str, tabs: int, name: str) -> Record:
    found = line.count(b"\t")
    if found != tabs:
        raise InputFileError(
            f"{name}, {place} is malformed: {found + 1} columns, wanted {tabs + 1} as in the line of column names, "
            f"divided by tabs: {_shown(line)}."
        )
    columns = tuple(line.split(b"\t", 8))
    problem = _problem(columns)
    if problem:
        raise InputFileError(f"{name}, {place} is malformed: {problem}: {_shown(line)}.")
    return Record(place, columns)


def _problem(columns: tuple[bytes, ...]) -> str | None:
    contig, position, _, ref, alts = columns[:5]
    if not contig or b" " in contig:
        return f"CHROM is {_shown(contig)}"
    if not (position.isdigit() and len(position) <= _WHOLE_NUMBER_DIGITS):
        return f"POS is {_shown(position)}, wanted a whole number"
    if not ref or ref == b"." or b"," in ref or b" " in ref:
        return f"REF is {_shown(ref)}, wanted one allele"
    if not all(alts.split(b",")) or b" " in alts:
        return f"ALT is {_shown(alts)}, wanted alleles divided by commas, or a dot"
    return None


def _open_bcf(stack: ExitStack, stream: io.BufferedReader, name: str) -> VcfInput:
    if name == "standard input" or is_stream(name) or isinstance(stream.raw, gzip.GzipFile):
        # htslib reads BCF from the beginning again, and not out of plain gzip.
        path = stack.enter_context(_as_file(stream, name))
    else:
        path = name
        if isinstance(stream.raw, _Bgzip):
            # htslib takes a file that was cut between two blocks for a whole one.
            require_end_block(Path(name))
    stack.enter_context(quiet_htslib())
    try:
        file = stack.enter_context(pysam.VariantFile(path))
        header = str(file.header).encode("utf-8", errors="surrogateescape").rstrip(b"\n").split(b"\n")
    except UnicodeDecodeError as error:
        raise InputFileError(f"{name} cannot be read as BCF: its header is no UTF-8 text. Fetch it again.") from error
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputFileError(f"{name} cannot be read as BCF: its header is damaged. Fetch it again.") from error
    return VcfInput(name, tuple(header), _bcf_records(file, header[-1].count(b"\t"), name))


def _bcf_records(file: pysam.VariantFile, tabs: int, name: str) -> Iterator[Record]:
    number = 0
    try:
        for number, record in enumerate(file, start=1):
            text = str(record).rstrip("\n").encode("utf-8", errors="surrogateescape")
            yield _record(text, f"record {number}", tabs, name)
    except (OSError, ValueError) as error:
        raise InputFileError(f"{name}: record {number + 1} cannot be read ({error}). Fetch the file again.") from error


@contextmanager
def _as_file(stream: io.BufferedReader, name: str) -> Iterator[str]:
    """What was unpacked, as a temporary file."""
    with tempfile.NamedTemporaryFile(prefix="genossm-", suffix=".bcf") as file:
        with _readable(name):
            shutil.copyfileobj(stream, file)
        file.flush()
        yield file.name


@contextmanager
def quiet_htslib() -> Iterator[None]:
    """htslib's own lines on stderr switched off: our error says it in one."""
    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)


def _shown(text: bytes) -> str:
    shown = text.decode("utf-8", errors="backslashreplace")
    return repr(shown if len(shown) <= 60 else shown[:57] + "...")

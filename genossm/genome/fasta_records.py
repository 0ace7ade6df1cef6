"""FASTA as a stream of contigs, one in memory at a time: what indexing and store building read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genossm.core.errors import InputFileError
from genossm.genome.raw import pieces
from genossm.sequence.alphabet import LETTERS


@dataclass(frozen=True)
class Record:
    """One contig as it stands in the file.

    name: the header's first word.   offset: where its first line of sequence starts, in unpacked bytes.
    body: its lines of sequence, line ends included.
    """

    path: Path
    name: str
    offset: int
    body: bytes | bytearray

    def sequence(self) -> bytes:
        """Letters in the file's case, line ends taken out.

        Raises: InputFileError naming the first letter that is no IUPAC DNA code, and its position.
        """
        letters = bytes(self.body.translate(None, b"\r\n"))
        require_letters(letters, self.path, self.name, 0)
        return letters

    def line_shape(self) -> tuple[int, int] | None:
        """`(bases, bytes)` of every line but the last, which may be shorter; None if lines are uneven."""
        body = np.frombuffer(self.body.rstrip(b"\r\n") + b"\n", dtype=np.uint8)
        ends = np.flatnonzero(body == ord("\n"))
        widths = np.diff(ends, prepend=-1)
        first = int(widths[0])
        carriage = int(len(ends) > 1 and first > 1 and body[first - 2] == ord("\r"))
        if carriage:
            even = bool(np.all(body[ends[:-1] - 1] == ord("\r")))
        else:
            even = b"\r" not in self.body.rstrip(b"\r\n")
        even = even and bool(np.all(widths[:-1] == first)) and int(widths[-1]) + carriage <= first
        return (first - 1 - carriage, first) if even else None


def records(path: Path, on_block: Callable[[int, int], None] | None = None) -> Iterator[Record]:
    """The contigs of a FASTA file (plain, bgzip or gzip) in order.

    on_block: see `genossm.genome.raw.pieces`.
    Raises: InputFileError if it is missing, empty, cut off, no FASTA, has a contig without a name or without
    sequence, or two of one name.
    """
    seen: set[str] = set()
    for name, offset, body in _split(path, on_block):
        if not name:
            raise InputFileError(f"{path}: the header line before byte {offset} has no name after '>'.")
        if name in seen:
            raise InputFileError(f"{path}: contig {name!r} stands there twice. Rename or remove one of them.")
        seen.add(name)
        if not body.strip():
            raise InputFileError(f"{path}: contig {name!r} has no sequence. Remove it, or fetch the file again.")
        yield Record(path, name, offset, body)
    if not seen:
        raise InputFileError(f"{path} is empty; wanted a FASTA file.")


def require_letters(letters: bytes, path: Path, contig: str, start: int) -> None:
    """Raise `InputFileError` if `letters`, which begin at 0-based `start` of `contig`, hold any but IUPAC DNA codes."""
    if not letters.translate(None, LETTERS):
        return
    place = next(i for i, letter in enumerate(letters) if letter not in LETTERS)
    raise InputFileError(
        f"{path}: contig {contig!r} has {chr(letters[place])!r} at position {start + place + 1:,}, which is no DNA "
        "letter (wanted IUPAC codes). Is it a protein, RNA or alignment file?"
    )


def _split(path: Path, on_block: Callable[[int, int], None] | None) -> Iterator[tuple[str, int, bytearray]]:
    """(name, offset of the body, body) of every record."""
    header: bytes | None = None
    body, offset = bytearray(), 0
    rest, base = b"", 0  # the beginning of a header line; where the buffer starts in the unpacked bytes
    for piece in pieces(path, on_block):
        buffer = rest + piece
        if base == 0 and header is None:
            _require_header(buffer, path)
        place = 0
        while place < len(buffer):
            if header is None:
                end = buffer.find(b"\n", place)
                if end < 0:
                    break
                header, offset = buffer[place : end + 1], base + end + 1
                place = end + 1
                continue
            start = _next_header(buffer, place, at_line_start=not body or body.endswith(b"\n"))
            body += memoryview(buffer)[place:start]
            place = start
            if start < len(buffer):
                yield _name(header, path), offset, body
                header, body = None, bytearray()
        rest, base = buffer[place:], base + place
    if header is None and rest:  # a last header without a line end
        header, offset = rest, base + len(rest)
    if header is not None:
        yield _name(header, path), offset, body


def _next_header(buffer: bytes, place: int, *, at_line_start: bool) -> int:
    """Where the next line that starts with '>' begins, or the buffer's end."""
    if at_line_start and buffer.startswith(b">", place):
        return place
    end = buffer.find(b"\n>", place)
    return end + 1 if end >= 0 else len(buffer)


def _require_header(buffer: bytes, path: Path) -> None:
    if not buffer.startswith(b">"):
        shown = buffer[:20].split(b"\n")[0].decode("ascii", errors="backslashreplace")
        raise InputFileError(f"{path} is no FASTA file: it starts with {shown!r}, wanted '>' and a contig's name.")


def _name(header: bytes, path: Path) -> str:
    try:
        words = header[1:].decode("utf-8").split(maxsplit=1)
    except UnicodeDecodeError:
        raise InputFileError(f"{path}: a header line is not readable text: {header[:40]!r}.") from None
    # "> chr1" has a space where the name should be: no tool reads that as chr1.
    return words[0] if words and not header[1:2].isspace() else ""

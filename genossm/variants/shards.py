"""One file on several machines: pieces of it that are scored on their own, and put together again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from genossm.core.errors import InputFileError, UsageError
from genossm.variants.naming import DEFAULT_TAG, Naming
from genossm.variants.outputs import refuse_outputs
from genossm.variants.tables_again import tables_again
from genossm.variants.vcf_header import facts_in
from genossm.variants.vcf_input import VcfInput, open_vcf
from genossm.variants.vcf_output import Format, format_for, open_output

_MARK = b"##genossm_shard="


@dataclass(frozen=True)
class Shard:
    """Piece `number` of `count`, from 1.

    Pieces are cut between blocks of records, which are scored together: so each record has the company that it has in
    the whole file, and its score is the same to the last bit.
    Raises: UsageError for a piece that does not exist.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(f"Shard {self} does not exist; wanted I/N with I from 1 to N.")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/8`. Raises: UsageError."""
        if match := re.fullmatch(r"([0-9]+)/([0-9]+)", text):
            return cls(int(match[1]), int(match[2]))
        raise UsageError(f"--shard {text!r}: wanted I/N, as in 2/8 for the second of eight pieces.")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def records(self, total: int, block: int) -> tuple[int, int]:
        """First and last (not included) of `total` records, in blocks of `block`, that belong to this piece."""
        blocks = -(-total // block)
        first, last = (edge * blocks // self.count for edge in (self.number - 1, self.number))
        return min(first * block, total), min(last * block, total)

    def mark(self) -> bytes:
        """The header line that says which piece a file is."""
        return _MARK + str(self).encode()


def merge(
    pieces: Sequence[Path],
    target: str | Path,
    *,
    output: Format | None = None,
    index: bool = True,
    force: bool = False,
    tag: str = DEFAULT_TAG,
    tsv: Path | None = None,
    parquet: Path | None = None,
) -> int:
    """Write the records of all pieces of one scored file, in order, and return their number.

    pieces: in any order.   target: path, or "-".   output, index: as for scoring.
    tsv, parquet: tables of the alleles whose fields begin with `tag`, as for scoring.
    The results are the files that one run without shards writes.
    Raises: InputFileError for files that are no pieces, not all of them, or pieces of different runs; UsageError for
    an output that is a piece or another output; OutputExistsError.
    """
    kind = format_for(target, output)
    written = [Path(path) for path in (target, tsv, parquet) if path is not None and str(path) != "-"]
    refuse_outputs(written, pieces, force=force)
    records = 0
    with ExitStack() as files:
        opened = [files.enter_context(open_vcf(path)) for path in pieces]
        ordered = _in_order(opened)
        header = _without_mark(ordered[0].header)
        result = files.enter_context(open_output(target, kind, index=index, force=force))
        result.header(header)
        rows = files.enter_context(tables_again(header, Naming(tag), tsv, parquet, force=force))
        for piece in ordered:
            for record in piece.records:
                result.record(b"\t".join(record.columns), record.columns[0], record.pos1)
                rows(record)
                records += 1
    return records


def _in_order(opened: Sequence[VcfInput]) -> list[VcfInput]:
    by_number: dict[int, VcfInput] = {}
    counts: set[int] = set()
    for piece in opened:
        text = facts_in(piece.header).get("shard")
        if text is None:
            raise InputFileError(f"{piece.name} is no piece of a scored file; wanted what --shard I/N wrote.")
        shard = Shard.parse(text)
        if shard.number in by_number:
            raise InputFileError(f"{by_number[shard.number].name} and {piece.name} are both piece {text}.")
        by_number[shard.number] = piece
        counts.add(shard.count)
    if len(counts) != 1:
        raise InputFileError(
            f"The pieces are of files cut into {' and '.join(map(str, sorted(counts)))}; wanted one cut."
        )
    missing = sorted(set(range(1, counts.pop() + 1)) - set(by_number))
    if missing:
        raise InputFileError(f"Piece {', '.join(map(str, missing))} of {len(missing) + len(opened)} is missing.")
    ordered = [by_number[number] for number in sorted(by_number)]
    for piece in ordered[1:]:
        if _without_mark(piece.header) != _without_mark(ordered[0].header):
            raise InputFileError(
                f"{ordered[0].name} and {piece.name} have different headers: they come from different inputs, models, "
                "references or options. Score the pieces alike."
            )
    return ordered


def _without_mark(header: Iterable[bytes]) -> list[bytes]:
    return [line for line in header if not line.startswith(_MARK)]

"""Sequences with labels that come without a genome: CSV tables and FASTA files, as benchmarks ship them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from genossm.core.errors import InputFileError
from genossm.data.table import column, numbers, read_table
from genossm.sequence.alphabet import LETTERS

if TYPE_CHECKING:
    from genossm.sequence.tokenizer import NucleotideTokenizer

_KNOWN = frozenset(LETTERS.upper().decode())


@dataclass(frozen=True, slots=True)
class LabelledSequence:
    """sequence: upper-case letters.   label: a class number, or a value to regress on; NaN where unknown."""

    sequence: str
    label: float


@dataclass(frozen=True, eq=False)
class SequenceItem:
    """ids: (length,) token ids; lengths differ between items, collation pads.   label: see `LabelledSequence`."""

    ids: NDArray[np.uint8]
    label: float


class LabelledSequences(Dataset[SequenceItem]):
    """One item a sequence, whole, in the order given."""

    def __init__(self, sequences: Sequence[LabelledSequence], tokenizer: NucleotideTokenizer) -> None:
        self.sequences, self.tokenizer = tuple(sequences), tokenizer

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> SequenceItem:
        one = self.sequences[index]
        return SequenceItem(self.tokenizer.encode(one.sequence), one.label)


def read_sequence_table(
    path: str | os.PathLike[str], *, sequence: str = "sequence", label: str = "label"
) -> list[LabelledSequence]:
    """Rows of a CSV, TSV or Parquet table with a column of letters and a column of numbers, as GUE ships them.

    Raises: InputFileError, naming the row, for an empty sequence, a letter that is no nucleotide code, or no number.
    """
    columns = read_table(path)
    labels = numbers(columns, label, path)
    letters = column(columns, sequence, path)
    return [
        LabelledSequence(_checked(str(text), f"{path}, row {row}"), float(value))
        for row, (text, value) in enumerate(zip(letters, labels), start=1)
    ]


def read_class_folders(root: str | os.PathLike[str], classes: Mapping[str, float]) -> list[LabelledSequence]:
    """FASTA files sorted by class, one file or one folder of files a class, as GenomicBenchmarks ships them.

    classes: name of a file (without suffix) or folder in `root` to its label.
    Raises: InputFileError for a class without a sequence, or a sequence that is none.
    """
    found: list[LabelledSequence] = []
    for name, label in classes.items():
        sequences = [LabelledSequence(text, label) for path in _files(Path(root), name) for text in _fasta(path)]
        if not sequences:
            raise InputFileError(f"{root} has no sequence of class {name!r}; wanted {name}.fa or a folder {name}.")
        found += sequences
    return found


def _files(root: Path, name: str) -> list[Path]:
    if (root / name).is_dir():
        return sorted(path for path in (root / name).iterdir() if path.is_file())
    return sorted(path for path in root.glob(f"{name}.*") if path.is_file())


def _fasta(path: Path) -> Iterator[str]:
    """Letters of each record; a file without header lines is one sequence."""
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    text = path.read_text(encoding="ascii", errors="replace")
    if not text.startswith(">"):
        yield _checked("".join(text.split()), str(path))
        return
    for title, sequence in SimpleFastaParser(io.StringIO(text)):
        yield _checked(sequence, f"{path}, record {(title.split() or ['(no name)'])[0]}")


def _checked(text: str, where: str) -> str:
    letters = text.strip().upper()
    if not letters:
        raise InputFileError(f"{where}: the sequence is empty.")
    if strange := set(letters) - _KNOWN:
        raise InputFileError(f"{where}: {sorted(strange)[0]!r} is no nucleotide; wanted A, C, G, T or an IUPAC code.")
    return letters

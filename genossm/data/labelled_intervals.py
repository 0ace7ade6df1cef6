"""Intervals of a genome with labels: regulatory elements, binding sites, expression of a promoter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from genossm.data.edges import EdgePolicy, Window, encode_window, window_around
from genossm.data.table import Columns, column, numbers, read_table
from genossm.genome.bed import interval_from_fields, read_bed
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.sequence.tokenizer import NucleotideTokenizer


@dataclass(frozen=True, eq=False)
class LabelledItem:
    """ids: (length,) token ids in reading direction.   labels: (labels,) float32, NaN where unknown.

    interval: the labelled interval itself, which the window is centred on.
    """

    ids: NDArray[np.uint8]
    labels: NDArray[np.float32]
    interval: Interval


class LabelledIntervals(Dataset[LabelledItem]):
    """One item an interval: the window of `length` bases around its middle, on its strand, and its labels.

    labels: (intervals, labels).   edges: what happens where a window leaves its contig.
    `padded` counts the windows that hold N for want of sequence, `shifted` those that were moved.
    Raises: IntervalError and ConfigError as `window_around`, for the first window that is not possible; ValueError if
    there are not as many rows of labels as intervals.
    """

    def __init__(
        self,
        genome: Genome,
        intervals: Sequence[Interval],
        labels: NDArray[np.float32],
        tokenizer: NucleotideTokenizer,
        length: int,
        *,
        edges: EdgePolicy = "raise",
    ) -> None:
        if labels.ndim != 2 or len(labels) != len(intervals):
            raise ValueError(f"Labels of shape {labels.shape} for {len(intervals)} intervals.")
        self.genome, self.intervals, self.labels, self.tokenizer = genome, tuple(intervals), labels, tokenizer
        self._windows = [window_around(genome, interval, length, edges) for interval in self.intervals]
        self.padded = sum(bool(window.before or window.after) for window in self._windows)
        self.shifted = sum(
            not (window.before or window.after) and _is_off_centre(window, interval)
            for window, interval in zip(self._windows, self.intervals)
        )

    def __len__(self) -> int:
        return len(self.intervals)

    def __getitem__(self, index: int) -> LabelledItem:
        ids = encode_window(self.genome, self._windows[index], self.tokenizer)
        return LabelledItem(ids, self.labels[index], self.intervals[index])


def read_labelled_intervals(
    path: str | os.PathLike[str], genome: Genome, *, labels: Sequence[str] = ("score",)
) -> tuple[list[Interval], NDArray[np.float32]]:
    """Intervals and labels (intervals, labels) from a BED file, or a TSV, CSV or Parquet table.

    A file named .bed (or .bed.gz) has one label, its fifth column. A table has the columns contig (or chrom), start
    (0-based), end, strand if there is one, and those that `labels` names.
    Raises: InputFileError, naming line or row, for what cannot be read or is not on the genome.
    """
    name = Path(path).name.removesuffix(".gz")
    if name.endswith(".bed"):
        records = read_bed(path, genome)
        scores: Columns = {"score": [record.score for record in records]}
        return [record.interval for record in records], numbers(scores, "score", path)[:, None]
    columns = read_table(path)
    values = [numbers(columns, label, path) for label in labels]
    return _intervals(columns, path, genome), np.stack(values, axis=1)


def _intervals(columns: Columns, path: str | os.PathLike[str], genome: Genome) -> list[Interval]:
    contigs = column(columns, "chrom" if "chrom" in columns and "contig" not in columns else "contig", path)
    starts, ends = column(columns, "start", path), column(columns, "end", path)
    strands = columns.get("strand", ["."] * len(starts))
    return [
        interval_from_fields([contig, start, end, ".", ".", strand], genome, f"{path}, row {row}")
        for row, (contig, start, end, strand) in enumerate(
            (map(str, fields) for fields in zip(contigs, starts, ends, strands)), start=1
        )
    ]


def _is_off_centre(window: Window, interval: Interval) -> bool:
    return window.interval.start != (interval.start + interval.end - len(window)) // 2

"""Measured tracks along a genome (bigWig: coverage, accessibility, expression) as binned targets of a window."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from genossm.core.errors import ConfigError, InputFileError, IntervalError, MissingDependencyError
from genossm.data.windows import WindowPlan
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.sequence.tokenizer import NucleotideTokenizer

Summary = Literal["mean", "sum", "max"]
Uncovered = Literal["zero", "ignore"]


class BigWigTracks:
    """Values of several bigWig files along a genome, a number a bin.

    bin_length: bases.   summary: of the bases of a bin.
    uncovered: bases that a file says nothing of count as 0 ("zero"), or not at all ("ignore": a bin without any is
    NaN). A contig that a file lacks is uncovered. It can be pickled and used after a fork: every process opens the
    files for itself.
    Raises: ConfigError for a bin below 1 base or an unknown choice; InputFileError for a file that is missing or no
    bigWig, or that was made on another assembly: none of the genome's contigs, or one of another length.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        genome: Genome,
        bin_length: int,
        *,
        summary: Summary = "mean",
        uncovered: Uncovered = "zero",
    ) -> None:
        if bin_length < 1 or summary not in get_args(Summary) or uncovered not in get_args(Uncovered) or not paths:
            raise ConfigError(
                f"{len(paths)} tracks in bins of {bin_length} bases, summary {summary!r}, uncovered {uncovered!r}; "
                f"wanted at least 1 of each, one of {', '.join(get_args(Summary))}, and one of "
                f"{', '.join(get_args(Uncovered))}."
            )
        self.paths = tuple(Path(path) for path in paths)
        self.bin_length, self.uncovered = bin_length, uncovered
        self.summary: Summary = summary
        self._open: tuple[int, list[Any]] | None = None
        self._names = [_contig_names(file, path, genome) for file, path in zip(self._files(), self.paths)]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def read(self, interval: Interval) -> NDArray[np.float32]:
        """(bins, tracks) along an interval of the genome's own contig name, in reading direction of its strand.

        Raises: IntervalError if the interval is no whole number of bins.
        """
        if len(interval) % self.bin_length:
            raise IntervalError(
                f"{interval} has {len(interval):,} bases, no multiple of the bin of {self.bin_length}. Choose another "
                "window or bin."
            )
        bins = [self._one(file, names, interval) for file, names in zip(self._files(), self._names)]
        result = np.stack(bins, axis=1).astype(np.float32)
        return result if interval.strand == "+" else np.ascontiguousarray(result[::-1])

    def _one(self, file: Any, names: Mapping[str, str], interval: Interval) -> NDArray[np.float64]:
        values = np.full(len(interval), np.nan)
        if interval.contig in names:
            file.values(names[interval.contig], interval.start, interval.end, fillna=np.nan, arr=values)
        if self.uncovered == "zero":
            np.nan_to_num(values, copy=False)
        return _binned(values.reshape(-1, self.bin_length), self.summary)

    def _files(self) -> list[Any]:
        # Handles do not survive a fork: each process has its own.
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), [_open_bigwig(path) for path in self.paths]
        return self._open[1]


@dataclass(frozen=True, eq=False)
class TrackItem:
    """ids: (length,) token ids in reading direction.   targets: (bins, tracks) of the same bases."""

    ids: NDArray[np.uint8]
    targets: NDArray[np.float32]
    interval: Interval


class TrackWindows(Dataset[TrackItem]):
    """Item n is the window that the plan gives sample number n, with its tracks; n may pass `len`, one epoch.

    Raises: ConfigError if the plan's window is no whole number of bins, or the plan pads: there is nothing measured
    beyond a contig.
    """

    def __init__(self, genome: Genome, plan: WindowPlan, tokenizer: NucleotideTokenizer, tracks: BigWigTracks) -> None:
        if plan.window % tracks.bin_length:
            raise ConfigError(
                f"A window of {plan.window:,} bases is no multiple of the bin of {tracks.bin_length}. Change either."
            )
        if plan.pads:
            raise ConfigError("Windows of tracks cannot be padded. Leave short regions and tails out.")
        self.genome, self.plan, self.tokenizer, self.tracks = genome, plan, tokenizer, tracks

    def __len__(self) -> int:
        return self.plan.epoch_size

    def __getitem__(self, index: int) -> TrackItem:
        interval = self.plan.interval(index)
        return TrackItem(self.genome.encode(interval, self.tokenizer), self.tracks.read(interval), interval)


def _binned(values: NDArray[np.float64], summary: Summary) -> NDArray[np.float64]:
    """(bins, bases) to (bins,); a bin of NaN alone stays NaN."""
    known = ~np.isnan(values)
    covered = known.any(axis=1)
    if summary == "max":
        result = np.max(np.where(known, values, -np.inf), axis=1)
    else:
        result = np.where(known, values, 0.0).sum(axis=1)
        if summary == "mean":
            result /= np.maximum(known.sum(axis=1), 1)
    return np.where(covered, result, np.nan)


def _open_bigwig(path: Path) -> Any:
    try:
        import pybigtools
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading bigWig needs pybigtools. Install it: pip install 'genossm[tracks]'"
        ) from error
    if not path.is_file():
        raise InputFileError(f"No bigWig file at {path}. Check the path.")
    try:
        file = pybigtools.open(str(path))
        if not file.is_bigwig:
            raise InputFileError(f"{path} is a bigBed file; wanted a bigWig.")
    except (ValueError, OSError, pybigtools.BBIReadError) as error:  # type: ignore[attr-defined]
        raise InputFileError(f"{path} is no bigWig file, or a damaged one ({error}).") from error
    return file


def _contig_names(file: Any, path: Path, genome: Genome) -> dict[str, str]:
    """The genome's contig to the name that the file has for it."""
    lengths = file.chroms()
    found = {}
    for contig in genome.contigs:
        name = next((name for name in (contig, *genome.aliases(contig)) if name in lengths), None)
        if name is None:
            continue
        if lengths[name] != genome.length(contig):
            raise InputFileError(
                f"{path}: contig {name} has {lengths[name]:,} bases, in {genome.name} {genome.length(contig):,}. "
                "It was made on another assembly."
            )
        found[contig] = name
    if not found:
        raise InputFileError(
            f"{path} has none of the contigs of {genome.name} ({', '.join(genome.contigs[:3])}); it has "
            f"{', '.join(list(lengths)[:3])}. It was made on another assembly."
        )
    return found

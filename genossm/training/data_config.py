"""The parts of a run's configuration that say what is read: splits, windows, batches, lengths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from genossm.core.errors import ConfigError
from genossm.core.strict import require_positive
from genossm.data.lengths import Lengths, Stage
from genossm.data.regions import is_bed
from genossm.data.windows import ShortRegions, Tails

Regions = tuple[str | int, ...] | str | int
SplitName = Literal["train", "validation", "test", "exclude"]


@dataclass(frozen=True)
class SplitsConfig:
    """Region strings, 1-based: `20:1,000,001-3,000,000`, a contig's name for all of it, or the path of a BED file
    (.bed, .bed.gz); one or a list.

    exclude: what is cut out of `train`, so that held-out parts of a chromosome are easily left out of it.
    bed: a BED file whose fourth column says train, valid or test, as Basenji writes it, instead of the three above.
    A run writes the regions of BED files out in its own configuration: they are what it read, whatever becomes of the
    files.
    """

    train: Regions = ()
    validation: Regions = ()
    test: Regions = ()
    exclude: Regions = ()
    bed: Path | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("train", "validation", "test") if self.regions(name)]
        if self.bed is not None and given:
            raise ConfigError(f"bed and {given[0]} are both given. Keep one: the file says all three splits.")
        if self.bed is None and not {"train", "validation"} <= set(given):
            raise ConfigError(
                f"{'validation' if 'train' in given else 'train'} is missing. Give train and validation regions, such "
                "as 20:1,000,001-3,000,000, or a BED file of splits (bed)."
            )

    @property
    def names_files(self) -> bool:
        """Whether regions stand in BED files."""
        names: tuple[SplitName, ...] = get_args(SplitName)
        return self.bed is not None or any(is_bed(text) for name in names for text in self.regions(name))

    def regions(self, name: SplitName) -> tuple[str, ...]:
        """The regions of a split as strings; YAML reads a contig named `20` as a number."""
        value: Regions = getattr(self, name)
        return tuple(map(str, value)) if isinstance(value, tuple) else (str(value),)


@dataclass(frozen=True)
class StageConfig:
    """The first `steps` steps of a run, or the next ones, with windows of another length.

    window: bases.   batch: windows a step; unless given, as many as make the run's usual number of bases.
    micro_batch: windows that a device reads at once; unless given, as many bases as in the last stage.
    """

    window: int
    steps: int
    batch: int | None = None
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        require_positive(self, "window", "steps", "batch", "micro_batch")


@dataclass(frozen=True)
class DataConfig:
    """Windows and batches.

    window: bases.   batch: windows a step over all devices.
    lengths: stages of other window lengths that come first, one after the other; `window` and `batch` are the last
        stage, to the end of the run. Bases a step stay the same unless a stage says otherwise; validation has its
        windows throughout.
    micro_batch: windows that a device reads at once; a batch of more is read in parts and their gradients are added up,
        every target base counting alike. All of them unless given.
    micro_tokens: the same as a number of bases, whatever a stage's window; at least one window.
    sampling: "random" starts, or "tiled" every `stride` bases (the window's length unless given; in a stage of another
        length, the same share of it), shuffled; or "contigs": each row of a batch walks along whole regions, and a
        causal model's states are handed from step to step, where a window is the bases of a row in a step. Runs of at
        least a window of other letters than A, C, G, T are left out and end a walk. Validation walks each region whole.
    segment: bases that a causal model reads at once, with its states handed on; windows are read in as many passes.
        The memory of a step is that of a segment. Whole windows unless given.
    carry_gradients: gradients flow through the states over all segments of a window, exactly, for one forward pass
        more; unless set they are cut between segments. Between steps they are always cut.
    reverse_complement: read each training window on a random strand.
    max_n_fraction: windows with a larger share of letters other than A, C, G, T are left out.
    tails: what tiles leave at a region's end, in validation too, is left out ("drop"), read with bases before it
        ("shift") or with N behind it ("pad").
    jitter: tiles of training are moved by up to so many bases to either side, anew each time.
    short_regions: regions that are shorter than a window are an error ("raise"), left out and counted ("skip"), or read
        with N behind them ("pad").
    soft_mask_weight: what soft-masked (lower-case) bases count as targets of training, from 0 to 1; its bits per base
        are then a weighted mean. Validation counts all bases alike.
    workers: loader processes; the batches are the same at any number.
    validation_window, validation_batch: as for training (in its last stage) unless given.
    """

    window: int = 1024
    batch: int = 16
    micro_batch: int | None = None
    sampling: Literal["random", "tiled", "contigs"] = "random"
    stride: int | None = None
    reverse_complement: bool = True
    max_n_fraction: float = 0.1
    workers: int = 0
    validation_window: int | None = None
    validation_batch: int | None = None
    lengths: tuple[StageConfig, ...] = ()
    micro_tokens: int | None = None
    short_regions: ShortRegions = "raise"
    tails: Tails = "drop"
    jitter: int = 0
    soft_mask_weight: float = 1.0
    segment: int | None = None
    carry_gradients: bool = False

    def __post_init__(self) -> None:
        require_positive(
            self,
            *("window", "batch", "micro_batch", "micro_tokens", "stride", "validation_window", "validation_batch"),
            "segment",
        )
        self._check_segments()
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; wanted 0 or more.")
        if not 0.0 <= self.max_n_fraction <= 1.0:
            raise ConfigError(f"max_n_fraction is {self.max_n_fraction}; wanted a share from 0 to 1.")
        if self.stride is not None and self.sampling != "tiled":
            raise ConfigError(
                f"stride is given, but sampling is {self.sampling!r}. Set sampling: tiled, or leave stride out."
            )
        if self.jitter < 0 or (self.jitter and self.sampling != "tiled"):
            raise ConfigError(
                f"jitter is {self.jitter} and sampling {self.sampling!r}; wanted 0 or more, and sampling: tiled."
            )
        if not 0.0 <= self.soft_mask_weight <= 1.0:
            raise ConfigError(f"soft_mask_weight is {self.soft_mask_weight}; wanted from 0 to 1.")
        if self.micro_batch is not None and self.micro_tokens is not None:
            raise ConfigError("micro_batch and micro_tokens are both given. Keep one: they say the same.")
        self.stages()

    @property
    def carries_states(self) -> bool:
        """Whether states are handed on: within windows or from step to step."""
        return self.segment is not None or self.sampling == "contigs"

    def _check_segments(self) -> None:
        if self.carry_gradients and (self.segment is None or self.segment >= self.window):
            raise ConfigError(
                f"carry_gradients is set and segment is {self.segment}; wanted a segment shorter than the window of "
                f"{self.window:,} bases. Gradients flow over the segments of a window."
            )
        if self.sampling == "contigs" and self.lengths:
            raise ConfigError(
                "lengths is given, but sampling is 'contigs': rows walk with one window length. Leave lengths out, or "
                "train in stages with sampling: random first."
            )

    def stages(self) -> Lengths:
        """What each step of the run reads. Raises: ConfigError for a stage whose batch would be no whole number."""
        return Lengths(
            [self._stage(stage, f"lengths[{number}]") for number, stage in enumerate(self.lengths)]
            + [Stage(self.window, self.batch, self._micro_batch(self.window, "window"))]
        )

    def stage_names(self) -> list[str]:
        """Where the configuration has each stage of `stages`, for messages."""
        return [*(f"data.lengths[{number}]" for number in range(len(self.lengths))), "data"]

    def _stage(self, stage: StageConfig, where: str) -> Stage:
        tokens = self.batch * self.window
        if stage.batch is None and tokens % stage.window:
            raise ConfigError(
                f"{where}: windows of {stage.window:,} bases do not add up to the {tokens:,} bases of a step "
                f"(batch x window). Give {where}.batch, or another window."
            )
        micro_batch = stage.micro_batch or self._micro_batch(stage.window, f"{where}.window")
        return Stage(stage.window, stage.batch or tokens // stage.window, micro_batch, stage.steps)

    def _micro_batch(self, window: int, where: str) -> int | None:
        """Windows of this length of which a device reads a pass at once."""
        reach = self._pass_length(window)
        if self.micro_tokens is not None and self.micro_tokens < reach:
            raise ConfigError(
                f"micro_tokens is {self.micro_tokens:,}, less than one window of {window:,} bases ({where}). A pass is "
                "of whole windows, or of segments: raise micro_tokens, shorten the window, or set segment."
            )
        if self.micro_batch is None and self.micro_tokens is None:
            return None
        tokens = self.micro_tokens or (self.micro_batch or 1) * self._pass_length(self.window)
        return max(1, tokens // reach)

    def _pass_length(self, window: int) -> int:
        """Bases of a window that a device reads at once."""
        return window if self.segment is None else min(window, self.segment)

    def stride_at(self, window: int) -> int | None:
        """Bases from one tile to the next, for windows of this length."""
        return None if self.stride is None else max(1, self.stride * window // self.window)

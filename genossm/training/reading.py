"""What a run reads: its configuration and a genome become windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, get_args

import genossm.genome
from genossm.data.contigs import ContigSweep, ContigWalks
from genossm.data.lengths import StagedWindows
from genossm.data.regions import Splits, parse_regions
from genossm.data.splits_bed import splits_from_bed, subtract
from genossm.data.windows import RandomWindows, TiledWindows, WindowPlan
from genossm.sequence.interval import parse_region
from genossm.training.config import TrainConfig
from genossm.training.data_config import DataConfig, SplitName, SplitsConfig

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.sequence.interval import Interval


Plans = tuple[WindowPlan, WindowPlan] | tuple[ContigWalks, ContigSweep]


def parse_splits(config: SplitsConfig, genome: Genome) -> Splits:
    """The regions of a configuration on `genome`. Raises: ConfigError for splits that overlap or are empty; the
    genome's errors for regions that it does not have.
    """
    holes = parse_regions(genome, config.regions("exclude"))
    if config.bed is not None:
        splits = splits_from_bed(config.bed, genome)
        return replace(splits, train=subtract(splits.train, holes))
    train, validation, test = (parse_regions(genome, config.regions(name)) for name in ("train", "validation", "test"))
    return Splits(subtract(train, holes), validation, test)


def with_regions(config: TrainConfig) -> TrainConfig:
    """The configuration with the regions of its BED files written out.

    So a run's own files say what was read, judging its model knows what was learnt, and resuming notices a BED file
    that changed. Without BED files it is the configuration as it came.
    Raises: as `parse_splits`, and the genome's errors.
    """
    if not config.splits.names_files:
        return config
    with genossm.genome.open(config.genome.path) as genome:
        splits = parse_splits(config.splits, genome)
    train, validation, test = (tuple(map(str, part)) for part in (splits.train, splits.validation, splits.test))
    return replace(config, splits=SplitsConfig(train, validation, test))


def contigs_read(config: SplitsConfig, genome: Genome) -> dict[str, dict[str, str | int]]:
    """Length and M5 digest of each contig that regions are on, so that it is known again in another reference file.

    By the names that the configuration, whose BED files are written out, calls them.
    """
    split_names: tuple[SplitName, ...] = get_args(SplitName)
    texts = [text for split in split_names for text in config.regions(split)]
    names = dict.fromkeys(parse_region(text, genome.length).contig for text in texts)
    return {name: {"length": genome.length(name), "md5": genome.digest(name)} for name in names}


def plan_windows(config: TrainConfig, genome: Genome) -> Plans:
    """Training and validation windows, or walks along contigs; validation has the same ones throughout the run.

    Raises: as `parse_splits`; IntervalError for regions without a window.
    """
    splits, data = parse_splits(config.splits, genome), config.data
    if data.sampling == "contigs":
        return (
            ContigWalks(
                genome,
                splits.train,
                data.window,
                rows=data.batch,
                seed=config.run.seed,
                reverse_complement=data.reverse_complement,
            ),
            ContigSweep(genome, splits.validation, data.validation_window or data.window),
        )

    validation = TiledWindows(
        genome,
        splits.validation,
        data.validation_window or data.window,
        tails=data.tails,
        max_n_fraction=data.max_n_fraction,
        short_regions=data.short_regions,
    )
    training = partial(_training_windows, data, genome, splits.train)
    return StagedWindows(config.lengths, training, config.run.seed), validation


def _training_windows(
    data: DataConfig, genome: Genome, regions: Sequence[Interval], window: int, seed: int
) -> WindowPlan:
    """Those of one length."""
    if data.sampling == "random":
        return RandomWindows(
            genome,
            regions,
            window,
            seed=seed,
            reverse_complement=data.reverse_complement,
            max_n_fraction=data.max_n_fraction,
            short_regions=data.short_regions,
        )
    return TiledWindows(
        genome,
        regions,
        window,
        stride=data.stride_at(window),
        tails=data.tails,
        jitter=data.jitter,
        shuffle=True,
        seed=seed,
        reverse_complement=data.reverse_complement,
        max_n_fraction=data.max_n_fraction,
        short_regions=data.short_regions,
    )

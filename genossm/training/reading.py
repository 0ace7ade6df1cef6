"""What a run reads: its configuration and a genome become windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genossm.data.lengths import StagedWindows
from genossm.data.regions import Splits, parse_regions
from genossm.data.splits_bed import subtract
from genossm.data.windows import RandomWindows, TiledWindows, WindowPlan
from genossm.training.config import TrainConfig
from genossm.training.data_config import SplitsConfig

if TYPE_CHECKING:
    from genossm.genome import Genome


def parse_splits(config: SplitsConfig, genome: Genome) -> Splits:
    """The regions of a configuration on `genome`. Raises: ConfigError for splits that overlap or are empty; the
    genome's errors for regions that it does not have.
    """
    train, validation, test, holes = (
        parse_regions(genome, config.regions(name)) for name in ("train", "validation", "test", "exclude")
    )
    return Splits(subtract(train, holes) if holes else train, validation, test)


def plan_windows(config: TrainConfig, genome: Genome) -> tuple[WindowPlan, WindowPlan]:
    """Training and validation windows; validation has the same ones throughout the run.

    Raises: as `parse_splits`; IntervalError for regions without a window.
    """
    splits, data = parse_splits(config.splits, genome), config.data

    def training(window: int, seed: int) -> WindowPlan:
        if data.sampling == "random":
            return RandomWindows(
                genome,
                splits.train,
                window,
                seed=seed,
                reverse_complement=data.reverse_complement,
                max_n_fraction=data.max_n_fraction,
                short_regions=data.short_regions,
            )
        return TiledWindows(
            genome,
            splits.train,
            window,
            stride=data.stride_at(window),
            shuffle=True,
            seed=seed,
            reverse_complement=data.reverse_complement,
            max_n_fraction=data.max_n_fraction,
            short_regions=data.short_regions,
        )

    validation = TiledWindows(
        genome,
        splits.validation,
        data.validation_window or data.window,
        max_n_fraction=data.max_n_fraction,
        short_regions=data.short_regions,
    )
    return StagedWindows(config.lengths, training, config.run.seed), validation

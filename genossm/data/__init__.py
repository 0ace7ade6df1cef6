"""From genomes to batches: regions, windows, datasets, collation, the Lightning data module."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genossm.data.batch import IGNORE as IGNORE
    from genossm.data.batch import Batch as Batch
    from genossm.data.batch import CausalCollator as CausalCollator
    from genossm.data.datamodule import GenomeDataModule as GenomeDataModule
    from genossm.data.dataset import WindowDataset as WindowDataset
    from genossm.data.masking import MaskedCollator as MaskedCollator
    from genossm.data.masking import Masking as Masking
    from genossm.data.regions import Splits as Splits
    from genossm.data.regions import parse_regions as parse_regions
    from genossm.data.windows import RandomWindows as RandomWindows
    from genossm.data.windows import TiledWindows as TiledWindows

# Resolved on first use: regions and windows need no torch, only the data module needs Lightning.
_HOME = {
    "IGNORE": "batch",
    "Batch": "batch",
    "CausalCollator": "batch",
    "GenomeDataModule": "datamodule",
    "MaskedCollator": "masking",
    "Masking": "masking",
    "RandomWindows": "windows",
    "Splits": "regions",
    "TiledWindows": "windows",
    "WindowDataset": "dataset",
    "parse_regions": "regions",
}
__all__ = [
    "IGNORE",
    "Batch",
    "CausalCollator",
    "GenomeDataModule",
    "MaskedCollator",
    "Masking",
    "RandomWindows",
    "Splits",
    "TiledWindows",
    "WindowDataset",
    "parse_regions",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"genossm.data.{_HOME[name]}"), name)
    raise AttributeError(f"module 'genossm.data' has no attribute {name!r}")

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
    from genossm.data.labelled_intervals import LabelledIntervals as LabelledIntervals
    from genossm.data.labelled_intervals import read_labelled_intervals as read_labelled_intervals
    from genossm.data.labelled_sequences import LabelledSequences as LabelledSequences
    from genossm.data.labelled_sequences import read_class_folders as read_class_folders
    from genossm.data.labelled_sequences import read_sequence_table as read_sequence_table
    from genossm.data.lengths import Lengths as Lengths
    from genossm.data.lengths import Stage as Stage
    from genossm.data.lengths import StagedWindows as StagedWindows
    from genossm.data.masking import MaskedCollator as MaskedCollator
    from genossm.data.masking import Masking as Masking
    from genossm.data.regions import Splits as Splits
    from genossm.data.regions import parse_regions as parse_regions
    from genossm.data.soft_mask import SoftMaskWeights as SoftMaskWeights
    from genossm.data.splits_bed import splits_from_bed as splits_from_bed
    from genossm.data.splits_bed import subtract as subtract
    from genossm.data.tracks import BigWigTracks as BigWigTracks
    from genossm.data.tracks import TrackWindows as TrackWindows
    from genossm.data.variant_pairs import PairCollator as PairCollator
    from genossm.data.variant_pairs import VariantPairs as VariantPairs
    from genossm.data.variant_rows import VariantRows as VariantRows
    from genossm.data.variant_rows import read_variant_rows as read_variant_rows
    from genossm.data.windows import RandomWindows as RandomWindows
    from genossm.data.windows import TiledWindows as TiledWindows

# Resolved on first use: regions and windows need no torch, only the data module needs Lightning.
_HOME = {
    "SoftMaskWeights": "soft_mask",
    "StagedWindows": "lengths",
    "Stage": "lengths",
    "Lengths": "lengths",
    "read_variant_rows": "variant_rows",
    "VariantRows": "variant_rows",
    "VariantPairs": "variant_pairs",
    "PairCollator": "variant_pairs",
    "IGNORE": "batch",
    "Batch": "batch",
    "BigWigTracks": "tracks",
    "CausalCollator": "batch",
    "GenomeDataModule": "datamodule",
    "LabelledIntervals": "labelled_intervals",
    "LabelledSequences": "labelled_sequences",
    "MaskedCollator": "masking",
    "Masking": "masking",
    "RandomWindows": "windows",
    "Splits": "regions",
    "TiledWindows": "windows",
    "TrackWindows": "tracks",
    "WindowDataset": "dataset",
    "parse_regions": "regions",
    "read_class_folders": "labelled_sequences",
    "read_labelled_intervals": "labelled_intervals",
    "read_sequence_table": "labelled_sequences",
    "splits_from_bed": "splits_bed",
    "subtract": "splits_bed",
}
__all__ = [
    "IGNORE",
    "Batch",
    "BigWigTracks",
    "CausalCollator",
    "GenomeDataModule",
    "LabelledIntervals",
    "LabelledSequences",
    "Lengths",
    "MaskedCollator",
    "Masking",
    "PairCollator",
    "RandomWindows",
    "SoftMaskWeights",
    "Splits",
    "Stage",
    "StagedWindows",
    "TiledWindows",
    "TrackWindows",
    "VariantPairs",
    "VariantRows",
    "WindowDataset",
    "parse_regions",
    "read_class_folders",
    "read_labelled_intervals",
    "read_sequence_table",
    "read_variant_rows",
    "splits_from_bed",
    "subtract",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"genossm.data.{_HOME[name]}"), name)
    raise AttributeError(f"module 'genossm.data' has no attribute {name!r}")

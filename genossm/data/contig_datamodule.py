"""Loaders of a run that walks along whole contigs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.data import DataLoader

from genossm.data.contigs import ContigSweep, ContigWalks, SegmentCollator, SegmentDataset, SegmentItem
from genossm.data.datamodule import Loaders, SampleNumbers
from genossm.data.lengths import Lengths
from genossm.data.soft_mask import SoftMaskWeights

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.sequence.tokenizer import NucleotideTokenizer


class ContigDataModule(Loaders):
    """Training walks without end, and the validation stretches once, each batch going on where the one before stopped.

    For causal models. validation_batch: stretches at once over all devices.   workers: loader processes, 0 for none.
    soft_mask_weight: what soft-masked bases count in training; in validation all count alike.
    A fit that resumes from a checkpoint of step s starts with the segments of step s.
    """

    def __init__(
        self,
        genome: Genome,
        tokenizer: NucleotideTokenizer,
        train: ContigWalks,
        validation: ContigSweep,
        *,
        validation_batch: int,
        workers: int = 0,
        soft_mask_weight: float = 1.0,
    ) -> None:
        super().__init__(workers=workers)
        soft_mask = None if soft_mask_weight == 1.0 else SoftMaskWeights(genome, soft_mask_weight)
        self.train_data = SegmentDataset(genome, train, tokenizer, soft_mask)
        self.validation_data = SegmentDataset(genome, validation, tokenizer)
        self.collate = SegmentCollator(tokenizer)
        self.walks, self.sweep, self.validation_batch = train, validation, validation_batch

    def train_dataloader(self) -> DataLoader[SegmentItem]:
        step = 0 if self.trainer is None else self.trainer.global_step
        rank, ranks = self._reader()
        rows = Lengths.constant(self.walks.window, self.walks.rows)
        return self._loader(self.train_data, SampleNumbers(rows, first_step=step, rank=rank, ranks=ranks), self.collate)

    def val_dataloader(self) -> DataLoader[SegmentItem]:
        rank, ranks = self._reader()
        batches = self.sweep.batches(max(1, self.validation_batch // ranks), rank=rank, ranks=ranks)
        return self._loader(self.validation_data, batches, self.collate)

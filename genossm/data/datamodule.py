"""Loaders of a training run, as Lightning wants them."""

from __future__ import annotations

import atexit
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from torch.utils.data import DataLoader, Dataset, Sampler

from genossm.data.batch import Batch, CausalCollator
from genossm.data.dataset import WindowDataset, WindowItem
from genossm.data.lengths import Lengths
from genossm.data.lightning import require_lightning
from genossm.data.masking import MaskedCollator, Masking, as_judged
from genossm.data.soft_mask import SoftMaskWeights
from genossm.data.windows import WindowPlan

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from genossm.genome import Genome
    from genossm.sequence.tokenizer import NucleotideTokenizer
else:
    LightningDataModule = require_lightning().LightningDataModule


Collator = CausalCollator | MaskedCollator
# Seconds that a worker lives on after a request to end that did not come through its queue.
_GRACE = 120
Item = TypeVar("Item", bound=WindowItem)


class SampleNumbers(Sampler[list[int]]):
    """Batches of consecutive sample numbers without end, from training step `first_step` on.

    lengths: which samples a step has, over all ranks; rank r takes the r-th part. So a step sees the same windows
    whatever the number of ranks, workers, or interruptions before it.
    Raises: ValueError if the ranks do not divide a batch.
    """

    def __init__(self, lengths: Lengths, *, first_step: int = 0, rank: int = 0, ranks: int = 1) -> None:
        for stage in lengths.stages:
            if stage.batch % ranks:
                raise ValueError(f"A batch of {stage.batch} windows cannot be shared evenly by {ranks} devices.")
        self.lengths, self.first_step, self.rank, self.ranks = lengths, first_step, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        for step in itertools.count(self.first_step):
            samples = self.lengths.samples(step)
            share = len(samples) // self.ranks
            yield list(samples[self.rank * share : (self.rank + 1) * share])


class Loaders(LightningDataModule):
    """What data modules share. workers: loader processes, 0 for none.

    readers: how many share a batch: as many as there are ranks unless given, else groups of neighbouring ranks that
    get the same windows.
    """

    def __init__(self, *, workers: int = 0, readers: int | None = None) -> None:
        super().__init__()
        self.workers, self.readers = workers, readers

    def _reader(self) -> tuple[int, int]:
        """The number of this process's group among the readers, and theirs."""
        if self.trainer is None:
            return 0, 1
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        readers = self.readers or ranks
        return rank * readers // ranks, readers

    def _loader(
        self,
        data: Dataset[Item],
        numbers: SampleNumbers | list[list[int]],
        collate: Callable[[Sequence[Item]], Batch],
    ) -> DataLoader[Item]:
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            data,
            batch_sampler=numbers,
            collate_fn=collate,
            num_workers=self.workers,
            # Compiled kernels hold thread pools, which a forked child would inherit broken.
            multiprocessing_context="spawn" if self.workers else None,
            persistent_workers=self.workers > 0,
            worker_init_fn=_begin_worker if self.workers else None,
            pin_memory=pin,
        )


class GenomeDataModule(Loaders):
    """Training windows without end, and the validation windows once.

    batch: windows a step over all devices, or what each step reads where that changes (then of a `StagedWindows`).
    validation_batch: windows at once over all devices. workers: loader processes, 0 for none.
    masking, seed: what masked models have to predict, and what it is drawn from; None for causal models. Validation
        hides the same places every time, whatever the seed, all of them behind [MASK].
    soft_mask_weight: what soft-masked bases count in training; in validation all count alike.
    readers: how many share a batch: as many as there are ranks unless given, else groups of neighbouring ranks that
        get the same windows.
    A fit that resumes from a checkpoint of step s starts with the samples of step s.
    """

    def __init__(
        self,
        genome: Genome,
        tokenizer: NucleotideTokenizer,
        train: WindowPlan,
        validation: WindowPlan,
        *,
        batch: int | Lengths,
        validation_batch: int,
        workers: int = 0,
        masking: Masking | None = None,
        seed: int = 0,
        soft_mask_weight: float = 1.0,
        readers: int | None = None,
    ) -> None:
        super().__init__(workers=workers, readers=readers)
        soft_mask = None if soft_mask_weight == 1.0 else SoftMaskWeights(genome, soft_mask_weight)
        self.train_data = WindowDataset(genome, train, tokenizer, soft_mask)
        self.validation_data = WindowDataset(genome, validation, tokenizer)
        self.collate = _collator(tokenizer, masking, seed)
        self.collate_validation = _collator(tokenizer, masking and as_judged(masking), 0)
        self.lengths = batch if isinstance(batch, Lengths) else Lengths.constant(train.window, batch)
        self.validation_batch = validation_batch

    def train_dataloader(self) -> DataLoader[WindowItem]:
        step = 0 if self.trainer is None else self.trainer.global_step
        rank, ranks = self._reader()
        numbers = SampleNumbers(self.lengths, first_step=step, rank=rank, ranks=ranks)
        return self._loader(self.train_data, numbers, self.collate)

    def val_dataloader(self) -> DataLoader[WindowItem]:
        rank, ranks = self._reader()
        share = max(1, self.validation_batch // ranks)
        mine = range(rank, len(self.validation_data), ranks)
        numbers = [list(mine[i : i + share]) for i in range(0, len(mine), share)]
        return self._loader(self.validation_data, numbers, self.collate_validation)


def _collator(tokenizer: NucleotideTokenizer, masking: Masking | None, seed: int) -> Collator:
    return CausalCollator(tokenizer) if masking is None else MaskedCollator(tokenizer, masking, seed)


def _begin_worker(_: int) -> None:
    """Make a worker process end when the trainer says so, and then at once.

    What it owed was handed over by then, and the destructors of libraries abort now and then where a thread of theirs
    still runs, which the trainer would take for a worker that died. Ctrl-C and batch systems signal every process of a
    run; the trainer finishes its step and ends its workers itself.
    """
    atexit.register(os._exit, 0)
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        # Not for ever: a worker that hangs is terminated in the end.
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))

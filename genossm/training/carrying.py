"""Training that hands states on: along whole contigs, and from segment to segment of a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from genossm.data.batch import IGNORE, Batch
from genossm.data.contigs import SegmentBatch
from genossm.models import SequenceModel
from genossm.nn import StackState
from genossm.training.carried import SegmentPasses, packed, restarted, unpacked
from genossm.training.config import OptimizerConfig, ScheduleConfig
from genossm.training.module import LanguageModelTraining, target_nats


class CarriedTraining(LanguageModelTraining):
    """As `LanguageModelTraining`, for causal models that read windows in segments, walk along contigs, or both.

    segment: bases of a pass, None for whole windows.   carry_gradients: whether gradients flow over all segments of a
    window, or are cut between them. They are always cut between steps, whose weights differ.
    Batches of walks (`SegmentBatch`) begin with the states that the step before left, except where a row begins anew.
    A checkpoint holds them, so that a resumed run goes on bit for bit.
    """

    def __init__(
        self,
        model: SequenceModel,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        *,
        segment: int | None = None,
        carry_gradients: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, optimizer, schedule, **options)
        self.segments = SegmentPasses(segment, carry=carry_gradients)
        self.state: StackState | None = None
        self._validation_state: StackState | None = None
        self._saved: dict[str, Any] | None = None

    def passes(self, parts: Sequence[Batch], count: Tensor) -> tuple[int, Iterator[tuple[Tensor, Tensor]]]:
        number = sum(self.segments.count(part.targets.shape[1]) for part in parts)
        return number, self._passes(parts, count)

    def _passes(self, parts: Sequence[Batch], count: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        def read(piece: Batch, state: StackState | None) -> tuple[Tensor, StackState]:
            nats, after = self._read(piece, state)
            return nats / count, after

        first, left = 0, []
        for part in parts:
            rows = len(part.input_ids)
            yield from self.segments.objectives(read, part, _entering(part, self.state, first), left.append)
            first += rows
        if isinstance(parts[0], SegmentBatch):
            self.state = StackState.cat(left)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._validation_state = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        # Rows that are done are missing at the end.
        state = _entering(batch, self._validation_state, 0)
        for piece in self.segments.pieces(batch):
            nats, state = self._read(piece, state)
            self._validation_sums += torch.stack([nats.double(), (piece.targets != IGNORE).sum().double()])
        self._validation_state = state

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.state is not None:
            checkpoint["carried"] = packed(self._of_all_processes(self.state))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._saved = checkpoint.get("carried")

    def on_train_start(self) -> None:
        if self._saved is None:
            return
        state = unpacked(self._saved, self.device)
        share = state.batch_size // self.trainer.world_size
        first = share * self.trainer.global_rank
        self.state, self._saved = state.select(range(first, first + share)), None

    def _read(self, batch: Batch, state: StackState | None) -> tuple[Tensor, StackState]:
        output = self.model(batch.input_ids, state=state, return_state=True)
        assert output.state is not None
        base_ids = self.model.tokenizer.base_ids
        return target_nats(output.logits, batch.targets, base_ids, batch.weights)[0], output.state

    def _of_all_processes(self, state: StackState) -> StackState:
        """Rows of all processes, in their order."""
        if self.trainer.world_size == 1:
            return state
        content = packed(state)
        gathered: Any = self.all_gather({**content, "positions": content["positions"].to(self.device)})
        joined = [[tensor.flatten(0, 1) for tensor in layer] for layer in gathered["layers"]]
        return unpacked({"positions": gathered["positions"].flatten(0, 1), "layers": joined}, self.device)


def _entering(batch: Batch, state: StackState | None, first: int) -> StackState | None:
    """What enters the rows of `batch`, which are those of `state` from `first` on; None at a beginning of all rows."""
    if not isinstance(batch, SegmentBatch) or bool(batch.begins.all()):
        return None
    assert state is not None, "a walk goes on, and no state was kept"
    return restarted(state.select(range(first, first + len(batch.input_ids))), batch.begins)

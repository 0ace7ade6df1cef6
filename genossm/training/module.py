"""The training step: cross-entropy over A, C, G, T, checked numbers, clipped gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genossm.data.batch import IGNORE, Batch
from genossm.data.lightning import require_lightning
from genossm.nn.watching import watching_states
from genossm.parallel import (
    ContextGroup,
    gather_weights,
    process_count,
    release_weights,
    shard,
    split_context,
    summed,
    whole,
)
from genossm.sequence.interval import Interval
from genossm.training.config import OptimizerConfig, ScheduleConfig
from genossm.training.numerics import how_to_go_on, non_finite_message
from genossm.training.optim import build_optimizer, follow_config, schedule_factor
from genossm.training.watchers.measures import Measures

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from genossm.core.errors import NumericsError
    from genossm.models import SequenceModel
else:
    LightningModule = require_lightning().LightningModule
    from genossm.core.errors import NumericsError


def target_nats(
    logits: Float[Tensor, "batch length vocab"],
    targets: Int[Tensor, "batch length"],
    base_ids: tuple[int, ...],
    weights: Float[Tensor, "batch length"] | None = None,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Sum of −ln p over the target bases, p the softmax over the A, C, G, T logits, and the number of targets.

    weights: what each target counts in the sum.
    """
    first = base_ids[0]
    # Consecutive ids are a view; an index list would copy the logits.
    consecutive = base_ids == tuple(range(first, first + 4))
    bases = logits[..., first : first + 4] if consecutive else logits[..., list(base_ids)]
    flat = targets.reshape(-1)
    reduction = "sum" if weights is None else "none"
    nats = F.cross_entropy(bases.reshape(-1, 4).float(), flat, ignore_index=IGNORE, reduction=reduction)
    if weights is not None:
        nats = (nats * weights.reshape(-1)).sum()
    return nats, (flat != IGNORE).sum()


def bits(nats: float) -> float:
    """Nats to bits."""
    return nats / math.log(2.0)


class LanguageModelTraining(LightningModule):
    """Trains `model` to predict a batch's target bases: the next ones, or those that are masked.

    model: of the objective that the batches are made for; a model that reads both ways sees the next base.
    total_steps: where the schedule ends.   gradient_clip: largest norm of all gradients together, None for none.
    micro_batch: windows in one pass; a batch of more is read in parts, whose gradients add up to the whole batch's,
    each target base counting alike. None: the batch in one pass. A function of the step's number, where it changes.
    context_parallel: neighbouring processes that get the same windows and read a stretch of them each.
    sharded: weights and optimizer are spread over the processes, whose device mesh the strategy knows.
    Callbacks read `last_bits` (per base), `last_norm` and `last_rate` after a step, `validation_bits` after a
    validation, `last_intervals` for what a step read. One of them sets `has_checkpoint`, by which errors say how to go
    on. Who sets `measures` before a step finds its figures in `measured` after it, without another transfer from the
    GPU.
    Raises (in a step): NumericsError for a loss or gradient that is no finite number, before the weights change.
    """

    def __init__(
        self,
        model: SequenceModel,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        *,
        total_steps: int | None,
        gradient_clip: float | None = 1.0,
        micro_batch: int | Callable[[int], int | None] | None = None,
        context_parallel: int = 1,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        self.context_parallel, self.sharded = context_parallel, sharded
        self._context: ContextGroup | None = None
        self.model, self.micro_batch = model, micro_batch
        self.optimizer_config, self.schedule_config = optimizer, schedule
        self.total_steps, self.gradient_clip = total_steps, gradient_clip
        self.last_bits = self.last_norm = self.last_rate = self.validation_bits = float("nan")
        self.has_checkpoint = False
        self.measures: Measures | None = None
        self.measured: dict[str, float] = {}
        self._states: dict[nn.Module, list[Tensor]] = {}
        self._loss = torch.zeros(())
        self._batch: Batch | None = None
        self._validation_sums = torch.zeros(2, dtype=torch.float64)

    @property
    def last_intervals(self) -> tuple[Interval, ...]:
        """Where the windows of the step under way, or just done, stand on the genome."""
        return () if self._batch is None else self._batch.intervals

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Processes have met by now; Lightning calls this before it spreads the model over them."""
        if self.context_parallel > 1 and self._context is None:
            self._context = split_context(self.model, ContextGroup.consecutive(self.context_parallel))

    def configure_model(self) -> None:
        """Lightning calls this before every fit and validation."""
        if self.sharded and not hasattr(self.model, "unshard"):
            assert self.device_mesh is not None
            shard(self.model, self.device_mesh["data_parallel"])

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Of the windows that this process's group reads together, its own stretch."""
        return batch if self._context is None else batch.stretch(self._context.span(batch.targets.shape[1]))

    def nats(self, batch: Batch) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """Sum of −ln p over a batch's target bases, weighted if they have weights, and their number."""
        logits = self.model(batch.input_ids).logits
        return target_nats(logits, batch.targets, self.model.tokenizer.base_ids, batch.weights)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        self._batch = batch
        # Here and not in Lightning's place, which is after the forward pass: gradients of the first parts must stay.
        self.zero_grad()
        # Every target base of every process counts alike; the gradients of processes are averaged. A batch may hold no
        # target at all (windows of N, where the limit allows them).
        count = summed(batch.total_weight()).clamp(min=1) / process_count()
        rows = self.micro_batch(self.global_step) if callable(self.micro_batch) else self.micro_batch
        number, passes = self.passes(batch.split(rows or len(batch.input_ids)), count)
        objective = self._loss = torch.zeros((), device=count.device)
        with watching_states() if self.measures else nullcontext({}) as self._states:
            for left, (objective, loss) in zip(reversed(range(number)), passes, strict=True):
                self._loss = self._loss + loss
                if left:
                    with torch.autocast(count.device.type, enabled=False):
                        objective.backward()
        return objective

    def passes(self, parts: Sequence[Batch], count: Tensor) -> tuple[int, Iterator[tuple[Tensor, Tensor]]]:
        """How many passes a step makes, and one pair for each: what to run backward before the next is asked for, and
        its share of the loss. `training_step` leaves the last one's backward pass to Lightning.
        """
        losses = (self.nats(part)[0] / count for part in parts)
        return len(parts), ((loss, loss.detach()) for loss in losses)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Gradients were cleared when the step began."""

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,  # noqa: ARG002
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Check loss and gradients, then clip; Lightning calls this once a step, just before the update."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm([p.grad for p in parameters]))
        figures = torch.stack([summed(self._loss.float()) / process_count(), norm.float()])
        names = self.measures.names if self.measures else ()
        if self.measures:
            figures = torch.cat([figures, self.measures.of_step(self._states, figures.device)])
        # One transfer for all numbers: each would make a GPU wait.
        loss, total, *measured = figures.tolist()
        self.measured = dict(zip(names, measured))
        if not (math.isfinite(loss) and math.isfinite(total)):
            raise NumericsError(
                non_finite_message(
                    self.global_step,
                    loss,
                    optimizer.param_groups,
                    self.last_intervals,
                    has_checkpoint=self.has_checkpoint,
                )
            )
        if self.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.gradient_clip, norm)
        self.last_bits, self.last_norm, self.last_rate = bits(loss), total, optimizer.param_groups[0]["lr"]

    def on_validation_epoch_start(self) -> None:
        self._validation_sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        # Processes may have different numbers of windows; and the model may be saved before this ends.
        gather_weights(self.model)

    def on_validation_end(self) -> None:
        release_weights(self.model)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        self._validation_sums += torch.stack([value.double() for value in self.nats(batch)])

    def on_validation_epoch_end(self) -> None:
        sums = self.trainer.strategy.reduce(self._validation_sums, reduce_op="sum")
        total, count = torch.as_tensor(sums).tolist()
        self.validation_bits = bits(total / count) if count else float("nan")
        if not math.isfinite(self.validation_bits):
            raise NumericsError(
                f"Validation at step {self.global_step} gave {self.validation_bits} bits per base over {count:.0f} "
                f"bases. Lower optimizer.learning_rate. {how_to_go_on(self.has_checkpoint)}"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rates and decays are those of the configuration, which may have changed since; Lightning calls this."""
        rate, factor = self.optimizer_config.learning_rate, schedule_factor(self.schedule_config, self.total_steps)
        for state, schedule in zip(checkpoint["optimizer_states"], checkpoint["lr_schedulers"], strict=True):
            follow_config(state["param_groups"], self.optimizer_config, rate * factor(schedule["last_epoch"]))
            schedule["base_lrs"] = [rate] * len(schedule["base_lrs"])

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.optimizer_config)
        factor = schedule_factor(self.schedule_config, self.total_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def as_training(module: LightningModule) -> LanguageModelTraining:
    """`module`, which our callbacks need to be ours. Raises: TypeError if it is another."""
    if not isinstance(module, LanguageModelTraining):
        raise TypeError(f"This callback reads LanguageModelTraining; got {type(module).__name__}.")
    return module

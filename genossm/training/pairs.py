"""Fine-tuning on pairs of windows: a stack and a head on it learn what an allele does."""

# ruff: noqa: ARG002  (hooks have the signatures that Lightning calls)
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader

from genossm.core.errors import ConfigError, NumericsError
from genossm.data.lightning import require_lightning
from genossm.data.variant_pairs import PairBatch, PairCollator, VariantPairs
from genossm.models import SequenceModel
from genossm.nn.pair_head import PairHead
from genossm.training.config import OptimizerConfig
from genossm.training.fit import _quiet_lightning
from genossm.training.optim import parameter_groups

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule
else:
    LightningModule = require_lightning().LightningModule


@dataclass(frozen=True)
class TuningConfig:
    """epochs: over all pairs.   batch: pairs a step.   learning_rate, head_rate: of the stack and of the head.
    flank: bases on either side of an allele whose hidden states are averaged.   classes: labels are 0 and 1.
    Raises: ConfigError for values out of range.
    """

    epochs: int = 3
    batch: int = 16
    learning_rate: float = 1e-4
    head_rate: float = 1e-2
    weight_decay: float = 0.01
    flank: int = 64
    classes: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1 or min(self.learning_rate, self.head_rate) < 0 or self.flank < 0:
            raise ConfigError(
                f"{self} is not possible; wanted at least one epoch and one pair a step, rates of at least 0."
            )


class PairTraining(LightningModule):
    """Trains `model` and `head` on pairs with one label each; the learning rate falls to 0 along a line."""

    def __init__(self, model: SequenceModel, head: PairHead, config: TuningConfig, steps: int) -> None:
        super().__init__()
        self.model, self.head, self.config, self.steps = model, head, config, steps

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        predicted = self.head(
            self._mean(batch.reference, batch.reference_spans), self._mean(batch.alternative, batch.alternative_spans)
        )
        labels = batch.labels[:, 0]
        loss = (F.binary_cross_entropy_with_logits if self.config.classes else F.mse_loss)(predicted, labels)
        if not torch.isfinite(loss):
            raise NumericsError(
                f"The loss of step {self.global_step} is {float(loss)}. Lower --learning-rate or --head-rate."
            )
        return loss

    def configure_optimizers(self) -> Any:
        config = self.config
        usual = OptimizerConfig()
        groups = parameter_groups(self.model, config.weight_decay)
        for group in groups:
            group["lr"] = config.learning_rate
        groups.append(
            {"params": list(self.head.parameters()), "weight_decay": config.weight_decay, "lr": config.head_rate}
        )
        optimizer = torch.optim.AdamW(groups, betas=usual.betas, eps=usual.eps)
        falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1.0 - step / self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "step"}}

    def _mean(self, ids: Int[Tensor, "batch tokens"], spans: Int[Tensor, "batch 2"]) -> Float[Tensor, "batch d_model"]:
        """Mean hidden states around the alleles, as scoring takes it: special tokens are in no mean."""
        lead = int(self.model.begins_with_bos)
        hidden = self.model.backbone(ids)
        place = torch.arange(ids.shape[1], device=ids.device)
        first = (spans[:, :1] - self.config.flank).clamp(min=lead, max=ids.shape[1] - 1)
        last = torch.maximum(first + 1, (spans[:, 1:] + self.config.flank).clamp(max=ids.shape[1]))
        inside = ((place >= first) & (place < last)).to(hidden.dtype)
        return torch.einsum("bl,bld->bd", inside, hidden) / inside.sum(dim=1, keepdim=True)


class WindowCollator:
    """Pairs as scoring reads windows: [BOS] in front where the model begins with it, and nothing behind."""

    def __init__(self, model: SequenceModel) -> None:
        self._collate, self._lead = PairCollator(model.tokenizer), int(model.begins_with_bos)

    def __call__(self, items: list[Any]) -> PairBatch:
        batch, length = self._collate(items), len(items[0].reference)
        front = int(batch.reference_spans[0, 0]) - items[0].reference_span[0]
        cut = slice(front - self._lead, front + length)
        moved = front - self._lead
        return PairBatch(
            batch.reference[:, cut],
            batch.alternative[:, cut],
            batch.reference_spans - moved,
            batch.alternative_spans - moved,
            batch.labels,
            batch.covariates,
            batch.rows,
        )


def tune(model: SequenceModel, pairs: VariantPairs, config: TuningConfig, *, accelerator: str = "auto") -> PairHead:
    """Train the model in place, and return the head that goes with it.   pairs: shuffled, with one label each.

    Raises: NumericsError for a loss that is no number.
    """
    head = PairHead(model.config.d_model)
    loader = DataLoader(pairs, batch_size=min(config.batch, len(pairs)), collate_fn=WindowCollator(model))
    torch.manual_seed(config.seed)
    with _quiet_lightning():
        trainer = require_lightning().Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=config.epochs,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(PairTraining(model.train(), head, config, config.epochs * len(loader)), loader)
    model.eval()
    return head.cpu()

"""What several devices of a run do together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genossm.data.lightning import require_lightning
from genossm.training.config import RunConfig

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy


def build_strategy(run: RunConfig) -> Strategy | str:
    """Lightning's strategy for `run.strategy`; one device needs none."""
    require_lightning()
    if run.ranks == 1:
        return "auto"
    if run.strategy == "fsdp":
        from lightning.pytorch.strategies import ModelParallelStrategy

        # One file, with whole tensors under the names that a run on one device has.
        return ModelParallelStrategy(
            data_parallel_size=run.ranks, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    return "ddp"

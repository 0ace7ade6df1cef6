"""What several devices of a run do together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def build_plugins() -> list[Any]:
    """Slurm's environment, where a job's tasks run under srun, without Lightning's own way to requeue jobs.

    That one answers SIGUSR1 with a checkpoint of its own, in the middle of a step; ours ends a run between two steps,
    and the job's script requeues it.
    """
    require_lightning()
    from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    # torchrun inside a job of Slurm is torchrun, as Lightning has it too.
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False)]

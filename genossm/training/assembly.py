"""The loaders and the Lightning module that a configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genossm.data.contig_datamodule import ContigDataModule
from genossm.data.contigs import ContigSweep, ContigWalks
from genossm.data.datamodule import GenomeDataModule
from genossm.models import SequenceModel
from genossm.training.carrying import CarriedTraining
from genossm.training.config import TrainConfig
from genossm.training.module import LanguageModelTraining
from genossm.training.reading import Plans

if TYPE_CHECKING:
    from genossm.genome import Genome


def build_data(
    config: TrainConfig, genome: Genome, model: SequenceModel, plans: Plans
) -> GenomeDataModule | ContigDataModule:
    """Training and validation loaders over what `plan_windows` gave."""
    options: dict[str, Any] = {
        "validation_batch": config.data.validation_batch or config.data.batch,
        "workers": config.data.workers,
        "soft_mask_weight": config.data.soft_mask_weight,
    }
    train, validation = plans
    if isinstance(train, ContigWalks):
        assert isinstance(validation, ContigSweep)
        return ContigDataModule(genome, model.tokenizer, train, validation, **options)
    assert not isinstance(validation, ContigSweep)
    return GenomeDataModule(
        genome,
        model.tokenizer,
        train,
        validation,
        batch=config.lengths,
        masking=config.masking,
        seed=config.run.seed,
        readers=config.run.readers,
        **options,
    )


def build_module(config: TrainConfig, model: SequenceModel) -> LanguageModelTraining:
    """The training of `model`; one that carries states where the configuration has segments or walks."""
    lengths, data = config.lengths, config.data
    options: dict[str, Any] = {
        "total_steps": config.total_steps,
        "gradient_clip": config.run.gradient_clip,
        "micro_batch": lambda step: lengths.at(step).micro_batch,
        "sharded": config.run.strategy == "fsdp" and config.run.ranks > 1,
    }
    if data.carries_states:
        return CarriedTraining(
            model,
            config.optimizer,
            config.schedule,
            segment=data.segment,
            carry_gradients=data.carry_gradients,
            **options,
        )
    return LanguageModelTraining(
        model,
        config.optimizer,
        config.schedule,
        context_parallel=config.run.context_parallel,
        **options,
    )

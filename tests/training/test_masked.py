"""Masked runs: they learn from both flanks, stop and go on, and depend on neither workers nor strand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import genossm.genome
import genossm.training.fit as fit_module
from genossm.core.errors import ConfigError
from genossm.core.strict import from_mapping
from genossm.data.batch import IGNORE, Batch
from genossm.data.dataset import WindowItem
from genossm.data.masking import MaskedCollator, Masking
from genossm.models import SequenceModel, StackConfig, load
from genossm.sequence.interval import Interval
from genossm.testing.models import enliven
from genossm.training import LanguageModelTraining, TrainConfig, train
from genossm.training.config import OptimizerConfig, ScheduleConfig

Overrides = dict[str, Any]
KINDS = {
    "bidirectional": {"reverse_complement": "none"},
    "equivariant": {"reverse_complement": "equivariant"},
}


@pytest.fixture
def make_masked(masked: Overrides) -> Callable[..., TrainConfig]:
    """Build the masked configuration with `section__key=value` changes."""

    def make(**changes: Any) -> TrainConfig:
        for key, value in changes.items():
            section, _, name = key.partition("__")
            masked.setdefault(section, {})[name] = value
        return from_mapping(TrainConfig, masked)

    return make


Make = Callable[..., TrainConfig]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load(directory).tensors()


def assert_same_weights(left: Path, right: Path) -> None:
    others = weights(right)
    for name, tensor in weights(left).items():
        assert torch.equal(tensor, others[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_short_run_learns_to_fill_in_what_it_has_read(make_masked: Make, kind: str) -> None:
    settings = {"run__max_steps": 150, "run__validate_every": 50, "masking__fraction": 0.3}
    model = {f"model__{key}": value for key, value in KINDS[kind].items()}
    config = make_masked(**settings, **model, optimizer__learning_rate=0.02)
    result = train(config)
    # Two thirds of the toy genome are copies of one motif: a guess at the bases' frequencies needs 2 bits.
    assert result.validation_bits < 1.8
    written = load(result.model)
    assert written.objective == "masked"
    assert "masked bits per base on validation" in (result.model / "README.md").read_text()
    provenance = json.loads((result.model / "provenance.json").read_text())
    assert provenance["extra"]["config"]["masking"] == {"fraction": 0.3, "mask": 0.8, "substitute": 0.1}


def test_an_interrupted_run_goes_on_bit_for_bit(make_masked: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch import Callback, LightningModule, Trainer

    class Interrupt(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:  # noqa: ARG002
            if trainer.global_step == 7:
                raise InterruptedError

    config = make_masked()
    train(config)
    whole = config.output.directory.with_name("whole")
    shutil.move(config.output.directory, whole)
    build = fit_module.build_trainer
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "build_trainer", lambda config, callbacks: build(config, [*callbacks, Interrupt()]))
        with pytest.raises(InterruptedError):
            train(config)
    train(config, resume=True)
    assert_same_weights(whole / "model", config.output.directory / "model")


def test_workers_change_nothing(make_masked: Make) -> None:
    config = make_masked(run__max_steps=4)
    train(config)
    alone = config.output.directory.with_name("alone")
    shutil.move(config.output.directory, alone)
    train(make_masked(data__workers=2))
    assert_same_weights(alone / "model", config.output.directory / "model")


def test_a_run_is_not_resumed_with_another_mask(make_masked: Make) -> None:
    train(make_masked(run__max_steps=2))
    with pytest.raises(ConfigError, match=r"other values of masking\.fraction"):
        train(make_masked(masking__fraction=0.3), resume=True)


def masked_module(kind: str) -> LanguageModelTraining:
    torch.manual_seed(0)
    config = StackConfig(d_model=8, n_layer=2, d_state=4, direction="bidirectional", objective="masked", **KINDS[kind])
    return LanguageModelTraining(
        enliven(SequenceModel(config)), OptimizerConfig(), ScheduleConfig(), total_steps=10, gradient_clip=None
    )


def hidden_batch(module: LanguageModelTraining, letters: str = "ACGTNACGGTTACGTA") -> Batch:
    tokenizer = module.model.tokenizer
    ids = np.concatenate([[tokenizer.bos_id], tokenizer.encode(letters)]).astype(np.uint8)
    return MaskedCollator(tokenizer, Masking(0.4), 1)([WindowItem(ids, Interval("x", 0, len(letters)), 0)])


@pytest.mark.parametrize("kind", KINDS)
def test_one_window_can_be_learnt_by_heart(kind: str) -> None:
    torch.manual_seed(0)
    config = StackConfig(
        d_model=32, n_layer=2, d_state=4, d_conv=8, direction="bidirectional", objective="masked", **KINDS[kind]
    )
    module = LanguageModelTraining(
        SequenceModel(config),
        OptimizerConfig(learning_rate=0.02, weight_decay=0.0),
        ScheduleConfig(kind="constant", warmup_steps=0),
        total_steps=None,
    )
    letters = "".join(np.random.default_rng(1).choice(list("ACGT"), 120))
    batch = hidden_batch(module, letters)
    optimizer = module.configure_optimizers()["optimizer"]
    for _ in range(100):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
    # Two bits are a guess; what is left after learning by heart is as good as nothing.
    assert module.last_bits < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_of_the_hidden_bases_at_their_own_places(kind: str) -> None:
    module = masked_module(kind)
    batch = hidden_batch(module)
    nats, count = module.nats(batch)
    logits = module.model(batch.input_ids).logits[0].detach().double()
    expected = 0.0
    for place, target in enumerate(batch.targets[0].tolist()):
        if target != IGNORE:
            four = logits[place, 7:11]
            expected += float(torch.logsumexp(four, 0) - four[target])
    assert int(count) == int((batch.targets != IGNORE).sum()) > 0
    assert nats.item() == pytest.approx(expected, rel=1e-5)


def test_an_equivariant_model_learns_the_same_from_either_strand() -> None:
    module = masked_module("equivariant").double()
    plus = hidden_batch(module)
    complement = torch.tensor(module.model.tokenizer.complement_ids)
    swapped = torch.where(plus.targets == IGNORE, IGNORE, 3 - plus.targets)
    minus = Batch(complement[plus.input_ids.long()].flip(1), swapped.flip(1), plus.intervals)
    gradients = []
    for batch in (plus, minus):
        module.zero_grad()
        module.training_step(batch, 0).backward()
        gradients.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
    assert gradients[0]
    for name, gradient in gradients[0].items():
        # All in float64 but the softmax, whose float32 rounding each of the targets brings once.
        bound = 4 * torch.finfo(torch.float32).eps * int((plus.targets != IGNORE).sum()) * float(gradient.abs().max())
        torch.testing.assert_close(gradients[1][name], gradient, atol=bound, rtol=0.0, msg=name)


def test_the_windows_are_those_of_the_causal_run(mapping: Overrides, masked: Overrides) -> None:
    """Masks take nothing from the stream that windows are drawn from."""
    from genossm.training.run import plan_windows

    configs = [from_mapping(TrainConfig, content) for content in (mapping, masked)]
    with genossm.genome.open(configs[0].genome.path) as genome:
        plans = [plan_windows(config, genome)[0] for config in configs]
        assert [plans[0].interval(n) for n in range(50)] == [plans[1].interval(n) for n in range(50)]

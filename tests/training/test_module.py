"""The step: what the loss is, and what stops it."""

from __future__ import annotations

import math

import pytest
import torch

from genossm.core.errors import NumericsError
from genossm.data.batch import IGNORE, Batch, CausalCollator
from genossm.data.dataset import WindowItem
from genossm.models import SequenceModel, StackConfig
from genossm.sequence import NucleotideTokenizer
from genossm.sequence.interval import Interval
from genossm.training.config import OptimizerConfig, ScheduleConfig
from genossm.training.module import LanguageModelTraining, target_nats

TOKENIZER = NucleotideTokenizer(special_tokens="bos")


def make_module(gradient_clip: float | None = 1.0) -> LanguageModelTraining:
    torch.manual_seed(0)
    model = SequenceModel(StackConfig(d_model=8, n_layer=2, d_state=4))
    return LanguageModelTraining(
        model, OptimizerConfig(), ScheduleConfig(), total_steps=10, gradient_clip=gradient_clip
    )


def make_batch(letters: str = "ACGTNACGTA") -> Batch:
    item = WindowItem(TOKENIZER.encode(letters, add_special_tokens=True), Interval("x", 0, len(letters)), 0)
    return CausalCollator(TOKENIZER)([item])


def test_the_loss_is_the_softmax_over_the_four_bases_alone() -> None:
    logits = torch.randn(2, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, IGNORE, 3], [2, 1, IGNORE]])
    expected = 0.0
    for row in range(2):
        for place in range(3):
            if targets[row, place] != IGNORE:
                four = logits[row, place, 7:11]
                expected += float(torch.logsumexp(four, 0) - four[targets[row, place]])
    for base_ids in ((7, 8, 9, 10), (10, 8, 9, 7)):
        chosen = targets if base_ids[0] == 7 else torch.where(targets == 0, 3, torch.where(targets == 3, 0, targets))
        nats, count = target_nats(logits, chosen, base_ids)
        assert float(nats) == pytest.approx(expected, rel=1e-6)
        assert int(count) == 4


def test_a_batch_without_any_target_is_no_accident() -> None:
    module = make_module()
    batch = Batch(torch.tensor([[2, 11, 11]]), torch.full((1, 3), IGNORE), (Interval("x", 0, 3),))
    loss = module.training_step(batch, 0)
    loss.backward()
    assert loss.item() == 0.0
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_parts_add_up_to_the_batch_whatever_share_of_targets_they_hold(micro_batch: int) -> None:
    rows = [make_batch(letters) for letters in ("ACGTACGTAC", "NNNNNNNNNA", "GGNNTTNNCC", "NNNNNNNNNN", "TTGACCATGA")]
    batch = Batch(
        torch.cat([row.input_ids for row in rows]),
        torch.cat([row.targets for row in rows]),
        tuple(row.intervals[0] for row in rows),
    )
    found: list[tuple[float, list[torch.Tensor]]] = []
    for size in (None, micro_batch):
        module = make_module(None)
        module.micro_batch = size
        optimizer = module.configure_optimizers()["optimizer"]
        for _ in range(2):  # what one step leaves must not reach the next
            module.training_step(batch, 0).backward()
            module.configure_gradient_clipping(optimizer)
        found.append((module.last_bits, [p.grad for p in module.parameters() if p.grad is not None]))
    (bits, whole), (bits_of_parts, added) = found
    assert bits_of_parts == pytest.approx(bits, rel=1e-6)
    for one, other in zip(whole, added, strict=True):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-4)


def step(module: LanguageModelTraining, batch: Batch) -> float:
    """Forward, backward and clipping; returns the norm of the gradients afterwards."""
    optimizer = module.configure_optimizers()["optimizer"]
    module.training_step(batch, 0).backward()
    module.configure_gradient_clipping(optimizer)
    return float(torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None]))


def test_clipping_bounds_the_norm_of_all_gradients_together() -> None:
    free = step(make_module(None), make_batch())
    assert step(make_module(free / 3), make_batch()) == pytest.approx(free / 3, rel=1e-4)
    assert step(make_module(free * 3), make_batch()) == pytest.approx(free, rel=1e-6)
    module = make_module(free / 3)
    step(module, make_batch())
    # The log shows what came, not what was left of it.
    assert module.last_norm == pytest.approx(free, rel=1e-6)
    assert module.last_bits == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize(
    ("name", "group"),
    [("backbone.layers.1.mixer.A_log", "no_decay"), ("backbone.layers.0.mixer.in_proj.weight", "decay")],
)
def test_a_broken_weight_is_named_with_its_group_and_the_batch(name: str, group: str) -> None:
    module = make_module()
    with torch.no_grad():
        module.model.get_parameter(name).view(-1)[0] = math.nan
    with pytest.raises(NumericsError) as caught:
        step(module, make_batch())
    message = str(caught.value)
    assert "step 0" in message
    assert "the loss is nan" in message
    assert f"weight that is not finite belongs to {name} (parameter group {group!r})" in message
    assert "x:1-10" in message


def test_a_broken_gradient_stops_before_the_weights_change() -> None:
    module = make_module()
    broken = module.model.get_parameter("backbone.layers.1.mixer.D")
    broken.register_hook(lambda gradient: gradient * math.inf)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    with pytest.raises(NumericsError, match=r"gradient that is not finite belongs to backbone\.layers\.1\.mixer\.D "):
        step(module, make_batch())
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())


def test_a_norm_that_overflows_is_told_from_a_nan() -> None:
    module = make_module()
    for parameter in module.parameters():
        parameter.register_hook(lambda gradient: torch.full_like(gradient, 1e30))
    with pytest.raises(NumericsError, match="norm of the gradients overflows"):
        step(module, make_batch())


def test_a_long_batch_names_its_first_windows_and_counts_the_rest() -> None:
    module = make_module()
    batch = make_batch()
    rows = Batch(
        batch.input_ids.repeat(6, 1),
        batch.targets.repeat(6, 1),
        tuple(Interval("x", 10 * i, 10 * i + 10) for i in range(6)),
    )
    with torch.no_grad():
        module.model.backbone.embedding.weight.fill_(math.inf)
    with pytest.raises(NumericsError, match=r"x:1-10, x:11-20, x:21-30, x:31-40 and 2 more"):
        step(module, rows)

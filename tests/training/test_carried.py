"""States handed from segment to segment: the laws of truncated back-propagation, exact where nothing is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from genossm.data.batch import IGNORE, Batch
from genossm.data.contigs import SegmentBatch
from genossm.models import SequenceModel, StackConfig
from genossm.nn import StackState
from genossm.sequence.interval import Interval
from genossm.training.carried import packed, restarted, unpacked
from genossm.training.carrying import CarriedTraining
from genossm.training.config import OptimizerConfig, ScheduleConfig
from genossm.training.module import LanguageModelTraining

ROWS, LENGTH = 3, 48


def make(dtype: torch.dtype = torch.float64, **options: Any) -> CarriedTraining:
    torch.manual_seed(0)
    # Slow steps remember longer than a segment.
    model = SequenceModel(StackConfig(8, 2, d_state=4, dt_min=0.05, dt_max=0.5)).to(dtype)
    return CarriedTraining(
        model,
        OptimizerConfig(),
        ScheduleConfig(),
        total_steps=10,
        gradient_clip=None,
        **options,
    )


@pytest.fixture
def bases() -> torch.Tensor:
    """(rows, length + 1) true bases 0..3, some of which are unknown (4)."""
    return torch.randint(5, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(1))


def windows(bases: torch.Tensor, start: int = 0, end: int = LENGTH, begins: Sequence[bool] | None = None) -> Batch:
    targets = bases[:, start + 1 : end + 1]
    targets = torch.where(targets == 4, IGNORE, targets)
    ids = (bases + 7)[:, start:end].to(torch.uint8)
    intervals = tuple(Interval("x", start, end) for _ in bases)
    return (
        Batch(ids, targets, intervals)
        if begins is None
        else SegmentBatch(ids, targets, intervals, torch.tensor(begins))
    )


def step(module: LanguageModelTraining, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss in bits and the gradients of one training step."""
    optimizer = module.configure_optimizers()["optimizer"]
    module.training_step(batch, 0).backward()
    module.configure_gradient_clipping(optimizer)
    return module.last_bits, {n: p.grad.clone() for n, p in module.model.named_parameters() if p.grad is not None}


def long_pass(bases: torch.Tensor, dtype: torch.dtype = torch.float64) -> tuple[float, dict[str, torch.Tensor]]:
    return step(make(dtype), windows(bases))


def distance(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """Largest difference of any gradient, relative to the largest gradient of its parameter."""
    assert found.keys() == wanted.keys()
    return max(float((found[n].double() - w.double()).abs().max() / w.double().abs().max()) for n, w in wanted.items())


@pytest.mark.parametrize("segment", [1, 7, 16, 24, 48, 100])
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_carried_gradients_are_those_of_one_long_pass(
    bases: torch.Tensor, segment: int, micro_batch: int | None
) -> None:
    bits, gradients = long_pass(bases)
    found = step(make(segment=segment, carry_gradients=True, micro_batch=micro_batch), windows(bases))
    assert found[0] == pytest.approx(bits, rel=1e-6)  # the log is float32
    assert distance(found[1], gradients) < 1e-12


def test_in_float32_they_are_so_to_rounding(bases: torch.Tensor) -> None:
    _, exact = long_pass(bases)
    _, plain = long_pass(bases, torch.float32)
    _, carried = step(make(torch.float32, segment=7, carry_gradients=True), windows(bases))
    assert distance(carried, exact) <= 2 * distance(plain, exact) + 1e-7


def test_in_mixed_precision_every_weight_has_its_gradient(bases: torch.Tensor) -> None:
    found = []
    both: list[dict[str, Any]] = [{}, {"segment": 16, "carry_gradients": True}]
    for options in both:
        module = make(torch.float32, **options)
        optimizer = module.configure_optimizers()["optimizer"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            objective = module.training_step(windows(bases), 0)
        objective.backward()
        module.configure_gradient_clipping(optimizer)
        found.append({n: p.grad.clone() for n, p in module.model.named_parameters() if p.grad is not None})
    # One in 256 is what bfloat16 knows.
    assert distance(found[1], found[0]) < 0.05


def test_cut_gradients_have_the_loss_of_a_long_pass_and_other_gradients(bases: torch.Tensor) -> None:
    bits, gradients = long_pass(bases)
    found = step(make(segment=16), windows(bases))
    assert found[0] == pytest.approx(bits, rel=1e-6)
    assert 1e-4 < distance(found[1], gradients) < 1.0


def test_cut_gradients_are_those_of_segments_whose_states_are_given(bases: torch.Tensor) -> None:
    _, found = step(make(segment=16), windows(bases))
    module = make()
    state: StackState | None = None
    batch = windows(bases)
    count = (batch.targets != IGNORE).sum()
    for piece in (batch.stretch(slice(first, first + 16)) for first in (0, 16, 32)):
        nats, after = module._read(piece, state)
        (nats / count).backward()
        state = after.detach()
    wanted = {n: p.grad for n, p in module.model.named_parameters() if p.grad is not None}
    assert distance(found, wanted) < 1e-14


def test_steps_of_a_walk_have_the_losses_of_a_long_pass(bases: torch.Tensor) -> None:
    bits, _ = long_pass(bases)
    module = make()
    total = count = 0.0
    for start in range(0, LENGTH, 12):
        batch = windows(bases, start, start + 12, [start == 0] * ROWS)
        found, _ = step(module, batch)
        here = int((batch.targets != IGNORE).sum())
        total, count = total + found * here, count + here
    assert total / count == pytest.approx(bits, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"micro_batch": 2}, {"segment": 4}, {"segment": 4, "carry_gradients": True}])
def test_a_row_that_begins_anew_knows_nothing_of_what_came_before(bases: torch.Tensor, options: dict[str, Any]) -> None:
    other = torch.where(torch.arange(LENGTH + 1) < 12, (bases + 1) % 4, bases)
    found = []
    for before in (bases, other):
        module = make(**options)
        step(module, windows(before, 0, 12, [True] * ROWS))
        step(module, windows(bases, 12, 24, [False, True, False]))
        assert module.state is not None
        found.append(module.state)
    first, second = found
    for left, right in zip(first.layers, second.layers):
        # The row in the middle began anew; its neighbours remember what differed.
        assert torch.equal(left.scan[1], right.scan[1])
        assert torch.equal(left.conv[1], right.conv[1])
        assert not torch.equal(left.scan[0], right.scan[0])
        assert not torch.equal(left.scan[2], right.scan[2])
    assert first.positions.tolist() == [24, 12, 24]
    fresh = make(**options)
    step(fresh, windows(bases[1:2], 12, 24, [True]))
    assert fresh.state is not None
    torch.testing.assert_close(fresh.state.layers[1].scan[0], first.layers[1].scan[1], rtol=1e-12, atol=1e-14)


def test_no_gradient_reaches_the_step_before(bases: torch.Tensor) -> None:
    module = make(segment=4, carry_gradients=True)
    step(module, windows(bases, 0, 12, [True] * ROWS))
    assert module.state is not None
    assert not any(t.requires_grad for layer in module.state.layers for t in (layer.conv, layer.scan))


def test_restarted_rows_are_zero_whatever_they_held() -> None:
    module = make()
    batch = windows(torch.zeros(2, 9, dtype=torch.int64), 0, 8)
    _, state = module._read(batch, None)
    state = state.detach()
    state.layers[0].scan[0] = torch.nan
    anew = restarted(state, torch.tensor([True, False]))
    assert not anew.layers[0].scan[0].any()
    assert torch.equal(anew.layers[0].scan[1], state.layers[0].scan[1])
    assert anew.positions.tolist() == [0, 8]
    # The state that was given is left as it was.
    assert state.layers[0].scan[0].isnan().all()


def test_a_state_comes_back_from_a_checkpoint_bit_for_bit(bases: torch.Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = make(torch.float32)._read(windows(bases), None)
    back = unpacked(packed(state.detach()), torch.device("cpu"))
    assert torch.equal(back.positions, state.positions)
    for left, right in zip(back.layers, state.layers, strict=True):
        assert (left.conv.dtype, left.scan.dtype) == (right.conv.dtype, right.scan.dtype)
        assert torch.equal(left.conv, right.conv)
        assert torch.equal(left.scan, right.scan)

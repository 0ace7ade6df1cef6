"""Which weights decay, and how fast they move."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.models import SequenceModel, StackConfig
from genossm.training.config import OptimizerConfig, ScheduleConfig
from genossm.training.optim import build_optimizer, parameter_groups, schedule_factor

CONFIG = {"d_model": 8, "n_layer": 2, "d_state": 4}


def names(model: SequenceModel, **options: bool) -> dict[str, set[str]]:
    groups = parameter_groups(model, 0.3, **options)
    assert {group["name"]: group["weight_decay"] for group in groups} == {"decay": 0.3, "no_decay": 0.0}
    return {group["name"]: set(group["parameter_names"]) for group in groups}


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_only_matrices_and_convolutions_decay(norm: str) -> None:
    model = SequenceModel(StackConfig(**CONFIG, norm=norm, proj_bias=True))  # type: ignore[arg-type]
    found = names(model)
    kinds = ("in_proj.weight", "conv1d.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight")
    assert found["decay"] == {f"backbone.layers.{i}.mixer.{kind}" for i in range(2) for kind in kinds}
    assert found["decay"] | found["no_decay"] == {name for name, _ in model.named_parameters()}
    assert not found["decay"] & found["no_decay"]
    for rest in ("layers.0.mixer.A_log", "layers.1.mixer.D", "layers.0.mixer.dt_proj.bias", "norm_f.weight"):
        assert f"backbone.{rest}" in found["no_decay"]


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_decay_by_choice_and_an_untied_head_always(tied: bool) -> None:
    model = SequenceModel(StackConfig(**CONFIG, tie_embeddings=tied))
    assert "backbone.embedding.weight" in names(model)["no_decay"]
    assert "backbone.embedding.weight" in names(model, decay_embeddings=True)["decay"]
    assert ("head.weight" in names(model)["decay"]) is not tied


def test_frozen_weights_are_left_out() -> None:
    model = SequenceModel(StackConfig(**CONFIG))
    model.backbone.embedding.weight.requires_grad_(False)
    assert "backbone.embedding.weight" not in names(model)["no_decay"]


def test_a_step_without_gradient_shrinks_exactly_the_decaying_weights() -> None:
    model = SequenceModel(StackConfig(**CONFIG))
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decaying = names(model)["decay"]
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if name in decaying else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    factor = schedule_factor(ScheduleConfig(warmup_steps=4, final_fraction=0.2), total_steps=12)
    assert [factor(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert factor(4) == 1.0
    assert factor(8) == pytest.approx(0.2 + 0.8 * 0.5)
    assert factor(6) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert factor(12) == pytest.approx(0.2)
    assert factor(100) == pytest.approx(0.2)


@settings(deadline=None, max_examples=50)
@given(warmup=st.integers(0, 20), total=st.integers(1, 60), final=st.floats(0, 1))
def test_the_rate_never_leaves_its_bounds_and_falls_after_warm_up(warmup: int, total: int, final: float) -> None:
    factor = schedule_factor(ScheduleConfig(warmup_steps=warmup, final_fraction=final), total)
    values = [factor(step) for step in range(total + 5)]
    assert all(0 < value <= 1 or value == final for value in values)
    after = values[warmup:]
    assert all(left >= right - 1e-12 for left, right in pairwise(after))


def test_a_constant_rate_stays() -> None:
    factor = schedule_factor(ScheduleConfig(kind="constant", warmup_steps=2), None)
    assert [factor(step) for step in (0, 1, 2, 1000)] == [0.5, 1.0, 1.0, 1.0]

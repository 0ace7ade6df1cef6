"""StackConfig: what is accepted, and what the refusals say."""

from __future__ import annotations

import pytest

from genossm.core.errors import ConfigError
from genossm.core.strict import from_mapping, to_mapping
from genossm.nn import StackConfig


def test_sizes_follow_from_width() -> None:
    config = StackConfig(d_model=100, n_layer=2, expand=3)
    assert config.d_inner == 300
    assert config.step_rank == 7
    assert StackConfig(d_model=100, n_layer=2, dt_rank=5).step_rank == 5


def test_mapping_round_trip() -> None:
    config = StackConfig(d_model=24, n_layer=3, dt_rank=2, norm="layer", tie_embeddings=False, backend="cpu")
    assert from_mapping(StackConfig, to_mapping(config)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_modle": 8}, "Did you mean 'd_model'"),
        ({"d_model": 0}, "d_model is 0"),
        ({"n_layer": True}, "n_layer"),
        ({"d_conv": 0}, "d_conv is 0"),
        ({"dt_rank": 0}, "dt_rank is 0"),
        ({"dt_rank": "automatic"}, "dt_rank"),
        ({"dt_min": 0.5}, "dt_min is 0.5 and dt_max 0.1"),
        ({"dt_scale": 0.0}, "dt_scale is 0.0"),
        ({"initializer_range": -1.0}, "initializer_range is -1.0"),
        ({"mixer": "mamba3"}, "mixer: got 'mamba3'"),
        ({"norm": "batch"}, "norm: got 'batch'"),
        ({"objective": "next"}, "objective: got 'next'"),
        ({"backend": "gpu"}, "backend: got 'gpu'"),
    ],
)
def test_refusals_name_the_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(StackConfig, {"d_model": 8, "n_layer": 1, **change})


@pytest.mark.parametrize("change", [{"mixer": "hyena"}, {"objective": "next"}, {"backend": "gpu"}, {"norm": "none"}])
def test_python_callers_are_refused_as_files_are(change: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change.values()))):
        StackConfig(d_model=8, n_layer=1, **change)  # type: ignore[arg-type]

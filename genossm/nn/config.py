"""`StackConfig`: every choice that shapes a stack of layers, in one frozen dataclass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from genossm.core.errors import ConfigError

Backend = Literal["auto", "reference", "cpu", "torch", "cuda", "mamba_ssm"]


@dataclass(frozen=True)
class StackConfig:
    """Shape and initialisation of a stack of mixers with an embedding below and a head above.

    Args:
        d_model: channels of the residual stream.   n_layer: number of blocks.
        vocab_size: rows of the embedding and of the head, padding included.
        mixer: what mixes along the sequence.
        direction: "causal": a position sees itself and what lies before it.
        reverse_complement: "none": the strands are not tied to one another.
        objective: what the head predicts: "causal" is the next token.
        d_state: numbers a channel remembers.   d_conv: taps of the short convolution.   expand: d_inner / d_model.
        dt_rank: rank of the step-size projection; "auto" is ceil(d_model / 16).
        dt_min, dt_max, dt_init_floor: range, and least value, of the step sizes at initialisation, in tokens.
        dt_scale: scale of the step-size projection at initialisation.
        conv_bias, proj_bias: biases of the convolution, and of the projections in and out.
        norm: "rms" or "layer", before every mixer and after the last.   norm_eps: added to the variance.
        residual_in_fp32: keep the residual stream in float32 when the weights are narrower.
        tie_embeddings: the head uses the embedding's weights.
        initializer_range: standard deviation of the embedding at initialisation.
        rescale_prenorm_residual: divide `out_proj` at initialisation by sqrt(number of residual additions).
        backend: which implementation of the operators runs; "auto" chooses by device.

    Raises: ConfigError for a value out of range or a combination that does not exist.
    Source: Gu & Dao 2023, "Mamba", sections 3.6 and E.2.1 for the defaults.
    """

    d_model: int
    n_layer: int
    vocab_size: int = 16
    mixer: Literal["mamba1"] = "mamba1"
    direction: Literal["causal"] = "causal"
    reverse_complement: Literal["none"] = "none"
    objective: Literal["causal"] = "causal"
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int | Literal["auto"] = "auto"
    dt_min: float = 0.001
    dt_max: float = 0.1
    dt_init_floor: float = 1e-4
    dt_scale: float = 1.0
    conv_bias: bool = True
    proj_bias: bool = False
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    residual_in_fp32: bool = True
    tie_embeddings: bool = True
    initializer_range: float = 0.02
    rescale_prenorm_residual: bool = True
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layer", "vocab_size", "d_state", "d_conv", "expand"):
            _require_positive(name, getattr(self, name))
        if self.dt_rank != "auto":
            _require_positive("dt_rank", self.dt_rank)
        if not 0 < self.dt_min <= self.dt_max:
            raise ConfigError(f"dt_min is {self.dt_min} and dt_max {self.dt_max}; wanted 0 < dt_min <= dt_max.")
        for name in ("dt_init_floor", "dt_scale", "norm_eps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; wanted a positive number.")
        if self.initializer_range < 0:
            raise ConfigError(f"initializer_range is {self.initializer_range}; wanted 0 or more.")
        self._require_what_exists()

    def _require_what_exists(self) -> None:
        existing = {
            "mixer": ("mamba1",),
            "direction": ("causal",),
            "reverse_complement": ("none",),
            "objective": ("causal",),
            "norm": ("rms", "layer"),
            "backend": ("auto", "reference", "cpu", "torch", "cuda", "mamba_ssm"),
        }
        for name, values in existing.items():
            if getattr(self, name) not in values:
                choices = ", ".join(map(repr, values))
                raise ConfigError(f"{name} is {getattr(self, name)!r}; this version of genossm has {choices}.")

    @property
    def d_inner(self) -> int:
        """Channels inside a mixer."""
        return self.expand * self.d_model

    @property
    def step_rank(self) -> int:
        """`dt_rank` as a number."""
        return math.ceil(self.d_model / 16) if self.dt_rank == "auto" else self.dt_rank


def _require_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} is {value!r}; wanted a whole number of at least 1.")

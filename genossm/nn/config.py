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
        d_model: channels of the residual stream, of both strands together.   n_layer: number of blocks.
        vocab_size: rows of the embedding and of the head, padding included.
        mixer: what mixes along the sequence.
        direction: "causal": a position sees itself and what lies before it. "bidirectional": every layer reads both
            ways and sums.
        tie_directions: the two directions of a layer share the projections in and out.
        reverse_complement: "equivariant": every layer reads both strands with the same weights, each with half of the
            channels, so that the reverse complement of the input gives the reverse complement of the output. Not with
            causal: the other strand reads from the end, and what it sees would be the future.
        strand_exchange: with equivariant, the strands' channels change places before every block, as Caduceus does
            where it fuses addition and norm. For its checkpoints; new models have no use for it.
        objective: what the head predicts: "causal" is the next token, "masked" the token itself behind [MASK].
        d_state: numbers a channel remembers.   d_conv: taps of the short convolution.   expand: d_inner / d_model.
        dt_rank: rank of the step-size projection; "auto" is ceil(channels of a strand / 16).
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
    direction: Literal["causal", "bidirectional"] = "causal"
    tie_directions: bool = True
    reverse_complement: Literal["none", "equivariant"] = "none"
    strand_exchange: bool = False
    objective: Literal["causal", "masked"] = "causal"
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
        self._require_what_goes_together()

    def _require_what_exists(self) -> None:
        existing = {
            "mixer": ("mamba1",),
            "direction": ("causal", "bidirectional"),
            "reverse_complement": ("none", "equivariant"),
            "objective": ("causal", "masked"),
            "norm": ("rms", "layer"),
            "backend": ("auto", "reference", "cpu", "torch", "cuda", "mamba_ssm"),
        }
        for name, values in existing.items():
            if getattr(self, name) not in values:
                choices = ", ".join(map(repr, values))
                raise ConfigError(f"{name} is {getattr(self, name)!r}; this version of genossm has {choices}.")

    def _require_what_goes_together(self) -> None:
        if self.equivariant and self.direction == "causal":
            raise ConfigError(
                "reverse_complement is 'equivariant' and direction 'causal': the other strand reads from the end, so "
                "that every position would see its future. Set direction to 'bidirectional'."
            )
        if self.equivariant and self.d_model % 2:
            raise ConfigError(
                f"d_model is {self.d_model}; the two strands of an equivariant model share it equally. Make it even."
            )
        if self.strand_exchange and not self.equivariant:
            raise ConfigError("strand_exchange is set and reverse_complement is 'none': there is one strand alone.")
        wanted = "causal" if self.direction == "causal" else "masked"
        if self.objective != wanted:
            raise ConfigError(
                f"objective is {self.objective!r} and direction {self.direction!r}; wanted the objective {wanted!r}."
            )

    @property
    def equivariant(self) -> bool:
        """Whether both strands are read with the same weights."""
        return self.reverse_complement == "equivariant"

    @property
    def d_strand(self) -> int:
        """Channels that one strand has of the residual stream."""
        return self.d_model // 2 if self.equivariant else self.d_model

    @property
    def d_inner(self) -> int:
        """Channels inside a mixer."""
        return self.expand * self.d_strand

    @property
    def step_rank(self) -> int:
        """`dt_rank` as a number."""
        return math.ceil(self.d_strand / 16) if self.dt_rank == "auto" else self.dt_rank


def _require_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} is {value!r}; wanted a whole number of at least 1.")

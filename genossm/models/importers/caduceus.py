"""Caduceus' layout: `CaduceusForMaskedLM.save_pretrained`, both the Ph and the PS kind.

With strand sharing (`rcps`) an unfused and a fused norm are different functions: fused, the halves of the channels
change places at the entry of every block (our `strand_exchange`), and the norms have other names. Without strand
sharing the two agree. Tied tensors may stand in the file or not. The vocabulary's padded size is the one in the config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from genossm.core.errors import ConfigError, ModelFormatError
from genossm.core.strict import from_mapping
from genossm.models.importers.checkpoint import require_nucleotides
from genossm.models.importers.huggingface import INERT
from genossm.models.importers.mamba_ssm import MixerSettings, padded
from genossm.models.importers.renaming import drop_copies
from genossm.nn import StackConfig
from genossm.sequence import NucleotideTokenizer

_BACKBONE = "caduceus.backbone."


@dataclass(frozen=True)
class InitializerSettings:
    """`initializer_cfg`."""

    initializer_range: float = 0.02
    rescale_prenorm_residual: bool = True
    n_residuals_per_layer: int = 1


@dataclass(frozen=True)
class Settings:
    """config.json, with the defaults of the authors' CaduceusConfig.

    bidirectional is text in some released files ("true,").
    """

    d_model: int = 2560
    n_layer: int = 64
    vocab_size: int = 50277
    ssm_cfg: dict[str, Any] = field(default_factory=dict)
    rms_norm: bool = True
    residual_in_fp32: bool = True
    fused_add_norm: bool = True
    pad_vocab_size_multiple: int = 8
    norm_epsilon: float = 1e-5
    initializer_cfg: InitializerSettings = InitializerSettings()
    bidirectional: bool | str = True
    bidirectional_strategy: Literal["add"] | None = "add"
    bidirectional_weight_tie: bool = True
    rcps: bool = False
    complement_map: dict[str, int] | None = None
    tie_word_embeddings: bool = True


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether a config.json looks like this layout."""
    return config.get("model_type") == "caduceus"


def stack_config(config: Mapping[str, Any]) -> StackConfig:
    """What the source's configuration means here.

    Raises: ConfigError for keys or values it cannot have; ModelFormatError for one that contradicts itself or asks
    for what is not built here.
    """
    own = {key: value for key, value in config.items() if key not in INERT and key != "model_type"}
    settings = from_mapping(Settings, own, where="config.json")
    if str(settings.bidirectional).strip(", ").lower() != "true":
        raise ModelFormatError(f"config.json: bidirectional is {settings.bidirectional!r}; wanted true.")
    require_nucleotides(settings.vocab_size, "config.json")
    mixer = from_mapping(MixerSettings, settings.ssm_cfg, where="config.json: ssm_cfg")
    if settings.rcps:
        _check_complement(settings.complement_map)
    return StackConfig(
        d_model=settings.d_model * (2 if settings.rcps else 1),
        n_layer=settings.n_layer,
        vocab_size=padded(settings.vocab_size, settings.pad_vocab_size_multiple),
        direction="bidirectional",
        objective="masked",
        tie_directions=settings.bidirectional_weight_tie,
        reverse_complement="equivariant" if settings.rcps else "none",
        strand_exchange=settings.rcps and settings.fused_add_norm,
        norm="rms" if settings.rms_norm else "layer",
        norm_eps=settings.norm_epsilon,
        residual_in_fp32=settings.residual_in_fp32,
        tie_embeddings=settings.tie_word_embeddings,
        initializer_range=settings.initializer_cfg.initializer_range,
        rescale_prenorm_residual=settings.initializer_cfg.rescale_prenorm_residual,
        **mixer.stack_fields(),
    )


def rename(tensors: Mapping[str, Tensor], config: StackConfig) -> dict[str, Tensor]:
    """The source's tensors under our names; names that this layout does not have stay as they are.

    Raises: ModelFormatError if a copy of a tied tensor differs, or the complement in the file is not that of the bases.
    """
    ours = {theirs: name for name, theirs in _their_names(config).items()}
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if config.equivariant and name.endswith("complement_map"):
            _check_complement({str(place): int(value) for place, value in enumerate(tensor.tolist())})
        else:
            renamed[ours.get(name, name)] = tensor
    return drop_copies(renamed, _copies(config))


def export(tensors: Mapping[str, Tensor], config: StackConfig) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors as the authors' class writes them, tied ones once.

    tensors: of a model of ours, by our names.
    Raises: ConfigError for a model that their code cannot build.
    """
    if config.direction != "bidirectional":
        raise ConfigError("Caduceus models read both ways; this one is causal.")
    theirs = _their_names(config)
    named = {theirs[name]: tensor for name, tensor in tensors.items()}
    complement = NucleotideTokenizer().complement_ids.tolist()[: config.vocab_size]
    if config.equivariant:
        for name in (f"{_BACKBONE}embeddings.word_embeddings.complement_map", "lm_head.complement_map"):
            named[name] = torch.tensor(complement)
    return _their_config(config, complement), named


def _their_config(config: StackConfig, complement: list[int]) -> dict[str, Any]:
    mixer = {
        name: getattr(config, name)
        for name in (
            "d_state",
            "d_conv",
            "expand",
            "dt_rank",
            "dt_min",
            "dt_max",
            "dt_scale",
            "dt_init_floor",
            "conv_bias",
        )
    }
    return {
        "architectures": ["CaduceusForMaskedLM"],
        "model_type": "caduceus",
        "d_model": config.d_strand,
        "n_layer": config.n_layer,
        "vocab_size": config.vocab_size,
        "pad_vocab_size_multiple": 1 if config.vocab_size % 8 else 8,
        "ssm_cfg": {**mixer, "bias": config.proj_bias, "dt_init": "random", "use_fast_path": True},
        "rms_norm": config.norm == "rms",
        "norm_epsilon": config.norm_eps,
        "residual_in_fp32": config.residual_in_fp32,
        "fused_add_norm": config.strand_exchange,
        "initializer_cfg": {
            "initializer_range": config.initializer_range,
            "rescale_prenorm_residual": config.rescale_prenorm_residual,
            "n_residuals_per_layer": 1,
        },
        "bidirectional": True,
        "bidirectional_strategy": "add",
        "bidirectional_weight_tie": config.tie_directions,
        "rcps": config.equivariant,
        "complement_map": {str(place): value for place, value in enumerate(complement)},
        "tie_word_embeddings": config.tie_embeddings,
    }


def _their_names(config: StackConfig) -> dict[str, str]:
    """Our name to theirs, for every tensor that a file may hold."""
    shared = config.equivariant
    embedding = f"{_BACKBONE}embeddings.word_embeddings.{'embedding.' if shared else ''}weight"
    norm = "submodule." if shared and not config.strand_exchange else ""
    names = {
        "backbone.embedding.weight": embedding,
        "head.weight": "lm_head.lm_head.weight" if shared else "lm_head.weight",
    }
    for kind in ("weight", "bias"):
        names[f"backbone.norm_f.{kind}"] = f"{_BACKBONE}norm_f.{norm}{kind}"
        for layer in range(config.n_layer):
            names[f"backbone.layers.{layer}.norm.{kind}"] = f"{_BACKBONE}layers.{layer}.norm.{norm}{kind}"
    parts = [f"{module}.{kind}" for module in ("in_proj", "conv1d", "x_proj", "dt_proj", "out_proj")
             for kind in ("weight", "bias")]  # fmt: skip
    for layer in range(config.n_layer):
        for direction in ("mamba_fwd", "mamba_rev"):
            for part in (*parts, "A_log", "D"):
                place = f"layers.{layer}.mixer.{'submodule.' if shared else ''}{direction}.{part}"
                names[f"backbone.{place}"] = f"{_BACKBONE}{place}"
    return names


def _copies(config: StackConfig) -> dict[str, str]:
    copies = {"head.weight": "backbone.embedding.weight"} if config.tie_embeddings else {}
    if config.tie_directions:
        for layer in range(config.n_layer):
            mixer = f"backbone.layers.{layer}.mixer.{'submodule.' if config.equivariant else ''}"
            for part in ("in_proj.weight", "in_proj.bias", "out_proj.weight", "out_proj.bias"):
                copies[f"{mixer}mamba_rev.{part}"] = f"{mixer}mamba_fwd.{part}"
    return copies


def _check_complement(complement_map: Mapping[str, int] | None) -> None:
    """The keys are text, and sorted as text after one load and save: 0, 1, 10, 11, … 2. Only their number counts."""
    wanted = NucleotideTokenizer().complement_ids.tolist()
    try:
        found = {int(key): value for key, value in (complement_map or {}).items()}
    except ValueError as error:
        raise ModelFormatError(f"complement_map has a key that is no token id: {error}.") from error
    wrong = [
        f"{place} to {found.get(place)}, wanted {wanted[place]}"
        for place in range(12)
        if found.get(place) != wanted[place]
    ]
    if wrong:
        raise ModelFormatError(
            f"complement_map is not that of the single-nucleotide vocabulary: it sends {'; '.join(wrong)}. "
            "If it lists values in the order of keys sorted as text, sort them by number."
        )

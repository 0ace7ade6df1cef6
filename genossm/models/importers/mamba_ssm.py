"""mamba-ssm's layout: `MambaLMHeadModel.save_pretrained`, Mamba-1 layers.

Its config holds the vocabulary's true size; the tensors have rows up to the next multiple of
`pad_vocab_size_multiple`. The tied head may stand in the file as a copy. `fused_add_norm` chooses a kernel and
changes nothing in a causal model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import Tensor

from genossm.core.errors import ModelFormatError
from genossm.core.strict import from_mapping
from genossm.models.importers.checkpoint import require_nucleotides
from genossm.models.importers.renaming import drop_copies
from genossm.nn import StackConfig


@dataclass(frozen=True)
class MixerSettings:
    """`ssm_cfg`, with the defaults of the authors' Mamba class."""

    layer: Literal["Mamba1"] = "Mamba1"
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int | Literal["auto"] = "auto"
    dt_min: float = 0.001
    dt_max: float = 0.1
    dt_init: str = "random"
    dt_scale: float = 1.0
    dt_init_floor: float = 1e-4
    conv_bias: bool = True
    bias: bool = False
    use_fast_path: bool = True

    def stack_fields(self) -> dict[str, Any]:
        """The same under the names of StackConfig; how `dt_proj` was initialised and which kernel ran do not matter."""
        named = {key: value for key, value in asdict(self).items() if key not in ("layer", "dt_init", "use_fast_path")}
        named["proj_bias"] = named.pop("bias")
        return named


@dataclass(frozen=True)
class Settings:
    """config.json, with the defaults of the authors' MambaConfig."""

    d_model: int
    n_layer: int
    vocab_size: int
    d_intermediate: int = 0
    ssm_cfg: dict[str, Any] = field(default_factory=dict)
    attn_layer_idx: tuple[int, ...] = ()
    attn_cfg: dict[str, Any] = field(default_factory=dict)
    rms_norm: bool = True
    residual_in_fp32: bool = True
    fused_add_norm: bool = True
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether a config.json looks like this layout."""
    return "model_type" not in config and "ssm_cfg" in config and "d_model" in config


def stack_config(config: Mapping[str, Any]) -> StackConfig:
    """What the source's configuration means here.

    Raises: ConfigError for keys or values it cannot have; ModelFormatError for layers that are not built here.
    """
    settings = from_mapping(Settings, config, where="config.json")
    layer = settings.ssm_cfg.get("layer", "Mamba1")
    if layer != "Mamba1" or settings.attn_layer_idx or settings.d_intermediate:
        raise ModelFormatError(
            f"config.json: layers {layer!r} with attention at {list(settings.attn_layer_idx)} and an MLP of width "
            f"{settings.d_intermediate}; this version imports stacks of Mamba1 alone."
        )
    require_nucleotides(settings.vocab_size, "config.json")
    mixer = from_mapping(MixerSettings, settings.ssm_cfg, where="config.json: ssm_cfg")
    return StackConfig(
        d_model=settings.d_model,
        n_layer=settings.n_layer,
        vocab_size=padded(settings.vocab_size, settings.pad_vocab_size_multiple),
        norm="rms" if settings.rms_norm else "layer",
        residual_in_fp32=settings.residual_in_fp32,
        tie_embeddings=settings.tie_embeddings,
        **mixer.stack_fields(),
    )


def padded(vocab_size: int, multiple: int) -> int:
    """Rows of the tensors of a vocabulary."""
    return -(-vocab_size // max(multiple, 1)) * max(multiple, 1)


def rename(tensors: Mapping[str, Tensor], config: StackConfig) -> dict[str, Tensor]:
    """The source's tensors under our names; names that this layout does not have stay as they are."""
    renamed = {("head.weight" if name == "lm_head.weight" else name): tensor for name, tensor in tensors.items()}
    return drop_copies(renamed, {"head.weight": "backbone.embedding.weight"} if config.tie_embeddings else {})

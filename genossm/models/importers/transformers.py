"""transformers' layout: `MambaForCausalLM.save_pretrained`.

The embedding is called `embeddings`, sizes have other names, the norm is always RMSNorm, and a tied head is left
out of the file. transformers writes many keys that change nothing here; they are listed, so that one that might is
noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from genossm.core.errors import ModelFormatError
from genossm.core.strict import from_mapping
from genossm.models.importers.checkpoint import require_nucleotides
from genossm.models.importers.huggingface import INERT
from genossm.models.importers.renaming import drop_copies
from genossm.nn import StackConfig

_OURS = {
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layer",
    "vocab_size": "vocab_size",
    "state_size": "d_state",
    "conv_kernel": "d_conv",
    "expand": "expand",
    "time_step_rank": "dt_rank",
    "time_step_min": "dt_min",
    "time_step_max": "dt_max",
    "time_step_floor": "dt_init_floor",
    "time_step_scale": "dt_scale",
    "use_conv_bias": "conv_bias",
    "use_bias": "proj_bias",
    "layer_norm_epsilon": "norm_eps",
    "residual_in_fp32": "residual_in_fp32",
    "tie_word_embeddings": "tie_embeddings",
    "initializer_range": "initializer_range",
    "rescale_prenorm_residual": "rescale_prenorm_residual",
}
_CHECKED = {"model_type", "hidden_act", "intermediate_size"}
# The source's own spelling of the same sizes in files converted from mamba-ssm, and choices of kernels.
_INERT = INERT | {
    "d_model", "d_inner", "n_layer", "rms_norm", "fused_add_norm", "ssm_cfg", "pad_vocab_size_multiple",
    "use_cache", "use_mambapy", "use_associative_scan", "time_step_init_scheme",
}  # fmt: skip


def recognises(config: Mapping[str, Any]) -> bool:
    """Whether a config.json looks like this layout."""
    return config.get("model_type") == "mamba"


def stack_config(config: Mapping[str, Any]) -> StackConfig:
    """What the source's configuration means here.

    Raises: ConfigError for values of a wrong type; ModelFormatError for keys that may change the function and that
    this importer does not know, and for choices that are not built here.
    """
    unknown = sorted(set(config) - set(_OURS) - _CHECKED - _INERT)
    if unknown:
        raise ModelFormatError(
            f"config.json has keys that this importer does not know: {', '.join(unknown)}. "
            "Remove them if they do not change what the model computes."
        )
    found = {"norm": "rms", **{ours: config[theirs] for theirs, ours in _OURS.items() if theirs in config}}
    stack = from_mapping(StackConfig, found, where="config.json")
    require_nucleotides(stack.vocab_size, "config.json")
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise ModelFormatError(f"config.json: hidden_act is {activation!r}; Mamba layers here have 'silu'.")
    if config.get("intermediate_size", stack.d_inner) != stack.d_inner:
        raise ModelFormatError(
            f"config.json contradicts itself: intermediate_size is {config['intermediate_size']}, and expand x "
            f"hidden_size is {stack.d_inner}."
        )
    return stack


def rename(tensors: Mapping[str, Tensor], config: StackConfig) -> dict[str, Tensor]:
    """The source's tensors under our names; names that this layout does not have stay as they are."""
    names = {"backbone.embeddings.weight": "backbone.embedding.weight", "lm_head.weight": "head.weight"}
    renamed = {names.get(name, name): tensor for name, tensor in tensors.items()}
    return drop_copies(renamed, {"head.weight": "backbone.embedding.weight"} if config.tie_embeddings else {})

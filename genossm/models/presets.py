"""Named sizes."""

from __future__ import annotations

from genossm.core.errors import ConfigError
from genossm.core.strict import nearest
from genossm.nn import StackConfig

PRESETS: dict[str, StackConfig] = {
    "tiny": StackConfig(d_model=64, n_layer=2),
    "small": StackConfig(d_model=128, n_layer=4),
    "base": StackConfig(d_model=256, n_layer=8),
    "large": StackConfig(d_model=512, n_layer=16),
    "xlarge": StackConfig(d_model=1024, n_layer=32),
}


def preset(name: str) -> StackConfig:
    """The configuration called `name`; `dataclasses.replace` changes single choices.

    Raises: ConfigError for an unknown name.
    """
    if name not in PRESETS:
        close = nearest(name, PRESETS)
        hint = f"Did you mean {close!r}?" if close else f"There are {', '.join(PRESETS)}."
        raise ConfigError(f"There is no preset {name!r}. {hint}")
    return PRESETS[name]

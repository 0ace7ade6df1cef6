"""Train on, and score variants in, DNA a megabase at a time with state space models.

Names resolve on first use, so that `import genossm` loads neither torch nor anything else heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from genossm.core.provenance import package_version

if TYPE_CHECKING:
    from genossm.models import load as load

__version__ = package_version()
__all__ = ["__version__", "load"]

_LAZY = {"load": "genossm.models"}
_ROOMS = frozenset(
    {"data", "evaluation", "genome", "inference", "models", "nn", "plotting", "sequence", "training", "variants"}
)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"genossm.{name}")
    raise AttributeError(f"module 'genossm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])

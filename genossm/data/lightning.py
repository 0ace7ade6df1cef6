"""The one door to Lightning, which only the extra `train` brings."""

from __future__ import annotations

from types import ModuleType

from genossm.core.errors import MissingDependencyError


def require_lightning() -> ModuleType:
    """The package `lightning.pytorch`. Raises: MissingDependencyError with the command that installs it."""
    try:
        import lightning.pytorch
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "lightning":
            raise
        raise MissingDependencyError(
            "Training needs Lightning, which is not installed. Install it with: pip install 'genossm[train]'"
        ) from error
    return lightning.pytorch

"""A model on its device, and what the options come to with it: how every command that scores begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genossm.core.errors import UsageError
from genossm.variants.options import ScoringOptions

if TYPE_CHECKING:
    from genossm.models import SequenceModel


@dataclass(frozen=True)
class Request:
    """What a command that scores was asked for.   model: directory or Hub id.   reference: FASTA, 2bit or store.
    horizon_given: the user asked for the horizon of `options`, so that a method without one is an error.
    """

    model: str
    reference: str
    options: ScoringOptions
    horizon_given: bool = False
    batch_size: int | None = None
    device: str = "auto"

    def open_model(self) -> tuple[SequenceModel, ScoringOptions]:
        """The model, and what the options come to with it. Raises: as `load_model` and `options_for`."""
        model = load_model(self.model, self.device)
        return model, options_for(model, self.options, horizon_given=self.horizon_given)


def options_for(model: SequenceModel, options: ScoringOptions, *, horizon_given: bool) -> ScoringOptions:
    """What the options come to with this model.

    Raises: MethodError for a method that it does not give; UsageError for a horizon that none of them looks at.
    """
    options = options.of_model(model.objective, equivariant=model.config.equivariant)
    if horizon_given and not options.has_horizon:
        raise UsageError(
            f"--horizon says how far a causal model compares letters; {', '.join(options.methods)} has none. "
            "Leave it out."
        )
    return options


def load_model(model_path: str, device: str) -> SequenceModel:
    """A model directory, or Hub id, on a device.   device: "auto", "cpu", "cuda" or "cuda:N".

    Raises: UsageError for a device that is not there; what `genossm.load` raises.
    """
    import torch

    import genossm.models

    if device == "auto":
        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    else:
        try:
            chosen = torch.device(device)
        except RuntimeError:
            raise UsageError(f"{device!r} is no device; wanted auto, cpu, cuda or cuda:N.") from None
        if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"{device} was asked for; this machine has {torch.cuda.device_count()} CUDA devices.")
    return genossm.models.load(model_path, device=chosen)

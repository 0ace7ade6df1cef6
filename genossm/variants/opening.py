"""A model on its device, and what the options come to with it: how every command that scores begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genossm.core.errors import UsageError
from genossm.variants.calibration import FILE_NAME, load_calibration, settings_of
from genossm.variants.options import ScoringOptions

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.models import SequenceModel
    from genossm.variants.extras import Extras


@dataclass(frozen=True)
class Request:
    """What a command that scores was asked for.   model: directory or Hub id.   reference: FASTA, 2bit or store.
    horizon_given: the user asked for the horizon of `options`, so that a method without one is an error.
    calibration: a file that quantiles refer to; None is that of the model's directory, if it has one.
    """

    model: str
    reference: str
    options: ScoringOptions
    horizon_given: bool = False
    batch_size: int | None = None
    device: str = "auto"
    calibration: Path | None = None

    def open_model(self) -> tuple[SequenceModel, ScoringOptions]:
        """The model, and what the options come to with it. Raises: as `load_model` and `options_for`."""
        model = load_model(self.model, self.device)
        return model, options_for(model, self.options, horizon_given=self.horizon_given)

    def extras(self, model: SequenceModel, genome: Genome, options: ScoringOptions) -> Extras:
        """Raises: as `extras_for`."""
        return extras_for(self.model, self.calibration, model, genome, options)


def extras_for(
    model_path: str, calibration: Path | None, model: SequenceModel, genome: Genome, options: ScoringOptions
) -> Extras:
    """What scoring takes beside the model: a calibration for these settings.

    calibration: None is the model directory's own, which may lack these settings: then there are no quantiles.
    Raises: UsageError for a file that was named and is for other settings; InputFileError if it cannot be read.
    """
    from genossm.variants.extras import Extras

    own = Path(model_path) / FILE_NAME
    if calibration is None:
        return Extras(load_calibration(own) if own.is_file() else None)
    loaded = load_calibration(calibration)
    digests = model.digest(), genome.reference_digest
    asked = [settings_of(*digests, method, options) for method in options.methods]
    if not any(loaded.holds(settings) for settings in asked):
        raise UsageError(
            f"{calibration} is no calibration of these settings: {loaded.difference(asked)}. Calibrate with the "
            "same model, reference and options, or leave --calibration out."
        )
    return Extras(loaded)


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

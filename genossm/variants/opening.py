"""A model on its device, and what the options come to with it: how every command that scores begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genossm.core.errors import UsageError
from genossm.variants.calibration import FILE_NAME, load_calibration
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
    heads: a folder of heads beside those of the model's directory.   covariates: a table that heads are told from.
    """

    model: str
    reference: str
    options: ScoringOptions
    horizon_given: bool = False
    batch_size: int | None = None
    device: str = "auto"
    calibration: Path | None = None
    heads: Path | None = None
    covariates: Path | None = None

    def open_model(self) -> tuple[SequenceModel, ScoringOptions]:
        """The model, and what the options come to with it.

        Raises: as `load_model` and `options_for`; SelfTestError if the device computes other numbers than it should.
        """
        from genossm.models.loading import MODEL_FILES, find_directory
        from genossm.variants.self_test import require_device

        model = load_model(self.model, self.device)
        # Options that cannot be are told at once, before anything is run.
        options = options_for(model, self.options, horizon_given=self.horizon_given)
        require_device(model, find_directory(self.model, files=MODEL_FILES))
        return model, options

    def extras(self, model: SequenceModel, genome: Genome, options: ScoringOptions) -> Extras:
        """Raises: as `load_extras`, and UsageError for a calibration that was named and is for other settings."""
        extras = load_extras(
            self.model, options.heads, calibration=self.calibration, heads=self.heads, covariates=self.covariates
        )
        if self.calibration is not None and extras.calibration is not None:
            _require_calibrated(extras, model, genome, options)
        return extras


def load_extras(
    model: str,
    names: Sequence[str] = (),
    *,
    calibration: Path | None = None,
    heads: Path | None = None,
    covariates: Path | None = None,
) -> Extras:
    """What scoring takes beside a model, from its directory and files.

    model: directory, or Hub id.   names: of heads.   calibration: None is the directory's own, which serves equal
    settings; under others there are no quantiles.   heads: a folder of heads that goes before the model's.
    covariates: a table of variants whose other columns heads are told from, before the alleles' own.
    Raises: UsageError for a head that is not there; InputFileError for a file that cannot be read.
    """
    from genossm.variants.extras import CovariateTable, Extras
    from genossm.variants.heads.head import FOLDER, find_heads

    own = Path(model) / FILE_NAME
    path = calibration or (own if own.is_file() else None)
    folders = [] if heads is None else [heads]
    if names:
        from genossm.models.loading import find_directory

        folders.append(find_directory(model, files=["*.json", "*.safetensors"]) / FOLDER)
    return Extras(
        None if path is None else load_calibration(path),
        find_heads(names, folders),
        None if covariates is None else CovariateTable.read(covariates),
    )


def _require_calibrated(extras: Extras, model: SequenceModel, genome: Genome, options: ScoringOptions) -> None:
    from genossm.variants.extras import calibrated_settings

    calibration = extras.calibration
    asked = list(calibrated_settings(model.digest(), genome.reference_digest, options, extras.heads).values())
    if calibration is not None and not any(calibration.holds(settings) for settings in asked):
        raise UsageError(
            f"{calibration.name} is no calibration of these settings: {calibration.difference(asked)}. Calibrate with "
            "the same model, reference and options, or leave --calibration out."
        )


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
    """A model directory, or Hub id, on a device, in float32 at least.   device: "auto", "cpu", "cuda" or "cuda:N".

    Weights stored in a narrower dtype are widened, which is exact: scores are sums over many letters, and run in
    bfloat16 they would be off by more than what two ways to a score may differ by.
    Raises: UsageError for a device that is not there; what `genossm.load` raises.
    """
    import torch

    import genossm.models
    from genossm.models.directory import cast_weights

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = genossm.models.load(model_path, device=device)
    cast_weights(model, torch.promote_types(model.backbone.embedding.weight.dtype, torch.float32))
    return model

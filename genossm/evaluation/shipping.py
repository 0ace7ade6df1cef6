"""From a training run's best model to the form that comes with the package: for maintainers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genossm.core.errors import ConfigError, InputFileError, UsageError
from genossm.core.provenance import Provenance
from genossm.data.regions import parse_regions
from genossm.evaluation.bases_methods import Hiding
from genossm.evaluation.bootstrap import block_bootstrap, interval_or_null, interval_text, percentile_interval
from genossm.evaluation.context import BLOCK, measure_context, model_method
from genossm.evaluation.context_report import TITLES
from genossm.evaluation.leaks import refuse_learnt_regions
from genossm.models import load
from genossm.models.directory import PROVENANCE, cast_weights
from genossm.models.shipped import FOLDER
from genossm.models.shipped_card import shipped_card
from genossm.models.weights import read_json

if TYPE_CHECKING:
    from genossm.genome import Genome
    from genossm.models import SequenceModel
    from genossm.sequence.interval import Interval

# All of them together, in the wheel.
MOST_BYTES = 9_000_000


def ship(
    source: Path,
    name: str,
    genome_path: str,
    *,
    regions: Sequence[str],
    context: int,
    summary: str,
    config_file: str,
    evaluation: str = "",
    limits: Sequence[str] = (),
    folder: Path = FOLDER,
    device: str = "cpu",
    force: bool = False,
) -> Path:
    """Write the model directory `folder`/`name` from the model directory `source` of a training run, and return it.

    regions: held-out ones, on which what rounding changes is measured, in windows of `context`.
    summary: a sentence for the card and for `genossm models`.   config_file: the run's, as the card names it.
    evaluation: Markdown of `genossm evaluate context-table`, of which the card takes what is of the model's objective,
    and further sections, which it takes as they are.
    limits: further sentences for it.
    Raises: UsageError for a name that reads as a path; ConfigError if `source` holds no record of a training run, was
    trained on `regions`, or all shipped models together would be too large.
    """
    import genossm.genome

    if not name or Path(name).name != name or name.startswith("."):
        raise UsageError(f"{name!r} is no name for a shipped model; wanted one without a path separator.")
    record = _training_record(source)
    exact = load(source)
    with genossm.genome.open(genome_path) as genome:
        judged = parse_regions(genome, regions)
        refuse_learnt_regions(source, genome, judged)
        rounded = _rounded(source)
        stored_digest = rounded.digest()
        stored = {key: tensor.clone() for key, tensor in rounded.tensors().items()}
        cast_weights(rounded, torch.float32)
        rounding = _measure_rounding(exact.to(device), rounded.to(device), genome, judged, context)
        contigs = {c: {"length": genome.length(c), "md5": genome.digest(c)} for c in genome.contigs}
    _require_room(folder, name, sum(tensor.nbytes for tensor in stored.values()))
    extra = {**record.extra, "name": name, "summary": summary, "config_file": config_file, "contigs": contigs}
    extra |= {"parameters": exact.num_parameters(), "rounding": rounding}
    extra |= {"source_digest": exact.digest(), "loaded_digest": rounded.digest()}
    provenance = replace(record, model_digest=stored_digest, extra=extra)
    figures = _figures(provenance, rounding)
    measured = _part_for(exact.objective, evaluation)
    card = shipped_card(exact, provenance.as_dict(), figures=figures, evaluation=measured, limits=limits)
    folder.mkdir(parents=True, exist_ok=True)
    return _rounded(source).save_pretrained(folder / name, provenance=provenance, card=card, force=force)


def _rounded(source: Path) -> SequenceModel:
    """The model in the dtypes that are stored: bfloat16, but float32 where there is little and float16 for decays."""
    model = load(source)
    cast_weights(model, torch.bfloat16)
    for name, parameter in model.named_parameters():
        if name.endswith("A_log"):
            # Logarithms of rates lie within float16's range, and its mantissa has three bits more.
            parameter.data = parameter.data.to(torch.float16)
    return model


def _training_record(source: Path) -> Provenance:
    content = read_json(source / PROVENANCE)
    if not {"config", "metrics"} <= set(content.get("extra", {})):
        raise ConfigError(
            f"{source / PROVENANCE} does not say how the model was trained. Ship the `model` directory of a run."
        )
    known = {field.name for field in fields(Provenance)}
    return Provenance(**{key: value for key, value in content.items() if key in known})


def _measure_rounding(
    exact: SequenceModel, rounded: SequenceModel, genome: Genome, judged: Sequence[Interval], context: int
) -> dict[str, Any]:
    """Bits per base before and after, on the same bases, and their difference with its interval."""
    measured = [
        measure_context(model_method(model, genome, label, hiding=Hiding()), genome, judged, [context], block=BLOCK)
        for label, model in (("float32", exact), ("bfloat16", rounded))
    ]
    sums = np.stack([found.nats[0].sum(axis=1) for found in measured], axis=1) / np.log(2.0)
    counts = measured[0].counts.sum(axis=1)
    resampled = block_bootstrap(sums, counts)
    before, after = (float(found.bits()[0]) for found in measured)
    return {
        "regions": list(map(str, judged)),
        "context": context,
        "before": before,
        "after": after,
        "difference": after - before,
        "interval": interval_or_null(percentile_interval(resampled[:, 1] - resampled[:, 0])),
    }


def _require_room(folder: Path, name: str, needed: int) -> None:
    others = sum(
        file.stat().st_size
        for path in folder.glob("*")
        if path.name != name
        for file in path.rglob("*")
        if file.is_file()
    )
    if others + needed > MOST_BYTES:
        raise ConfigError(
            f"{name} needs {needed / 1e6:.1f} MB and the other shipped models {others / 1e6:.1f} MB; wanted at most "
            f"{MOST_BYTES / 1e6:.0f} MB together, or the package grows too large. Ship a smaller model."
        )


def _figures(provenance: Provenance, rounding: dict[str, Any]) -> dict[str, str]:
    config, metrics = provenance.extra["config"], provenance.extra["metrics"]
    unit = "masked bits per base" if config.get("masking") is not None else "bits per base"
    return {
        f"{unit} on validation, at the end of training": f"{metrics['validation_bits_per_base']:.4f}",
        f"{unit} on {', '.join(rounding['regions'])}, windows of {rounding['context']:,}, float32": (
            f"{rounding['before']:.5f}"
        ),
        "the same, as shipped": f"{rounding['after']:.5f}",
    }


def read_evaluation(paths: Sequence[Path]) -> str:
    """The files' texts, one behind the other. Raises: InputFileError where one cannot be read."""
    try:
        return "\n\n".join(path.read_text(encoding="utf-8").strip() for path in paths)
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(
            f"--evaluation: {error}; wanted Markdown, as `genossm evaluate context-table` writes it."
        ) from None


def _part_for(objective: str, page: str) -> str:
    """A page without its sections that speak of other objectives, headings one level down."""
    others = {f"## {TITLES[title]}" for title in TITLES if title != objective}
    wanted, lines = True, []
    for line in page.splitlines():
        if line.startswith("## "):
            wanted = line not in others
        if wanted:
            lines.append(f"#{line}" if line.startswith("#") else line)
    return "\n".join(lines)


def describe(directory: Path) -> str:
    """What `genossm models ship` prints: where, how large, and what rounding changed."""
    extra = json.loads((directory / PROVENANCE).read_text())["extra"]
    size = sum(file.stat().st_size for file in directory.iterdir())
    interval = interval_text(extra["rounding"]["interval"], "+.6f")
    return f"{directory}\t{size / 1e6:.2f} MB\t{extra['rounding']['difference']:+.6f} bits ({interval})"

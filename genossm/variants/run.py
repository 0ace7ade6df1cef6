"""What `genossm score` does: open model and reference, score, write."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import genossm.genome
from genossm.core.errors import UsageError
from genossm.sequence import Variant
from genossm.variants.files import score_file
from genossm.variants.job import Progress
from genossm.variants.journal import read_journal
from genossm.variants.methods import methods_for
from genossm.variants.naming import DEFAULT_TAG, Naming
from genossm.variants.opening import Request
from genossm.variants.options import ScoringOptions
from genossm.variants.outputs import refuse_outputs
from genossm.variants.policy import FilePolicy
from genossm.variants.regions import Regions
from genossm.variants.summary import Summary
from genossm.variants.table import table_lines
from genossm.variants.table_files import parquet
from genossm.variants.vcf_header import refuse_scored
from genossm.variants.vcf_input import can_be_read_twice, open_vcf
from genossm.variants.vcf_output import format_for


def run_score_file(
    request: Request,
    source: str,
    target: str,
    policy: FilePolicy,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Score a VCF or BCF file; see `score_file` and `Regions` for what is raised.

    source, target: paths, or "-".
    """
    _refuse_early(source, target, policy)
    with genossm.genome.open(request.reference) as genome:
        regions = Regions(genome, policy.regions, policy.regions_file)
        model, options = request.open_model()
        return score_file(
            model,
            genome,
            source,
            target,
            options,
            policy,
            command=equal_runs_command(request, model.objective, source, options, policy),
            regions=regions,
            batch_size=request.batch_size,
            extras=request.extras(model, genome, options),
            progress=progress,
        )


def run_score_variants(request: Request, variants: Sequence[str], *, check_ref: str = "w") -> list[str]:
    """Score variants given as text, such as "20:123:A>G"; lines of a table come back.

    Raises: VariantError for a text that is no variant; ReferenceMismatchError under check_ref "e"; what `open_model`
    of the request does.
    """
    from genossm.variants.scorer import Scorer

    wanted = [Variant.parse(text) for text in variants]
    with genossm.genome.open(request.reference) as genome:
        model, options = request.open_model()
        extras = request.extras(model, genome, options)
        scorer = Scorer(model, genome, options, batch_size=request.batch_size, extras=extras)
        return list(table_lines(scorer.stream(wanted), scorer.tags, check_ref=check_ref))


def run_self_test(model_path: str | None, device: str) -> Iterator[str]:
    """Lines of a table: what a device computes against what a model should say.

    model_path: None is every model that comes with the package.
    Raises: SelfTestError if the device computes other numbers; UsageError if there is no model to ask.
    """
    from genossm.models.loading import MODEL_FILES, find_directory
    from genossm.models.shipped import shipped_names
    from genossm.variants.opening import load_model
    from genossm.variants.self_test import report

    names = shipped_names() if model_path is None else (model_path,)
    if not names:
        raise UsageError("No model comes with this installation. Pass -m MODEL to test a device with it.")
    for name in names:
        yield from report(load_model(name, device), name, find_directory(name, files=MODEL_FILES))


def run_write_expected(model_path: str | None, *, force: bool) -> str:
    """Keep what the definition says of a model in its directory, for every self-test from then on; a line for people.

    Raises: UsageError for no model, or one that is no directory; OutputExistsError without `force`.
    """
    from genossm.models.shipped import shipped_directory
    from genossm.variants.expected import write_expected
    from genossm.variants.opening import load_model

    directory = None if model_path is None else shipped_directory(model_path) or Path(model_path)
    if model_path is None or directory is None or not directory.is_dir():
        raise UsageError("--write keeps values in a model's directory. Name one: -m DIRECTORY.")
    return f"{write_expected(directory, load_model(model_path, 'cpu'), force=force)} is written"


def equal_runs_command(
    request: Request, objective: str, source: str, options: ScoringOptions, policy: FilePolicy
) -> str:
    """The command that gives these scores, without what may differ between equal runs (output, device, batch size).

    objective: the model's; a method that need not be named is not.
    """
    words = ["genossm", "score", "-f", request.reference, "-m", request.model]
    if options.methods != methods_for(objective, ()) or options.heads:
        words += ["--method", ",".join((*options.methods, *options.heads))]
    words += ["--context", options.context_text]
    if options.has_horizon:
        words += ["--horizon", "full" if options.horizon is None else str(options.horizon)]
    if options.has_neighbourhood:
        words += ["--neighbourhood", str(options.neighbourhood)]
    words += ["--exact"] if options.exact else []
    words += ["--both-strands"] if options.both_strands else []
    for name in ("calibration", "heads", "covariates"):
        words += [f"--{name}", str(getattr(request, name))] if getattr(request, name) else []
    words += ["--check-ref", policy.check_ref]
    words += [word for text in policy.regions for word in ("-r", text)]
    words += ["-R", str(policy.regions_file)] if policy.regions_file else []
    words += ["--haplotypes", policy.haplotypes] if policy.haplotypes is not None else []
    words += ["--tag", policy.tag] if policy.tag != DEFAULT_TAG else []
    return shlex.join([*words, source])


def _refuse_early(source: str, target: str, policy: FilePolicy) -> None:
    """Raise before anything slow begins what would be raised in the end."""
    format_for(target, policy.output)
    policy.require_resumable(source, target)
    unfinished = read_journal(target) if policy.resume else None
    placing = unfinished is not None and unfinished.placing
    refuse_outputs(policy.written(target), [source], force=policy.force or placing)
    if policy.skipped is not None:
        format_for(policy.skipped, None)
    if policy.parquet is not None:
        parquet()
    if not can_be_read_twice(source):
        # Looking at the header would take it from who scores.
        return
    with open_vcf(source) as vcf:
        refuse_scored(vcf.header, name=vcf.name, replace=policy.force, naming=Naming(policy.tag))

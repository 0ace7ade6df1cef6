"""What `genossm score` does: open model and reference, score, write."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import genossm.genome
from genossm.core.atomic import atomic_file, refuse_overwrite
from genossm.core.errors import UsageError
from genossm.sequence import Variant
from genossm.variants.files import FilePolicy, Summary, score_file
from genossm.variants.methods import methods_for, tags_of
from genossm.variants.opening import load_model, options_for
from genossm.variants.options import ScoringOptions
from genossm.variants.regions import Regions
from genossm.variants.table import table_lines
from genossm.variants.vcf_header import refuse_scored
from genossm.variants.vcf_input import open_vcf
from genossm.variants.vcf_output import format_for


def run_score_file(
    model_path: str,
    reference: str,
    source: str,
    target: str,
    options: ScoringOptions,
    policy: FilePolicy,
    *,
    summary_path: Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    horizon_given: bool = False,
) -> Summary:
    """Score a VCF or BCF file; see `score_file` and `Regions` for what is raised.

    source, target: paths, or "-".   summary_path: JSON with counts, rates and digests.
    horizon_given: the user asked for the horizon of `options`, so that a method without one is an error.
    """
    _refuse_early(source, target, policy, summary_path)
    with genossm.genome.open(reference) as genome:
        regions = Regions(genome, policy.regions, policy.regions_file)
        model = load_model(model_path, device)
        options = options_for(model, options, horizon_given=horizon_given)
        summary = score_file(
            model,
            genome,
            source,
            target,
            options,
            policy,
            command=equal_runs_command(model_path, model.objective, reference, source, options, policy),
            regions=regions,
            batch_size=batch_size,
            progress=progress,
        )
    if summary_path is not None:
        with atomic_file(summary_path, force=policy.force) as temporary:
            temporary.write_text(json.dumps(summary.as_dict(), indent=2) + "\n")
    return summary


def run_score_variants(
    model_path: str,
    reference: str,
    variants: Sequence[str],
    options: ScoringOptions,
    *,
    check_ref: str = "w",
    batch_size: int | None = None,
    device: str = "auto",
    horizon_given: bool = False,
) -> list[str]:
    """Score variants given as text, such as "20:123:A>G"; lines of a table come back.

    Raises: VariantError for a text that is no variant; ReferenceMismatchError under check_ref "e"; UsageError for a
    given horizon that no method looks at; MethodError for a method that the model does not give.
    """
    from genossm.variants.scorer import score

    wanted = [Variant.parse(text) for text in variants]
    with genossm.genome.open(reference) as genome:
        model = load_model(model_path, device)
        options = options_for(model, options, horizon_given=horizon_given)
        scored = score(
            model,
            genome,
            wanted,
            methods=options.methods,
            context=options.context,
            horizon=options.horizon,
            both_strands=options.both_strands,
            batch_size=batch_size,
        )
        return list(table_lines(scored, tags_of(options.methods), check_ref=check_ref))


def equal_runs_command(
    model_path: str, objective: str, reference: str, source: str, options: ScoringOptions, policy: FilePolicy
) -> str:
    """The command that gives these scores, without what may differ between equal runs (output, device, batch size).

    objective: the model's; a method that need not be named is not.
    """
    words = ["genossm", "score", "-f", reference, "-m", model_path]
    if options.methods != methods_for(objective, ()):
        words += ["--method", ",".join(options.methods)]
    words += ["--context", str(options.context)]
    if options.has_horizon:
        words += ["--horizon", "full" if options.horizon is None else str(options.horizon)]
    words += ["--both-strands"] if options.both_strands else []
    words += ["--check-ref", policy.check_ref]
    words += [word for text in policy.regions for word in ("-r", text)]
    words += ["-R", str(policy.regions_file)] if policy.regions_file else []
    return shlex.join([*words, source])


def _refuse_early(source: str, target: str, policy: FilePolicy, summary_path: Path | None) -> None:
    """Raise before anything slow begins what would be raised in the end."""
    format_for(target, policy.output)
    written = [Path(path) for path in (target, policy.skipped, summary_path) if path is not None and str(path) != "-"]
    for number, path in enumerate(written):
        refuse_overwrite(path, force=policy.force)
        if path.resolve() in (other.resolve() for other in written[:number]):
            raise UsageError(f"Two outputs are both {path}. Choose another for one of them.")
    if policy.skipped is not None:
        format_for(policy.skipped, None)
    if source == "-":
        return
    if Path(source).exists() and Path(source).resolve() in (path.resolve() for path in written):
        raise UsageError(f"Input and output are both {source}. Choose another output.")
    with open_vcf(source) as vcf:
        refuse_scored(vcf.header, name=vcf.name, replace=policy.force)

"""What `genossm score-table` does: open model and reference, score, write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import genossm.genome
from genossm.core.atomic import atomic_file
from genossm.core.provenance import command_line
from genossm.variants.files import Summary
from genossm.variants.opening import Request
from genossm.variants.outputs import refuse_outputs
from genossm.variants.score_table import TablePolicy, score_table
from genossm.variants.table_files import open_table, table_kind


def run_score_table(
    request: Request,
    source: str,
    target: str,
    policy: TablePolicy,
    *,
    summary_path: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Score a table of variants; see `score_table` for what is raised.   summary_path: JSON of counts and digests."""
    written = [Path(path) for path in (target, summary_path) if path is not None]
    table_kind(target)
    refuse_outputs(written, [source], force=policy.force)
    with open_table(source), genossm.genome.open(request.reference) as genome:
        model, options = request.open_model()
        summary = score_table(
            model,
            genome,
            source,
            target,
            options,
            policy,
            command=command_line(),
            batch_size=request.batch_size,
            extras=request.extras(model, genome, options),
            progress=progress,
        )
    if summary_path is not None:
        with atomic_file(summary_path, force=policy.force) as temporary:
            temporary.write_text(json.dumps(summary.as_dict(), indent=2) + "\n")
    return summary

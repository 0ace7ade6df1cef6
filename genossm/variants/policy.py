"""How a file is treated: what is written where, and what stops a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from genossm.core.errors import UsageError
from genossm.variants.naming import DEFAULT_TAG, Naming
from genossm.variants.shards import Shard
from genossm.variants.vcf_input import can_be_read_twice
from genossm.variants.vcf_output import Format

CheckRef = Literal["w", "e", "x"]


@dataclass(frozen=True)
class FilePolicy:
    """How a file is treated.

    output: VCF "v", bgzip "z" or BCF "b"; None goes by the output's name.   index: write one where there can be one.
    check_ref: at a REF that differs from the reference, "w" keeps and marks the record, "e" stops, "x" moves it,
    marked, to the file `skipped`.
    max_skip_frac: stop with exit code 3 if more than this share of the ALT alleles gets no score.
    force: replace the output, and scores of an earlier run in the input.
    regions, regions_file: where records are taken from, if not everywhere; see `Regions`.   shard: a piece of those.
    haplotypes: score alleles on the haplotypes of this sample; see `Personal`.
    resume: go on from what an interrupted run has left beside the output.
    summary: counts, rates and digests as JSON.   tag: what INFO fields begin with.
    tsv, parquet: tables of the alleles of the output, one row each.
    """

    output: Format | None = None
    index: bool = True
    check_ref: CheckRef = "w"
    max_skip_frac: float | None = None
    force: bool = False
    regions: tuple[str, ...] = ()
    regions_file: Path | None = None
    skipped: Path | None = None
    shard: Shard | None = None
    resume: bool = False
    summary: Path | None = None
    haplotypes: str | None = None
    tag: str = DEFAULT_TAG
    tsv: Path | None = None
    parquet: Path | None = None

    def __post_init__(self) -> None:
        if (self.check_ref == "x") != (self.skipped is not None):
            raise UsageError(
                "--check-ref x moves records whose REF differs from the reference to the file that --skipped names: "
                "give both, or neither."
            )
        for option, path in (("--skipped", self.skipped), ("--tsv", self.tsv), ("--parquet", self.parquet)):
            if str(path) == "-":
                raise UsageError(f"{option} takes the name of a file; standard output is for the scored records.")
        Naming(self.tag)
        if self.max_skip_frac is not None and not 0 <= self.max_skip_frac <= 1:
            raise UsageError(f"A share of {self.max_skip_frac} to be skipped is not possible; wanted 0 to 1.")

    def written(self, target: str | Path) -> list[Path]:
        """The files that a run with the output `target` puts in place, but indexes."""
        paths = (target, self.skipped, self.summary, self.tsv, self.parquet)
        return [Path(path) for path in paths if path is not None and str(path) != "-"]

    def require_resumable(self, source: str | Path, target: str | Path) -> None:
        """Raise UsageError if a run is to be resumed whose input or output is a stream."""
        if self.resume and (str(target) == "-" or not can_be_read_twice(source)):
            raise UsageError(
                "--resume needs a file to read again and a file to write: a pipe or standard input can be read once, "
                "and what went to standard output is gone. Name both."
            )

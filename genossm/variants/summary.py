"""What became of a file's records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from genossm.core.provenance import Provenance
from genossm.variants.status import Status
from genossm.variants.vcf_header import ScoringRun


@dataclass
class Summary:
    """What became of a file's records.

    statuses: ALT alleles by status; a record without ALT counts once.   moved: records in the file `skipped`.
    seconds: of this run.   resumed, resumed_scores: records, and scored alleles, that an interrupted run had finished.
    measured: by method what a short horizon, or neighbourhoods in place of windows, leave out, as this run has measured
    on some of its alleles.   unsorted: so there is no index.
    haplotypes: what a sample's hold, if alleles are scored on these.
    """

    run: ScoringRun
    records: int = 0
    moved: int = 0
    statuses: Counter[Status] = field(default_factory=Counter)
    seconds: float = 0.0
    unsorted: bool = False
    resumed: int = 0
    resumed_scores: int = 0
    measured: dict[str, dict[str, int | float | str]] = field(default_factory=dict)
    haplotypes: dict[str, Any] | None = None

    @property
    def alleles(self) -> int:
        return sum(self.statuses.values())

    @property
    def scored(self) -> int:
        return self.statuses[Status.OK]

    @property
    def rate(self) -> float | None:
        """Scored alleles a second of this run."""
        return (self.scored - self.resumed_scores) / self.seconds if self.seconds else None

    def skipped(self) -> dict[str, int]:
        """Alleles without a score, by reason, in the order in which reasons are looked for."""
        return {
            status.value: self.statuses[status] for status in Status if status != Status.OK and self.statuses[status]
        }

    def line(self) -> str:
        """One line for people."""
        reasons = ", ".join(f"{count:,} {word}" for word, count in self.skipped().items())
        return (
            f"{self.records:,} records, {self.alleles:,} alleles: {self.scored:,} scored, "
            f"{self.alleles - self.scored:,} not{f' ({reasons})' if reasons else ''}; "
            f"{self.seconds:.1f} s, {self.rate or 0:,.0f} alleles/s"
            f"{f'; {self.resumed:,} records were finished before' if self.resumed else ''}"
            f"{f'; {self.moved:,} records moved aside' if self.moved else ''}"
            f"{'; the records are not sorted, so there is no index' if self.unsorted else ''}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        provenance = Provenance(
            command=self.run.command,
            model_digest=self.run.model_digest,
            reference_digest=self.run.reference_digest,
        )
        return {
            "records": self.records,
            "alleles": self.alleles,
            "scored": self.scored,
            "skipped": self.skipped(),
            "moved": self.moved,
            "seconds": round(self.seconds, 3),
            "alleles_per_second": None if self.rate is None else round(self.rate, 3),
            **({"resumed": self.resumed} if self.resumed else {}),
            **({"haplotypes": self.haplotypes} if self.haplotypes is not None else {}),
            **({"measured": self.measured} if self.measured else {}),
            "options": self.run.options.as_dict(),
            "provenance": provenance.as_dict(),
        }

"""What scores may need beside model and reference: heads, what these are told, and what quantiles refer to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genossm.core.provenance import file_sha256
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants.calibration import Calibration, Entry, Settings, allele_kind, quantile_tag, rounded, settings_of
from genossm.variants.heads.head import VariantHead
from genossm.variants.locate import Allele
from genossm.variants.methods import Method, Tag, methods_for
from genossm.variants.options import ScoringOptions
from genossm.variants.table_columns import find_columns
from genossm.variants.table_files import open_table

Key = tuple[str, int, str, str]


@dataclass(frozen=True, eq=False)
class CovariateTable:
    """Covariates of alleles from a table of their own.   digest: SHA-256 of the file.   names: of its other columns."""

    rows: Mapping[Key, Mapping[str, object]]
    names: tuple[str, ...]
    digest: str

    @classmethod
    def read(cls, path: Path) -> CovariateTable:
        """Raises: InputFileError; UsageError for a name that tells no kind of table."""
        rows: dict[Key, Mapping[str, object]] = {}
        with open_table(path) as table:
            columns = find_columns(table.names, name=table.name)
            names = tuple(name for name in table.names if name not in columns.names)
            for block in table.blocks(8192):
                alleles = columns.alleles([block.column(name) for name in columns.names], block.places)
                values = zip(*(block.column(name) for name in names)) if names else iter(lambda: (), None)
                for allele, row in zip(alleles, values):
                    rows[_key(allele)] = dict(zip(names, row))
        return cls(rows, names, file_sha256(path))

    def of(self, variant: Variant | Allele) -> Mapping[str, object] | None:
        return self.rows.get(_key(variant))


def _key(variant: Variant | Allele) -> Key:
    return variant.contig, variant.pos1, variant.ref.upper(), (variant.alt or "").upper()


@dataclass(frozen=True, eq=False)
class Extras:
    """calibration: gives quantiles of the numbers that it was made for, under equal settings; None gives none.
    heads: those that options name.   covariates: where heads look first; then they look at the alleles themselves.
    """

    calibration: Calibration | None = None
    heads: tuple[VariantHead, ...] = ()
    covariates: CovariateTable | None = None

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """What the heads want to be told of every allele."""
        return tuple(dict.fromkeys(one.name for head in self.heads for one in head.covariates))


def head_settings(model: SequenceModel, options: ScoringOptions) -> dict[str, Any]:
    """What decides a head's features, as JSON holds it: another assembly, cut elsewhere, is no other setting."""
    own = methods_for(model.objective, ())[0]
    settings = settings_of(model.digest(), "", own, options)
    # A model that reads both strands alike runs the plus strand for both.
    settings["both_strands"] = options.both_strands or model.config.equivariant
    del settings["reference"]
    return settings


def calibrated_settings(
    model_digest: str, reference_digest: str, options: ScoringOptions, heads: Sequence[VariantHead]
) -> dict[str, Settings]:
    """What decides the numbers of each method and head, by the method's name, as JSON holds it."""
    found = {name: settings_of(model_digest, reference_digest, name, options) for name in options.methods}
    for head in heads:
        own = found[str(head.settings["method"])]
        found[head.method.name] = {**own, "method": head.method.name, "head": head.digest()}
    return found


def head_methods(extras: Extras) -> tuple[Method, ...]:
    """What headers say of heads, and of the table that they are told from."""
    methods = tuple(head.method for head in extras.heads)
    if extras.covariates is not None:
        for method in methods:
            method.facts["covariates"] = f"sha256:{extras.covariates.digest}"
    return methods


class Quantiles:
    """Puts behind each number that is calibrated its quantile.   plain: (method, field) of every number."""

    def __init__(
        self,
        plain: Sequence[tuple[str, Tag]],
        extras: Extras | None,
        model: SequenceModel,
        genome: Genome,
        options: ScoringOptions,
    ) -> None:
        self._entries: list[dict[str, Entry]] = [{} for _ in plain]
        if extras is not None and extras.calibration is not None:
            settings = calibrated_settings(model.digest(), genome.reference_digest, options, extras.heads)
            self._entries = [extras.calibration.find(tag, settings[method]) for method, tag in plain]
        found = zip(plain, self._entries)
        self.tags: tuple[Tag, ...] = tuple(
            one for (_, tag), entries in found for one in (tag, *([quantile_tag(tag, entries)] if entries else []))
        )

    def added(self, variant: Variant | Allele, numbers: Sequence[float | None]) -> tuple[float | None, ...]:
        """`numbers` with the quantiles in between, in the order of `tags`."""
        if not any(self._entries):
            return tuple(numbers)
        kind = allele_kind(variant.ref, variant.alt or "")
        found: list[float | None] = []
        for number, entries in zip(numbers, self._entries, strict=True):
            found.append(number)
            if entries:
                entry = entries.get(kind) if kind and number is not None else None
                found.append(None if entry is None else float(entry.sketch.share_at_or_below(rounded(number or 0.0))))
        return tuple(found)

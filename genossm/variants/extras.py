"""What scores may need beside model and reference, and the quantiles that come with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants.calibration import Calibration, Entry, allele_kind, quantile_tag, rounded, settings_of
from genossm.variants.locate import Allele
from genossm.variants.methods import Tag
from genossm.variants.options import ScoringOptions


@dataclass(frozen=True, eq=False)
class Extras:
    """calibration: gives quantiles of the numbers that it was made for, under equal settings; None gives none."""

    calibration: Calibration | None = None


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
            digests = model.digest(), genome.reference_digest
            settings = {method: settings_of(*digests, method, options) for method, _ in plain}
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

"""What `genossm ism` does: every substitution of a region as a Parquet file, a heat map and a logo."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genossm.genome
from genossm.core.atomic import atomic_file
from genossm.core.errors import UsageError
from genossm.core.provenance import Provenance
from genossm.sequence import parse_region
from genossm.variants.methods import LLR, Tag
from genossm.variants.opening import Request
from genossm.variants.outputs import refuse_outputs
from genossm.variants.table_files import parquet, parquet_facts
from genossm.variants.vcf_header import STATUS, values_of

if TYPE_CHECKING:
    from genossm.variants.saturating import Piece, Saturation

LONGEST_PICTURE = 2000
"""Bases; in more, columns of a picture run into one another."""
_PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class IsmOutputs:
    """table: Parquet.   heat_map, logo: pictures, PNG, SVG or PDF by their names; None for none."""

    table: Path
    heat_map: Path | None = None
    logo: Path | None = None

    @property
    def pictures(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.heat_map, self.logo) if path is not None)

    def refuse_early(self, length: int, *, force: bool) -> None:
        """Raise before anything slow begins what would be raised in the end."""
        refuse_outputs((self.table, *self.pictures), (), force=force)
        if self.table.suffix.lower() != ".parquet":
            raise UsageError(f"The table is Parquet; got the name {self.table}, wanted one that ends in .parquet.")
        for path in self.pictures:
            if path.suffix.lower() not in _PICTURES:
                raise UsageError(f"Cannot tell the format of {path} by its name; wanted {', '.join(_PICTURES)}.")
        if self.pictures and length > LONGEST_PICTURE:
            raise UsageError(
                f"A picture shows {LONGEST_PICTURE:,} bases at most, the region has {length:,}. Leave the pictures out "
                "and draw a part of the table, or name a shorter region."
            )


def run_ism(
    request: Request,
    region: str,
    outputs: IsmOutputs,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Score every substitution of a region; the number of its bases comes back.

    region: as in 20:1,000-2,000; its strand is the reading direction of the pictures, the table is the plus strand's.
    progress: called with the number of bases done, and of all.
    The table has a row a base and letter: contig, pos (1-based), ref, alt, the numbers of the methods, status. The
    letter that stands there scores 0; numbers are null where the reference has no A, C, G or T.
    Raises: UsageError; IntervalError or ContigNotFoundError for a region that is not there; what `score` raises.
    """
    from genossm.variants.saturating import saturation_pieces, whole_map
    from genossm.variants.scorer import Scorer

    parquet()  # or nothing could be written in the end
    with genossm.genome.open(request.reference) as genome:
        interval = parse_region(region, genome.length)
        outputs.refuse_early(len(interval), force=force)
        model, options = request.open_model()
        extras = request.extras(model, genome, options)
        scorer = Scorer(model, genome, options, batch_size=request.batch_size, extras=extras)
        if outputs.pictures and scorer.tags[0] != LLR.tags[0]:
            raise UsageError("Pictures show log-likelihood ratios: add llr or mlm to --method, or leave them out.")
        provenance = Provenance(model_digest=model.digest(), reference_digest=genome.reference_digest)
        facts = {"region": str(interval), "options": options.as_dict(), "provenance": provenance.as_dict()}
        with (
            atomic_file(outputs.table, force=force) as temporary,
            _table(temporary, interval.contig, scorer.tags, facts) as write,
        ):
            pieces = _written(saturation_pieces(scorer, interval), write, len(interval), progress)
            if outputs.pictures:
                _draw(whole_map(interval, pieces, strands=len(options.strands)), outputs, force=force)
            else:
                deque(pieces, maxlen=0)
    return len(interval)


def _written(
    pieces: Iterator[Piece],
    write: Callable[[Piece], None],
    total: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Piece]:
    done = 0
    for piece in pieces:
        write(piece)
        done += len(piece.letters)
        if progress:
            progress(done, total)
        yield piece


@contextmanager
def _table(
    path: Path, contig: str, tags: tuple[Tag, ...], facts: Mapping[str, Any]
) -> Iterator[Callable[[Piece], None]]:
    """Writes pieces as row groups."""
    writer_of = parquet().ParquetWriter
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    fields = [("contig", text), ("pos", pa.int64()), ("ref", text), ("alt", text)]
    fields += [(tag.name, pa.float64()) for tag in tags]
    schema = pa.schema([*fields, (STATUS, text)], metadata=parquet_facts(facts))

    def write(piece: Piece) -> None:
        scored = [one for row in piece.scored for one in row]
        rows = [values_of(one, tags) for one in scored]
        columns = [
            [contig] * len(scored),
            [one.variant.pos1 for one in scored],
            [one.variant.ref for one in scored],
            [one.variant.alt for one in scored],
            *([row[number] for row in rows] for number in range(len(tags))),
            [one.status.value for one in scored],
        ]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

    with writer_of(str(path), schema) as writer:
        yield write


def _draw(found: Saturation, outputs: IsmOutputs, *, force: bool) -> None:
    from genossm.plotting import saturation_map, save_figure, sequence_logo

    contig = found.interval.contig
    if outputs.heat_map is not None:
        figure = saturation_map(found.scores, found.letters, found.pos1, contig=contig, label="ALT minus REF (nats)")
        save_figure(figure, outputs.heat_map, force=force)
    if outputs.logo is not None:
        label = "mean loss (nats)"
        save_figure(
            sequence_logo(found.importance(), found.pos1, contig=contig, label=label), outputs.logo, force=force
        )

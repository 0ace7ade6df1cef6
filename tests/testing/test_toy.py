"""What `genossm.testing` promises its users."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.genome.fasta_records import records
from genossm.sequence import check_reference
from genossm.testing import repetitive_sequence, toy_genome, write_fasta
from genossm.testing import strategies as own


def test_toy_genome_is_seeded_and_awkward() -> None:
    genome = toy_genome(seed=3)
    assert genome == toy_genome(seed=3) != toy_genome(seed=4)
    assert {name: len(sequence) for name, sequence in genome.items()} == {"chr1": 5000, "chr2": 2500, "chrM": 500}
    assert genome["chr1"][:500] == b"N" * 500
    assert genome["chr1"][1500:2000].islower()
    assert b"R" in genome["chr1"]


def test_repetitive_sequence_repeats() -> None:
    sequence = repetitive_sequence(600, seed=1)
    assert len(sequence) == 600
    # In random sequence six letters return within six positions once in about 700 places.
    periodic = sum(any(sequence[i : i + 6] == sequence[i + p : i + p + 6] for p in range(1, 7)) for i in range(588))
    assert periodic > 150


def test_written_fasta_reads_back(tmp_path: Path) -> None:
    contigs = toy_genome(length=500)
    for name, options in {"a.fa": {}, "b.fa.gz": {"bgzip": True}, "c.fa": {"line_end": b"\r\n"}}.items():
        path = write_fasta(tmp_path / name, contigs, **options)
        assert {record.name: record.sequence() for record in records(path)} == contigs


@given(st.data())
@settings(max_examples=100)
def test_variants_stand_in_their_reference(data: st.DataObject) -> None:
    reference = data.draw(own.repetitive_dna())
    variant = data.draw(own.variants(reference))
    check_reference(variant, lambda start, end: reference[start:end].encode())


@given(own.genomes(), st.data())
def test_intervals_stand_in_their_genome(genome: dict[str, bytes], data: st.DataObject) -> None:
    lengths = {name: len(sequence) for name, sequence in genome.items()}
    interval = data.draw(own.intervals(lengths))
    assert 0 <= interval.start < interval.end <= lengths[interval.contig]

"""The letters of a sample's haplotypes: against `bcftools consensus`, and letter by letter; genotypes; overlaps."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pysam
import pysam.bcftools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genossm.testing import random_sequence, write_fasta
from genossm.variants import ScoringOptions
from genossm.variants.genotypes import Genotype, parse_genotype
from genossm.variants.locate import Locator
from genossm.variants.personal import read_personal
from genossm.variants.sample_haplotypes import Carrier, Edit, SampleHaplotypes
from genossm.variants.stretches import Stretch

SLICE = 60_000
LETTERS = random_sequence(80, seed=11).decode()


def test_haplotypes_are_those_of_bcftools_consensus(
    real_haplotypes: Path, human_slice: bytes, make_genome, tmp_path: Path
) -> None:
    """The outsider applies a sample's alleles to the FASTA; so do stretches."""
    letters = human_slice[:SLICE]
    fasta = write_fasta(tmp_path / "20.fa", {"20": letters})
    packed = tmp_path / "in.vcf.gz"
    pysam.bcftools.view("-Oz", "-o", str(packed), str(real_haplotypes), catch_stdout=False)
    pysam.bcftools.index(str(packed))
    locator = Locator(make_genome({"20": letters}), ScoringOptions())
    for sample in ("HG00096", "HG00100"):
        personal = read_personal(real_haplotypes, sample, locator)
        for haplotype in (0, 1):
            arguments = ("-f", str(fasta), "-s", sample, "-H", str(haplotype + 1), str(packed))
            text = pysam.bcftools.consensus(*arguments, "-o", str(tmp_path / "x.fa"), catch_stdout=False)
            assert not text
            wanted = "".join((tmp_path / "x.fa").read_text().splitlines()[1:])
            edits = personal.haplotypes.on("20", Carrier(haplotype, None), 0, SLICE)
            assert len(edits) > 8
            stretch = Stretch("20", 0, SLICE, 0, SLICE, edits)
            assert len(stretch) == len(wanted)
            assert stretch.read(locator.letters, 0, len(wanted)).decode() == wanted


@given(data=st.data(), changes=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9), st.text("ACGT", max_size=5))))
def test_any_piece_of_a_stretch_is_a_piece_of_it(data: st.DataObject, changes: list, make_genome) -> None:
    """Written letter by letter: what edits leave of the reference, and what they put there."""
    edits: list[Edit] = []
    for start, width, letters in sorted(changes):
        one = Edit(start, start + width, letters.encode())
        if (width or letters) and not any(one.overlaps(before) for before in edits):
            edits.append(one)
    edits.sort()
    cells = [*LETTERS[:80], ""]
    for one in reversed(edits):
        cells[one.start : one.end] = [""] * (one.end - one.start)
        cells[one.start] = one.letters.decode() + cells[one.start]
    whole = "".join(cells)
    stretch = Stretch("20", 0, 80, 0, 80, tuple(edits))
    first = data.draw(st.integers(0, len(whole)))
    last = data.draw(st.integers(first, len(whole)))
    letters = Locator(make_genome({"20": LETTERS}), ScoringOptions()).letters
    assert stretch.read(letters, first, last).decode() == whole[first:last]
    assert len(stretch) == len(whole)
    for one in edits:
        assert whole[stretch.place(one) :].startswith(one.letters.decode())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"0|1", Genotype((0, 1), phased=True)),
        (b"0/1", Genotype((0, 1), phased=False)),
        (b"1", Genotype((1,), phased=True)),
        (b".|2", Genotype((None, 2), phased=True)),
        (b"0|1/1", Genotype((0, 1, 1), phased=False)),
        (b"|0|1", Genotype((0, 1), phased=True)),
        (b"/0|1", Genotype((0, 1), phased=False)),
        (b".", Genotype((None,), phased=True)),
        (b"x|1", Genotype((), phased=True)),
        (b"", Genotype((), phased=True)),
    ],
)
def test_genotypes(text: bytes, wanted: Genotype) -> None:
    assert parse_genotype(text) == wanted
    assert parse_genotype(text, b"17").phase_set == (17 if wanted.alleles else None)


def test_an_allele_is_kept_in_seventy_bytes() -> None:
    count, haplotypes = 20_000, SampleHaplotypes()
    tracemalloc.start()
    try:
        for number in range(count):
            one = Edit(7 * number, 7 * number + 1, b"A") if number % 5 else Edit(7 * number, 7 * number, b"ACG")
            haplotypes.add("1", one, (number % 2,), None, same=False)
        haplotypes.settle()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(haplotypes.on("1", Carrier(0, None), 0, 69_999)) == 5000
    assert kept < 75 * count
    # A contig is copied while it is put in order.
    assert peak < 130 * count


def test_overlaps() -> None:
    deletion, inside, before, behind = Edit(5, 9, b""), Edit(7, 7, b"A"), Edit(5, 5, b"A"), Edit(9, 9, b"A")
    assert deletion.overlaps(inside)
    assert inside.overlaps(deletion)
    assert not deletion.overlaps(before)
    assert not deletion.overlaps(behind)
    assert before.overlaps(Edit(5, 5, b"T"))
    assert not Edit(4, 5, b"T").overlaps(deletion)
    assert Edit(8, 9, b"T").overlaps(deletion)

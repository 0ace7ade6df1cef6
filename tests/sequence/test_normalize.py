"""Normalisation against `bcftools norm`, and the laws of equivalent placements against haplotypes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pysam
import pysam.bcftools
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from genossm.core.errors import IntervalError, ReferenceMismatchError
from genossm.sequence import Variant, anchored, equivalent_span, left_align, place, place_on_circle, trim
from genossm.sequence.normalize import Fetch
from genossm.testing import write_fasta
from genossm.testing.strategies import dna, repetitive_dna, variants


def reader(reference: str) -> Fetch:
    return lambda start0, end0: reference[start0:end0].encode("ascii")


def haplotype(reference: str, variant: Variant) -> str:
    return reference[: variant.start0] + variant.alt + reference[variant.end0 :]


def bcftools_norm(reference: str, given_variants: list[Variant]) -> list[Variant]:
    with tempfile.TemporaryDirectory() as folder:
        fasta = write_fasta(Path(folder) / "ref.fa", {"1": reference.encode()})
        vcf = Path(folder) / "in.vcf"
        columns = "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"])
        header = f"##fileformat=VCFv4.3\n##contig=<ID=1,length={len(reference)}>\n{columns}\n"
        rows = sorted((v.pos1, v.to_vcf_row(str(i))) for i, v in enumerate(given_variants))
        vcf.write_text(header + "".join(row + "\n" for _, row in rows))
        output = Path(folder) / "out.vcf"
        pysam.bcftools.norm("-f", str(fasta), "-c", "e", "-o", str(output), str(vcf), catch_stdout=False)
        lines = [line.split("\t") for line in output.read_text().splitlines() if not line.startswith("#")]
    by_number = {int(fields[2]): Variant(fields[0], int(fields[1]), fields[3], fields[4]) for fields in lines}
    return [by_number[i] for i in range(len(given_variants))]


@st.composite
def cases(draw: st.DrawFn, letters: str = "ACGT") -> tuple[str, list[Variant]]:
    reference = draw(st.one_of(repetitive_dna(letters=letters), dna(2, 60, letters=letters)))
    return reference, draw(st.lists(variants(reference), min_size=1, max_size=8))


@given(cases())
@settings(max_examples=150)
@example(("AAAAC", [Variant("1", 1, "A", "AA"), Variant("1", 4, "AC", "C"), Variant("1", 1, "AAAA", "A")]))
@example(("CACACACG", [Variant("1", 6, "ACG", "G"), Variant("1", 7, "C", "CAC"), Variant("1", 1, "CACA", "TG")]))
def test_left_align_is_bcftools_norm(case: tuple[str, list[Variant]]) -> None:
    reference, given_variants = case
    kept = [v for v in given_variants if not (v.kind == "deletion" and len(haplotype(reference, v)) == 0)]
    assume(kept)
    assert [left_align(v, reader(reference)) for v in kept] == bcftools_norm(reference, kept)


@given(cases(letters="ACN"))
def test_left_align_is_bcftools_norm_among_n(case: tuple[str, list[Variant]]) -> None:
    reference, given_variants = case
    assert [left_align(v, reader(reference)) for v in given_variants] == bcftools_norm(reference, given_variants)


@given(cases())
def test_left_align_keeps_the_haplotype_and_repeats_itself(case: tuple[str, list[Variant]]) -> None:
    reference, given_variants = case
    for variant in given_variants:
        aligned = left_align(variant, reader(reference))
        assert haplotype(reference, aligned) == haplotype(reference, variant)
        assert left_align(aligned, reader(reference)) == aligned
        assert aligned.kind == variant.kind


@given(cases())
def test_soft_mask_changes_nothing(case: tuple[str, list[Variant]]) -> None:
    reference, given_variants = case
    for variant in given_variants:
        assert place(variant, reader(reference.lower())) == place(variant, reader(reference))
        assert left_align(variant, reader(reference.lower())) == left_align(variant, reader(reference))


@given(cases())
@settings(max_examples=150)
def test_placements_are_all_that_give_the_haplotype(case: tuple[str, list[Variant]]) -> None:
    reference, given_variants = case
    for variant in given_variants:
        found = place(variant, reader(reference))
        changed = haplotype(reference, variant)
        size = max(len(found.ref), len(found.alt))
        starts = []
        for start in range(len(reference) - len(found.ref) + 1):
            alt = changed[start : start + len(found.alt)]
            if reference[:start] + alt + reference[start + len(found.ref) :] == changed:
                starts.append(start)
        if found.ref and found.alt:
            assert found.leftmost == found.rightmost
            assert found.leftmost in starts
        else:
            assert starts == list(range(found.leftmost, found.rightmost + 1)), (size, found)
        assert equivalent_span(variant, reader(reference)) == (found.leftmost, found.rightmost + len(found.ref))


@given(cases())
@settings(max_examples=150)
def test_differences_are_where_the_haplotypes_part(case: tuple[str, list[Variant]]) -> None:
    reference, given_variants = case
    for variant in given_variants:
        found, changed = place(variant, reader(reference)), haplotype(reference, variant)
        first = found.first_difference
        assert reference[:first] == changed[:first]
        if first < min(len(reference), len(changed)):
            assert reference[first] != changed[first]
        ref_end, alt_end = found.last_difference
        assert reference[ref_end:] == changed[alt_end:]
        if ref_end and alt_end:
            assert reference[ref_end - 1] != changed[alt_end - 1]


@given(dna(1, 8, letters="AC"), dna(1, 8, letters="AC"))
def test_trim_is_parsimonious_and_keeps_an_anchor(ref: str, alt: str) -> None:
    assume(ref != alt)
    before = Variant("1", 5, ref, alt)
    after = trim(before)
    reference = "GTGT" + ref + "GTGT"
    assert haplotype(reference, after) == haplotype(reference, before)
    if len(after.ref) > 1 and len(after.alt) > 1:
        assert after.ref[0] != after.alt[0]
        assert after.ref[-1] != after.alt[-1]


def test_ambiguity_codes_read_as_their_first_base() -> None:
    # R stands for A or G; by the VCF rule it is A here, so the repeat of A goes through it.
    fetch = reader("CARAAT")
    assert left_align(Variant("1", 4, "AA", "A"), fetch) == Variant("1", 1, "CA", "C")
    assert place(Variant("1", 3, "A", "T"), fetch).ref == "A"
    with pytest.raises(ReferenceMismatchError, match=r"REF is 'G', the reference has 'R'"):
        place(Variant("1", 3, "G", "T"), fetch)


def test_long_repeats_are_walked_to_their_ends() -> None:
    reference = "C" + "A" * 50_000 + "G"
    found = place(Variant("1", 25_000, "AA", "A"), reader(reference))
    assert (found.leftmost, found.rightmost, found.span) == (1, 50_000, (1, 50_001))
    assert left_align(Variant("1", 50_001, "AG", "G"), reader(reference)) == Variant("1", 1, "CA", "C")


def test_contig_starts_are_anchored_by_the_base_after() -> None:
    assert anchored("1", 0, "AC", "", reader("ACGT")) == Variant("1", 1, "ACG", "G")
    assert anchored("1", 0, "", "TT", reader("ACGT")) == Variant("1", 1, "A", "TTA")
    with pytest.raises(IntervalError, match="whole contig"):
        anchored("1", 0, "ACGT", "", reader("ACGT"))


def test_a_ref_that_the_reference_does_not_have_is_refused() -> None:
    with pytest.raises(ReferenceMismatchError, match=r"1:2:T>A: REF is 'T', the reference has 'C' there"):
        left_align(Variant("1", 2, "T", "A"), reader("ACGT"))
    with pytest.raises(IntervalError, match="REF ends at 6, after the end of contig 1"):
        left_align(Variant("1", 4, "TAC", "A"), reader("ACGT"))


def test_real_indels_are_left_aligned_as_bcftools_does(human_vcf: Path, human_slice: bytes) -> None:
    reference, offset = human_slice.decode(), 1_200_000
    found: list[Variant] = []
    with pysam.VariantFile(str(human_vcf)) as file:
        for record in file.fetch("20", offset, offset + len(reference) - 1000):
            alts = record.alts or ()
            found += [Variant("1", record.pos - offset, str(record.ref), alt) for alt in alts if record.start >= offset]
    indels = [variant for variant in found if not variant.is_snv]
    assert len(indels) > 20
    assert [left_align(v, reader(reference)) for v in indels] == bcftools_norm(reference, indels)


@given(repetitive_dna(2, 8), st.data())
def test_on_a_circle_a_change_has_one_placement_wherever_the_circle_is_cut(reference: str, data: st.DataObject) -> None:
    length = len(reference)
    assume(length >= 8)
    turned = data.draw(st.integers(0, length - 1))
    start, width = data.draw(st.integers(0, length - 1)), data.draw(st.integers(1, min(4, length // 2)))
    ref = (reference * 2)[start : start + width]
    alt = data.draw(st.one_of(dna(1, 4), st.just(ref + ref), st.just(ref[:1])).filter(lambda allele: allele != ref))
    other = reference[turned:] + reference[:turned]
    found = place_on_circle(Variant("1", start + 1, ref, alt), around(reference), length)
    again = place_on_circle(Variant("1", (start - turned) % length + 1, ref, alt), around(other), length)
    first = 0 if found.ref and found.alt else 1
    assert first <= found.leftmost < length + first
    shift = found.rightmost - found.leftmost
    if shift < length:
        assert ((again.leftmost + turned - first) % length + first, again.ref, again.alt) == (
            found.leftmost, found.ref, found.alt,
        )  # fmt: skip
        assert again.rightmost - again.leftmost == shift
    # The changed circle itself: every placement within the shift gives it, whichever base it is read from.
    assert canonical(apply(reference, found.leftmost % length, found.ref, found.alt)) == canonical(
        apply(reference, start, ref, alt)
    )


def around(reference: str):  # type: ignore[no-untyped-def]
    def fetch(start0: int, end0: int) -> bytes:
        return "".join(reference[i % len(reference)] for i in range(start0, end0)).encode()

    return fetch


def apply(circle: str, start0: int, ref: str, alt: str) -> str:
    """The changed circle, cut where REF begins."""
    opened = circle[start0:] + circle[:start0]
    assert opened.startswith(ref)
    return alt + opened[len(ref) :]


def canonical(circle: str) -> str:
    return min(circle[i:] + circle[:i] for i in range(len(circle)))

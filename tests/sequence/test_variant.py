from __future__ import annotations

from pathlib import Path

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genossm.core.errors import VariantError
from genossm.sequence import Variant, trimmed_alleles
from genossm.testing.strategies import CONTIG_NAMES, dna

VARIANTS = st.builds(
    lambda contig, pos1, alleles: Variant(contig, pos1, *alleles),
    CONTIG_NAMES,
    st.integers(min_value=1, max_value=1 << 40),
    st.tuples(dna(1, 9, letters="ACGTN"), dna(1, 9, letters="ACGTN")).filter(lambda pair: pair[0] != pair[1]),
)


@given(VARIANTS)
def test_every_printed_form_reads_back(variant: Variant) -> None:
    assert Variant.parse(str(variant)) == variant
    assert Variant.from_vcf_row(variant.to_vcf_row()) == (variant,)
    for text in (
        f"{variant.contig}:{variant.pos1}:{variant.ref}:{variant.alt}",
        f"{variant.contig}-{variant.pos1}-{variant.ref}-{variant.alt}",
        f"{variant.contig}_{variant.pos1}_{variant.ref}_{variant.alt}",
        f"{variant.contig}:{variant.pos1:,}{variant.ref}>{variant.alt}",
        f"{variant.contig}:g.{variant.pos1}{variant.ref.lower()}>{variant.alt.lower()}",
        f"  {variant}\n",
    ):
        assert Variant.parse(text) == variant


@pytest.mark.parametrize(
    "text",
    ["chr1:12345:A>G", "chr1-12345-A-G", "chr1:12,345:A:G", "chr1:g.12345A>G", "chr1_12345_A_G", "chr1:12345:a>g"],
)
def test_forms_that_people_write(text: str) -> None:
    variant = Variant.parse(text)
    assert variant == Variant("chr1", 12345, "A", "G")
    assert (variant.start0, variant.end0, str(variant)) == (12344, 12345, "chr1:12345:A>G")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1:12345", "Cannot read variant 'chr1:12345'; wanted contig:position:REF>ALT"),
        ("chr1:A>G", "Cannot read variant"),
        ("chr1:0:A>G", "position 0 is before the contig"),
        ("chr1:-5:A>G", "Cannot read variant"),
        ("chr1:5:A>A", "REF and ALT are both 'A'"),
        ("chr1:5:A:<DEL>", "Cannot read variant|ALT is"),
        ("chr1:5:A:*", r"ALT is '\*', wanted letters"),
        ("chr1:5:A>U", "ALT is 'U'"),
        ("chr1:5::G", "Cannot read variant"),
        ("chr1:1e5:A>G", "Cannot read variant"),
        ("rs12345", "Cannot read variant 'rs12345'"),
        ("", "Cannot read variant ''"),
    ],
)
def test_bad_variants_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(VariantError, match=message):
        Variant.parse(text)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("20\t5\t.\tA", "4 columns"),
        ("20 5 . A G", "1 columns"),
        ("20\tx\t.\tA\tG", "POS is 'x'"),
        ("20\t5\t.\tA\t<DEL>", "ALT is '<DEL>'"),
        ("20\t5\t.\tA\t.", "ALT is '.'"),
        ("20\t5\t.\tA\tA]20:7]", "ALT is 'A]20:7]'"),
        ("20\t5\t.\t\tA", "REF is ''"),
        ("\t5\t.\tC\tA", "name of a contig"),
    ],
)
def test_bad_vcf_rows_say_what_is_wrong(row: str, message: str) -> None:
    with pytest.raises(VariantError, match=message.replace("]", r"\]").replace(".'", r"\.'")):
        Variant.from_vcf_row(row)


def test_multi_allelic_rows_give_a_variant_an_allele() -> None:
    row = "20\t1110696\trs6040355\tA\tG,TT\t67\tPASS\tNS=2\n"
    assert Variant.from_vcf_row(row) == (Variant("20", 1110696, "A", "G"), Variant("20", 1110696, "A", "TT"))


def test_rows_agree_with_pysam_on_the_shipped_vcf(human_vcf: Path) -> None:
    with pysam.VariantFile(str(human_vcf)) as file:
        for record, _ in zip(file, range(2000)):
            variants = Variant.from_vcf_row(str(record))
            assert [(v.contig, v.start0, v.end0, v.ref) for v in variants] == [
                (record.chrom, record.start, record.stop, record.ref)
            ] * len(variants)
            assert tuple(v.alt for v in variants) == record.alts


@pytest.mark.parametrize(
    ("ref", "alt", "kind"),
    [
        ("A", "G", "snv"),
        ("CAT", "CGT", "snv"),
        ("AC", "GT", "mnv"),
        ("A", "AT", "insertion"),
        ("ATT", "AT", "deletion"),
        ("AT", "GCC", "complex"),
        ("CACA", "CA", "deletion"),
    ],
)
def test_kind_is_that_of_the_trimmed_alleles(ref: str, alt: str, kind: str) -> None:
    variant = Variant("1", 7, ref, alt)
    assert variant.kind == kind
    assert variant.is_snv == (kind == "snv")


@given(dna(1, 12, letters="AC"), dna(1, 12, letters="AC"))
def test_trimmed_alleles_share_no_end_and_rebuild_the_originals(ref: str, alt: str) -> None:
    offset, short_ref, short_alt = trimmed_alleles(ref, alt)
    tail = ref[offset + len(short_ref) :]
    assert ref == ref[:offset] + short_ref + tail
    assert alt == ref[:offset] + short_alt + tail
    if short_ref and short_alt:
        assert short_ref[0] != short_alt[0]
        assert short_ref[-1] != short_alt[-1]
    elif ref != alt:
        # Ends go first: what remains of an indel stands as far left as these letters alone allow.
        assert offset == 0 or (short_ref or short_alt)[-1] != ref[offset - 1]

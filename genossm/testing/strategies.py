"""Hypothesis strategies for sequences, intervals, variants and genomes. Needs `hypothesis` (genossm[dev])."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from genossm.sequence import Interval, Variant

Strategy = st.SearchStrategy

CONTIG_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.*:|-]{0,12}", fullmatch=True)
"""Names as they occur, HLA's colons and stars included."""


def dna(min_size: int = 1, max_size: int = 200, *, letters: str = "ACGT") -> Strategy[str]:
    """Sequences of the given letters."""
    return st.text(alphabet=letters, min_size=min_size, max_size=max_size)


@st.composite
def repetitive_dna(draw: st.DrawFn, min_units: int = 1, max_units: int = 8, *, letters: str = "ACGT") -> str:
    """Sequences of tandem repeats, in which an indel has many equivalent placements."""
    units = draw(
        st.lists(
            st.tuples(dna(1, 4, letters=letters), st.integers(min_value=1, max_value=6)),
            min_size=min_units,
            max_size=max_units,
        )
    )
    return "".join(unit * times for unit, times in units)


@st.composite
def intervals(draw: st.DrawFn, lengths: Mapping[str, int] | None = None, *, strands: str = "+-") -> Interval:
    """Intervals inside the contigs of `lengths`; without it, anywhere on any contig."""
    if lengths is None:
        contig, length = draw(CONTIG_NAMES), 1 << 40
    else:
        contig = draw(st.sampled_from(sorted(lengths)))
        length = lengths[contig]
    start = draw(st.integers(min_value=0, max_value=length - 1))
    end = draw(st.integers(min_value=start + 1, max_value=length))
    return Interval(contig, start, end, draw(st.sampled_from(strands)))


@st.composite
def variants(draw: st.DrawFn, reference: str, *, contig: str = "1", max_allele: int = 8) -> Variant:
    """Variants whose REF is what `reference` has there: substitutions, indels, complex, untrimmed ones too.

    Half of the insertions repeat what stands next to them, so that they can be placed in many ways.
    """
    start = draw(st.integers(min_value=0, max_value=len(reference) - 1))
    end = min(len(reference), start + draw(st.integers(min_value=1, max_value=max_allele)))
    ref = reference[start:end]
    repeated = ref[0] + reference[start + 1 : start + 1 + max_allele // 2] + ref[1:]
    options = [dna(1, max_allele), st.just(repeated), st.integers(1, len(ref)).map(lambda kept: ref[:kept])]
    alt = draw(st.one_of(options).filter(lambda allele: allele != ref))
    return Variant(contig, start + 1, ref, alt)


@st.composite
def genomes(draw: st.DrawFn, max_contigs: int = 3, max_length: int = 400) -> dict[str, bytes]:
    """Contig name to sequence, with N, soft-mask and IUPAC codes."""
    names = draw(st.lists(CONTIG_NAMES, min_size=1, max_size=max_contigs, unique_by=str.lower))
    body = st.one_of(dna(1, max_length, letters="ACGTNacgtn"), dna(1, max_length, letters="ACGTRYKMSWBDHVNacgtrn"))
    return {name: draw(body).encode("ascii") for name in names}

"""What a window holds where it leaves its contig, against slicing a string by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import ConfigError, IntervalError
from genossm.data.edges import encode_window, window_around
from genossm.genome import Genome
from genossm.sequence import Interval, NucleotideTokenizer, reverse_complement
from genossm.testing import random_sequence, write_fasta

LENGTH = 60
LETTERS = random_sequence(LENGTH, seed=4).decode()
TOKENIZER = NucleotideTokenizer()


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Genome]:
    path = write_fasta(tmp_path_factory.mktemp("edges") / "x.fa", {"one": LETTERS.encode()})
    with genossm.genome.open(path) as opened:
        yield opened


@st.composite
def places(draw: st.DrawFn) -> Interval:
    start = draw(st.integers(0, LENGTH - 1))
    return Interval("one", start, draw(st.integers(start + 1, LENGTH)), draw(st.sampled_from("+-")))


@given(place=places(), length=st.integers(1, 150))
def test_padding_is_the_slice_of_a_contig_in_a_sea_of_n(genome: Genome, place: Interval, length: int) -> None:
    sea = "N" * 200 + LETTERS + "N" * 200
    start = 200 + (place.start + place.end - length) // 2
    expected = sea[start : start + length]
    expected = expected if place.strand == "+" else reverse_complement(expected)
    window = window_around(genome, place, length, "pad")
    assert len(window) == length
    assert TOKENIZER.decode(encode_window(genome, window, TOKENIZER)) == expected


@given(place=places(), length=st.integers(1, LENGTH))
def test_shifting_moves_as_little_as_it_can(genome: Genome, place: Interval, length: int) -> None:
    wanted = (place.start + place.end - length) // 2
    possible = min(range(LENGTH - length + 1), key=lambda start: abs(start - wanted))
    window = window_around(genome, place, length, "shift")
    assert (window.interval, window.before, window.after) == (
        Interval("one", possible, possible + length, place.strand),
        0,
        0,
    )


@given(place=places(), length=st.integers(1, 150), policy=st.sampled_from(["raise", "pad", "shift"]))
def test_inside_the_contig_the_policy_does_not_matter(
    genome: Genome, place: Interval, length: int, policy: str
) -> None:
    start = (place.start + place.end - length) // 2
    if start >= 0 and start + length <= LENGTH:
        window = window_around(genome, place, length, policy)  # type: ignore[arg-type]
        assert window.interval == Interval("one", start, start + length, place.strand)
    elif policy == "raise" or (policy == "shift" and length > LENGTH):
        with pytest.raises(IntervalError, match="leaves contig one"):
            window_around(genome, place, length, policy)  # type: ignore[arg-type]


@pytest.mark.parametrize(("length", "policy"), [(0, "pad"), (5, "wrap")])
def test_what_is_not_possible(genome: Genome, length: int, policy: str) -> None:
    with pytest.raises(ConfigError, match="wanted at least 1 base"):
        window_around(genome, Interval("one", 3, 4), length, policy)  # type: ignore[arg-type]

"""Pairs of reference and alternative windows: the haplotypes that they should be, whatever the variant or the edge."""

from __future__ import annotations

import gzip
import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import ConfigError, InputFileError, IntervalError
from genossm.data.datamodule import SampleNumbers
from genossm.data.lengths import Lengths
from genossm.data.variant_pairs import PairCollator, PairItem, VariantPairs
from genossm.data.variant_rows import VariantRows, read_variant_rows
from genossm.genome import Genome
from genossm.sequence import NucleotideTokenizer, place, reverse_complement
from genossm.sequence.status import Status
from genossm.testing.strategies import variants

DATA = Path(__file__).parents[2] / "data"
TOKENIZER = NucleotideTokenizer(special_tokens="bos")
LETTERS = "".join(np.random.default_rng(0).choice(list("ACGT"), 200))


def make_rows(*alleles: tuple[str, int, str, str | None]) -> VariantRows:
    contigs, pos1, refs, alts = zip(*alleles)
    places = tuple(f"row {row}" for row in range(1, len(alleles) + 1))
    labels = np.arange(len(alleles), dtype=np.float32)[:, None]
    return VariantRows(contigs, pos1, refs, alts, places, labels, -labels, ("effect",), ("other",))


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Genome]:
    path = tmp_path_factory.mktemp("pairs") / "toy.fa"
    path.write_text(f">x\n{LETTERS}\n>ring\n{LETTERS[:60]}\n>repeat\n{'CG' * 10}{'A' * 8}{'TC' * 10}\n")
    with genossm.genome.open(path, circular=["ring"]) as opened:
        yield opened


def letters(ids: Any) -> str:
    return TOKENIZER.decode(np.asarray(ids))


def snv(contig: str, pos1: int, reference: str = LETTERS) -> tuple[str, int, str, str]:
    ref = reference[pos1 - 1]
    return contig, pos1, ref, "ACGT"["ACGT".index(ref) - 1]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), length=st.integers(16, 60), minus=st.booleans())
def test_windows_are_the_two_haplotypes_around_the_allele(
    data: st.DataObject, length: int, minus: bool, genome: Genome
) -> None:
    variant = data.draw(variants(LETTERS, contig="x", max_allele=6))
    rows = make_rows(("x", variant.pos1, variant.ref, variant.alt))
    pairs = VariantPairs(genome, rows, TOKENIZER, length, edges="pad", reverse_complement=True)
    item = next(one for one in map(pairs.__getitem__, range(64)) if (one.interval.strand == "-") == minus)
    reference, alternative = (letters(ids) for ids in (item.reference, item.alternative))
    spans = [item.reference_span, item.alternative_span]
    if minus:
        reference, alternative = reverse_complement(reference), reverse_complement(alternative)
        spans = [(length - last, length - first) for first, last in spans]
    placed = place(variant, genome.reader("x"))
    # The middle of the allele is the middle of the window; 100 N are in front of the contig here.
    start = (2 * placed.leftmost + len(placed.ref) - length) // 2 + 100
    whole = "N" * 100 + LETTERS + "N" * 100
    changed = "N" * 100 + LETTERS[: variant.start0] + variant.alt + LETTERS[variant.end0 :] + "N" * 100
    assert reference == whole[start : start + length]
    assert alternative == changed[start : start + length]
    # The spans hold all that differs: without them both windows have the same flanks.
    (first, last), (alt_first, alt_last) = spans
    assert first == alt_first == placed.leftmost + 100 - start
    assert reference[:first] == alternative[:first]
    shared = min(length - last, length - alt_last)
    assert reference[last : last + shared] == alternative[alt_last : alt_last + shared]


def test_spans_cover_every_equivalent_placement(genome: Genome) -> None:
    # One A of eight goes: whichever it is, the windows and spans are the same.
    for pos1, ref, alt in ((20, "GA", "G"), (25, "AA", "A")):
        rows = make_rows(("repeat", pos1, ref, alt))
        item = VariantPairs(genome, rows, TOKENIZER, 24)[0]
        assert letters(item.reference)[slice(*item.reference_span)] == "A" * 8
        assert letters(item.alternative)[slice(*item.alternative_span)] == "A" * 7
        assert letters(item.alternative)[:21].endswith("GAAAAAAATC")


def test_every_row_has_a_status_and_only_placed_ones_have_items(genome: Genome) -> None:
    other = "ACGT"["ACGT".index(LETTERS[99]) - 1]
    rows = make_rows(
        snv("x", 100), ("x", 100, other, LETTERS[99]), ("y", 1, "A", "C"), ("x", 201, "A", "C"),
        ("x", 100, LETTERS[99], "<DEL>"), ("x", 100, LETTERS[99], "*"), ("x", 100, LETTERS[99], None),
        ("x", 100, LETTERS[99], LETTERS[99]), ("x", 100, LETTERS[99], LETTERS[99] + "ACGT" * 10), snv("x", 120),
    )  # fmt: skip
    pairs = VariantPairs(genome, rows, TOKENIZER, 40)
    expected = "OK REF_MISMATCH CONTIG_UNKNOWN OUT_OF_CONTIG SYMBOLIC STAR_ALLELE NO_ALT OK TOO_LONG OK"
    assert [str(status) for status in pairs.statuses] == expected.split()
    assert pairs.rows.tolist() == [0, 7, 9]
    assert letters(pairs[1].reference) == letters(pairs[1].alternative)
    assert [(item.row, item.label.tolist(), item.covariates.tolist()) for item in (pairs[0], pairs[2])] == [
        (0, [0.0], [-0.0]),
        (9, [9.0], [-9.0]),
    ]
    with pytest.raises(IntervalError, match=r"None of 2 variants has a place in toy\.fa: 1 REF_MISMATCH, 1 CONTIG"):
        VariantPairs(genome, rows.select([1, 2]), TOKENIZER, 40)


def test_edges_are_refused_padded_or_moved(genome: Genome) -> None:
    rows = make_rows(snv("x", 5), snv("x", 100), ("x", 176, LETTERS[175:178], LETTERS[175]))
    with pytest.raises(IntervalError, match=r"row 1: windows of 50 bases around x:5 need 50 bases and leave contig x"):
        VariantPairs(genome, rows, TOKENIZER, 50)
    padded = VariantPairs(genome, rows, TOKENIZER, 50, edges="pad")
    assert (padded.padded, padded.shifted) == (2, 0)
    assert letters(padded[0].reference) == "N" * 21 + LETTERS[:29]
    moved = VariantPairs(genome, rows, TOKENIZER, 50, edges="shift")
    assert (moved.padded, moved.shifted) == (0, 2)
    assert letters(moved[0].reference) == LETTERS[:50]
    # A deletion at the end needs two bases more than the window, for its alternative.
    assert letters(moved[2].reference) == LETTERS[148:198]
    assert len(moved[2].alternative) == 50
    with pytest.raises(IntervalError, match="need 201 bases"):
        VariantPairs(genome, make_rows(snv("x", 100)), TOKENIZER, 201, edges="shift")
    with pytest.raises(ConfigError, match="edge policy 'wrap'"):
        VariantPairs(genome, rows, TOKENIZER, 50, edges="wrap")  # type: ignore[arg-type]


def test_a_circular_contig_goes_around(genome: Genome) -> None:
    ring = LETTERS[:60]
    pairs = VariantPairs(genome, make_rows(snv("ring", 2), ("ring", 60, ring[59] + ring[0], ring[59])), TOKENIZER, 40)
    assert letters(pairs[0].reference) == (ring + ring)[41:81]
    assert "N" not in letters(pairs[1].alternative)
    assert letters(pairs[1].alternative) in ring[1:] + ring[1:]
    with pytest.raises(IntervalError, match="need 61 bases"):
        VariantPairs(genome, make_rows(snv("ring", 2)), TOKENIZER, 61, edges="pad")


def as_tuple(item: PairItem) -> tuple[object, ...]:
    return item.row, item.interval, item.reference.tobytes(), item.alternative.tobytes()


def test_a_number_is_one_pair_and_an_epoch_has_them_all(genome: Genome) -> None:
    rows = make_rows(*(snv("x", pos1) for pos1 in range(50, 71)))
    choices: dict[str, Any] = {"shuffle": True, "reverse_complement": True, "seed": 4}
    pairs = VariantPairs(genome, rows, TOKENIZER, 30, **choices)
    items = [as_tuple(pairs[n]) for n in range(42)]
    assert sorted(str(item[0]) for item in items[:21]) == sorted(map(str, range(21)))
    assert [item[0] for item in items[:21]] != [item[0] for item in items[21:]]
    copied = pickle.loads(pickle.dumps(pairs))
    # Asked by another process, in another order, from a later step on.
    assert [as_tuple(copied[n]) for n in reversed(range(42))] == items[::-1]
    later = itertools.islice(SampleNumbers(Lengths.constant(30, 6), first_step=3), 2)
    assert [as_tuple(copied[n]) for batch in later for n in batch] == items[18:30]


def test_batches_hold_the_special_tokens_and_spans_count_them(genome: Genome) -> None:
    pairs = VariantPairs(genome, make_rows(snv("x", 80), ("x", 90, LETTERS[89], LETTERS[89] + "T")), TOKENIZER, 30)
    for tokenizer, front in (
        (NucleotideTokenizer(special_tokens="bos"), "[BOS]"),
        (NucleotideTokenizer(special_tokens="cls_sep"), "[CLS]"),
        (NucleotideTokenizer(special_tokens="sep"), ""),
    ):
        batch = PairCollator(tokenizer)([pairs[0], pairs[1]])
        assert tokenizer.decode(batch.reference[0].numpy()).startswith(front + letters(pairs[0].reference))
        assert len(batch.reference[0]) == len(tokenizer.encode("A" * 30, add_special_tokens=True))
        first, last = batch.alternative_spans[1].tolist()
        expected = letters(pairs[1].alternative)[slice(*pairs[1].alternative_span)]
        assert tokenizer.decode(batch.alternative[1, first:last].numpy()) == expected
        assert "T" in expected
    assert batch.labels.tolist() == [[0.0], [1.0]]
    assert batch.rows.tolist() == [0, 1]
    assert torch.equal(batch.to("cpu").covariates, batch.covariates)


@pytest.mark.parametrize("form", ["tsv", "csv.gz", "parquet", "vcf", "vcf.gz"])
def test_every_form_gives_the_same_rows(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"effects.{form}"
    table = {
        "CHROM": [20, 20, 20], "POS": [7, 7, 9], "REF": ["A", "A", "G"], "ALT": ["C", "T", "GA"],
        "effect": [0.5, -1.25, None], "cadd": [3.0, 3.0, 8.0],
    }  # fmt: skip
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.table(table), path)
    else:
        separator = "," if "csv" in form else "\t"
        lines = [separator.join("" if value is None else str(value) for value in row) for row in zip(*table.values())]
        lines = [separator.join(table), *lines]
        if "vcf" in form:
            lines = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
            lines += ["20\t7\t.\tA\tC,T\t.\t.\teffect=0.5,-1.25;DB;cadd=3", "20\t9\t.\tG\tGA\t.\t.\tcadd=8;effect=."]
        text = ("\n".join(lines) + "\n").encode()
        path.write_bytes(gzip.compress(text) if form.endswith("gz") else text)
    rows = read_variant_rows(path, labels=["effect"], covariates=["cadd"])
    assert list(zip(rows.contigs, rows.pos1, rows.refs, rows.alts)) == [
        ("20", 7, "A", "C"),
        ("20", 7, "A", "T"),
        ("20", 9, "G", "GA"),
    ]
    np.testing.assert_array_equal(rows.labels, np.array([[0.5], [-1.25], [np.nan]], np.float32))
    assert rows.covariates.tolist() == [[3.0], [3.0], [8.0]]
    assert rows.select([2, 0]).alts == ("GA", "C")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "chrom\tpos\tref\n1\t5\tA\n", "a.tsv has no column for the alt of a variant"),
        ("a.tsv", "chrom\tpos\tref\talt\n1\tfive\tA\tC\n", "row 1: the position is 'five'"),
        ("a.tsv", "chrom\tpos\tref\talt\n1\t5\tA\tC\n", "has no column 'effect'"),
        ("a.tsv", "chrom\tpos\tref\talt\tPOSITION\n1\t5\tA\tC\t6\n", "2 columns for the pos of a variant"),
        ("a.vcf", "#CHROM\n1\t5\t.\tA\tC\t.\t.\tAF=0.5\n", "a.vcf has no INFO/effect in any record; it has AF"),
        ("a.vcf", "1\t5\t.\tA\tC\t.\t.\teffect=high\n", "line 1: INFO/effect is 'high'; wanted a number"),
        ("a.vcf", "1\t5\t.\tA\tC,G,T\t.\t.\teffect=1,2\n", "INFO/effect has 2 values for 3 ALT alleles"),
        ("a.vcf", "1\t5\t.\tA\n", "line 1 has 4 columns"),
        ("a.vcf", "#CHROM\n", "a.vcf has no variant"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputFileError, match=message):
        read_variant_rows(tmp_path / name, labels=["effect"])
    with pytest.raises(InputFileError, match="No "):
        read_variant_rows(tmp_path / f"absent-{name}")


def test_columns_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("CHR\tBP\tA2\tA1\n1\t5\tA\tC\n")
    rows = read_variant_rows(tmp_path / "a.tsv", columns={"pos": "BP", "ref": "A2", "alt": "A1"})
    assert (rows.contigs, rows.pos1, rows.refs, rows.alts) == (("1",), (5,), ("A",), ("C",))
    with pytest.raises(ConfigError, match="'position' is no part of a variant"):
        read_variant_rows(tmp_path / "a.tsv", columns={"position": "BP"})


def test_a_real_vcf_is_placed_whole() -> None:
    rows = read_variant_rows(DATA / "1000g_chr20_1-4Mb.vcf.gz", labels=["AF"]).select(range(300))
    with genossm.genome.open(DATA / "chr20_1-4Mb.fa.gz") as genome:
        pairs = VariantPairs(genome, rows, TOKENIZER, 200)
        plain = [status for status in pairs.statuses if status is Status.OK]
        assert len(pairs) == len(plain) > 280
        assert all(0.0 <= item.label[0] <= 1.0 for item in map(pairs.__getitem__, range(0, len(pairs), 17)))

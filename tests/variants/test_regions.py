"""Which records are asked for, against bcftools view on the same file."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pysam.bcftools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import ContigNotFoundError, InputFileError, IntervalError
from genossm.genome import Genome
from genossm.testing import toy_genome, write_fasta
from genossm.variants.regions import Regions, split_list
from genossm.variants.vcf_input import open_vcf

DATA = Path(__file__).parents[2] / "data"
VCF = DATA / "1000g_chr20_1-4Mb.vcf.gz"


@pytest.fixture(scope="module")
def genome() -> Iterator[Genome]:
    with genossm.genome.open(DATA / "chr20_1-4Mb.fa.gz") as opened:
        yield opened


def selected(regions: Regions, path: Path = VCF) -> list[bytes]:
    with open_vcf(path) as vcf:
        return [b"\t".join(record.columns) for record in regions.select(vcf.records)]


def by_bcftools(*arguments: str) -> list[bytes]:
    return [line.encode() for line in pysam.bcftools.view("-H", *arguments, str(VCF)).splitlines()]


@settings(max_examples=12, deadline=None)
@given(pieces=st.lists(st.tuples(st.integers(1_000_001, 3_990_000), st.integers(0, 9_999)), min_size=1, max_size=4))
def test_regions_select_what_bcftools_selects(genome: Genome, pieces: list[tuple[int, int]]) -> None:
    texts = [f"20:{first}-{first + more}" for first, more in pieces]
    expected = by_bcftools("-r", ",".join(texts))
    assert selected(Regions(genome, [",".join(texts)])) == expected
    assert selected(Regions(genome, texts)) == expected


def test_a_deletion_that_reaches_into_a_region_is_in_it(genome: Genome) -> None:
    with open_vcf(VCF) as vcf:
        deletion = next(record for record in vcf.records if len(record.ref) > 5)
    last = deletion.pos1 + len(deletion.ref) - 1
    inside, outside = (selected(Regions(genome, [f"20:{place}-{place}"])) for place in (last, last + 1))
    assert b"\t".join(deletion.columns) in inside
    assert b"\t".join(deletion.columns) not in outside


def test_a_bed_file_counts_from_zero_and_aliases_hold(genome: Genome, tmp_path: Path) -> None:
    bed = tmp_path / "x.bed"
    bed.write_text("chr20\t1200000\t1210000\n20\t1205000\t1220000\n20\t3000000\t3000500\n")
    expected = by_bcftools("-r", "20:1200001-1220000,20:3000001-3000500")
    assert len(expected) > 50
    assert selected(Regions(genome, bed=bed)) == expected
    assert selected(Regions(genome, ["chr20:1,200,001-1,220,000"], bed)) == expected


def test_records_on_other_contigs_are_outside(tmp_path: Path) -> None:
    path = tmp_path / "x.vcf"
    rows = [("chr1", 5), ("chrUn", 5), ("chr2", 5), ("2", 7)]
    lines = [f"{contig}\t{pos}\t.\tA\tC\t.\t.\t." for contig, pos in rows]
    path.write_text("\n".join(["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO", *lines]) + "\n")
    with genossm.genome.open(write_fasta(tmp_path / "x.fa", toy_genome())) as genome:
        assert [line.split(b"\t")[0] for line in selected(Regions(genome, ["chr2"]), path)] == [b"chr2", b"2"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("20:1,000-2,000,21", ["20:1,000-2,000", "21"]),
        ("20,21:5-9", ["20", "21:5-9"]),
        ("20:1,234,567-2,345,678,X:1-5", ["20:1,234,567-2,345,678", "X:1-5"]),
        ("20,100", ["20", "100"]),
        ("20:5-,X", ["20:5-", "X"]),
    ],
)
def test_lists_split_at_the_commas_between_regions(text: str, pieces: list[str]) -> None:
    assert split_list(text) == pieces


def test_what_is_no_region(genome: Genome, tmp_path: Path) -> None:
    with pytest.raises(ContigNotFoundError):
        Regions(genome, ["7:1-5"])
    with pytest.raises(IntervalError, match="ends after contig 20"):
        Regions(genome, ["20:1-9000000"])
    with pytest.raises(InputFileError, match="No BED file"):
        Regions(genome, bed=tmp_path / "none.bed")


def test_the_command_scores_the_records_of_its_regions_as_the_whole_file_does(
    run_score: Callable[..., Any], human_fasta: Path, human_vcf: Path, model_dir: Path, tmp_path: Path
) -> None:
    usual = ["-f", human_fasta, "-m", model_dir, "--context", 64, "--horizon", 8]
    (tmp_path / "x.bed").write_text("20\t1002000\t1004000\n")
    lines = gzip.decompress(human_vcf.read_bytes()).decode().splitlines(keepends=True)
    (tmp_path / "in.vcf").write_text("".join(lines[:200]))
    whole = [line for line in run_score(*usual, "in.vcf").stdout.splitlines() if not line.startswith("#")]
    done = run_score(*usual, "-r", "20:1,000,001-1,001,000,20:1001500-1001800", "-R", "x.bed", "in.vcf")
    assert done.returncode == 0
    found = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    ranges = ((1_000_001, 1_001_000), (1_001_500, 1_001_800), (2_000 + 1_000_001, 1_004_000))
    expected = [line for line in whole if any(low <= int(line.split("\t")[1]) <= high for low, high in ranges)]
    assert 5 < len(expected) < len(whole)
    assert found == expected
    assert "-r 20:1,000,001-1,001,000,20:1001500-1001800 -R x.bed in.vcf" in done.stdout
    refused = run_score(*usual, "--variant", "20:1000226:A>T", "-r", "20")
    assert refused.returncode == 2
    assert "go with a VCF" in refused.stderr

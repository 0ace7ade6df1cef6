"""The shipped data is what data/README.md says, byte for byte and variant for variant."""

from __future__ import annotations

import re
from pathlib import Path

import pysam

import genossm.genome
from genossm.core.provenance import file_sha256
from genossm.sequence import Variant, check_reference


def test_every_file_is_listed_with_its_size_and_checksum(data_dir: Path) -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \| ([0-9,]+) \| `([0-9a-f]{64})`", (data_dir / "README.md").read_text(), re.MULTILINE
    )
    listed = {name: (int(size.replace(",", "")), digest) for name, size, digest in rows}
    files = [path for path in data_dir.iterdir() if path.name != "README.md"]
    assert {path.name: (path.stat().st_size, file_sha256(path)) for path in files} == listed
    assert sum(size for size, _ in listed.values()) < 10_000_000


def test_sequence_and_variants_are_as_described(human_fasta: Path, human_vcf: Path, data_dir: Path) -> None:
    text = (data_dir / "README.md").read_text()
    counts = dict.fromkeys(("all", "snv", "common", "rare"), 0)
    with genossm.genome.open(human_fasta) as genome, pysam.VariantFile(str(human_vcf)) as file:
        assert genome.digest("20") in text
        assert genome.n_runs("20").tolist() == [[0, 1_000_000]]
        fetch = genome.reader("20")
        for record in file:
            (alt,) = record.alts or ()
            variant = Variant(record.chrom, record.pos, str(record.ref), alt)
            check_reference(variant, fetch)
            (frequency,) = record.info["AF"]
            counts["all"] += 1
            counts["snv"] += variant.is_snv
            counts["common"] += frequency >= 0.05
            counts["rare"] += frequency <= 0.002
    assert counts == {"all": 24_990, "snv": 23_670, "common": 7_535, "rare": 11_687}
    assert all(f"{count:,}" in text for count in counts.values())

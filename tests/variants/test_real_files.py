"""Other tools' test files through the scorer: every record with its reason, or one line that says what is wrong."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest

import genossm.genome
from genossm.core.errors import InputFileError, WrongAssemblyError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.testing.conformance.cases import entries, header_and_records, value
from genossm.variants import FilePolicy, ScoringOptions, score_file

CASES = Path(__file__).parents[1] / "fixtures" / "vcf_cases"
OPTIONS = ScoringOptions(context=256, horizon=16)


def run(model: SequenceModel, genome: Genome, source: Path, target: Path) -> list[str]:
    """Statuses of every record, after all other fields and the header were found as they had been."""
    score_file(model, genome, source, target, OPTIONS, FilePolicy(), command="genossm score")
    header, records = header_and_records(source.read_bytes())
    header_out, records_out = header_and_records(target.read_bytes())
    rest = iter(header_out)
    assert all(any(line == other for other in rest) for line in header)
    for before, after in zip(records, records_out, strict=True):
        old, new = before.split(b"\t"), after.split(b"\t")
        assert old[:7] + old[8:] == new[:7] + new[8:]
        assert [e for e in entries(after) if not e.startswith(b"GENOSSM_")] == [e for e in entries(before) if e]
    return [value(record, "GENOSSM_STATUS") or "" for record in records_out]


def fitting(source: Path, make_genome) -> Genome:
    """A made-up reference that has the file's REF alleles, with random bases around them."""
    letters: dict[str, dict[int, str]] = defaultdict(dict)
    for record in header_and_records(source.read_bytes())[1]:
        contig, pos1, _, ref, *_ = record.decode("utf-8").split("\t")
        for offset, letter in enumerate(ref):
            letters[contig].setdefault(int(pos1) + offset, letter)
    rng, contigs = random.Random(2), {}
    for contig, known in letters.items():
        sequence = bytearray(b"N" * (max(known) + 200))
        for pos1 in known:
            low, high = max(0, pos1 - 200), min(len(sequence), pos1 + 200)
            sequence[low:high] = bytes(rng.choices(b"ACGT", k=high - low))
        for pos1, letter in known.items():
            sequence[pos1 - 1] = ord(letter)
        contigs[contig] = bytes(sequence)
    return make_genome(contigs)


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("walk_left.vcf", ["OK", "OK", "OK,OK", "NO_ALT", "OK", "OK,OK"]),
        # The first is a deletion of 69 bases, more than an eighth of 256.
        ("example-4.1-sv.vcf", ["TOO_LONG", *["SYMBOLIC"] * 5]),
        ("example_vcf43_with_utf8.vcf", ["OK", "OK", "OK,OK", "NO_ALT", "OK,OK", "OK"]),
    ],
)
def test_on_a_reference_that_fits(
    name: str, statuses: list[str], model: SequenceModel, make_genome, tmp_path: Path
) -> None:
    assert run(model, fitting(CASES / name, make_genome), CASES / name, tmp_path / "out.vcf") == statuses


def test_a_header_and_nothing_else(model: SequenceModel, make_genome, tmp_path: Path) -> None:
    source = CASES / "example_vcf42_only_header.vcf"
    assert run(model, make_genome({"1": "ACGT"}), source, tmp_path / "out.vcf") == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        # Spaces where tabs are due, in the line of column names and in a record.
        ("example-4.1-bnd.vcf", "line 24: the column names are"),
        ("issue-16.vcf", "line 20 is malformed: 9 columns, wanted 12"),
    ],
)
def test_files_that_are_refused(name: str, said: str, model: SequenceModel, make_genome, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=said):
        run(model, make_genome({"20": "ACGT"}), CASES / name, tmp_path / "out.vcf")
    assert not (tmp_path / "out.vcf").exists()


def test_breakends_once_their_header_has_tabs(model: SequenceModel, make_genome, tmp_path: Path) -> None:
    """An INFO without a letter, haplotypes of one and three copies, breakends to all sides."""
    lines = (CASES / "example-4.1-bnd.vcf").read_bytes().splitlines(keepends=True)
    names = next(number for number, line in enumerate(lines) if line.startswith(b"#CHROM"))
    lines[names] = b"\t".join(lines[names].split()) + b"\n"
    (tmp_path / "in.vcf").write_bytes(b"".join(lines))
    statuses = run(model, fitting(tmp_path / "in.vcf", make_genome), tmp_path / "in.vcf", tmp_path / "out.vcf")
    _, records = header_and_records(b"".join(lines))
    wanted = ["BREAKEND" if record.split(b"\t")[2].startswith(b"bnd") else "OK" for record in records]
    assert statuses == wanted
    assert {"BREAKEND", "OK"} == set(wanted)


def test_real_indels_as_found_and_as_normalised(model: SequenceModel, human_fasta: Path, tmp_path: Path) -> None:
    scores = []
    with genossm.genome.open(human_fasta) as genome:
        for name in ("vt_found.vcf", "vt_normalised.vcf"):
            assert run(model, genome, CASES / name, tmp_path / name) == ["OK"] * 10
            records = header_and_records((tmp_path / name).read_bytes())[1]
            scores.append(
                {(value(record, "AC"), value(record, "AN")): value(record, "GENOSSM_LLR") for record in records}
            )
    assert scores[0].keys() == scores[1].keys()
    for key, text in scores[0].items():
        assert float(scores[1][key] or "nan") == pytest.approx(float(text or "nan"), rel=2e-5, abs=2e-5)


def test_another_assembly_is_noticed(model: SequenceModel, human_fasta: Path, tmp_path: Path) -> None:
    """Chromosome 20 of NCBI36, on GRCh37's."""
    with genossm.genome.open(human_fasta) as genome, pytest.raises(WrongAssemblyError, match="another assembly"):
        run(model, genome, CASES / "example_vcf43_with_utf8.vcf", tmp_path / "out.vcf")

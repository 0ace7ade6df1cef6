"""`bcftools norm` as outsider: what it left-aligns, splits or joins scores as the record that it came from."""

from __future__ import annotations

from pathlib import Path

import pysam
import pysam.bcftools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.testing import write_fasta
from genossm.variants import FilePolicy, ScoringOptions, score_file
from genossm.variants.vcf_input import open_vcf

OPTIONS = ScoringOptions(context=256, horizon=24, both_strands=True)
# A stretch of human sequence with homopolymers, repeats of two bases and repeats of three, from 20:1,269,001 on.
START, LENGTH = 69_000, 2400
HEADER = (
    "##fileformat=VCFv4.2\n##contig=<ID=20>\n"
    '##INFO=<ID=KEY,Number=1,Type=String,Description="Number of the record">\n'
    '##INFO=<ID=WHICH,Number=A,Type=Integer,Description="Number of the allele">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
)
Scores = dict[tuple[str, str], tuple[float, str]]


@pytest.fixture(scope="module")
def letters(human_slice: bytes) -> str:
    return human_slice[START : START + LENGTH].decode()


@pytest.fixture(scope="module")
def fasta(letters: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fasta(tmp_path_factory.mktemp("norm") / "20.fa", {"20": letters.encode()})


@st.composite
def records(draw: st.DrawFn, letters: str) -> list[str]:
    """Data lines, sorted by position: substitutions, indels in repeats, several of them in one record, padded."""
    lines = []
    for number in range(draw(st.integers(1, 12))):
        repeats = st.sampled_from([268, 275, 1150, 1180, 1470, 1476, 1850, 1860])
        start = draw(st.one_of(repeats, st.integers(1, LENGTH - 40)))
        ref = letters[start : start + draw(st.integers(2, 20))]
        alts: list[str] = []
        for _ in range(draw(st.integers(1, 4))):
            cut, more = draw(st.integers(0, len(ref))), draw(st.integers(1, 4))
            new = draw(st.text("ACGT", min_size=1, max_size=3))
            kind = draw(st.sampled_from(["shorter", "longer", "other", "new"]))
            middle = {
                "shorter": "",
                "longer": ref[cut : cut + more] * 2,
                "other": new,
                "new": new + ref[cut : cut + more],
            }
            alts.append((ref[:cut] + middle[kind] + ref[cut + more :]) or ref[0])
        alts = [alt for alt in dict.fromkeys(alts) if alt != ref]
        if alts:
            which = ",".join(map(str, range(len(alts))))
            lines.append((start, f"20\t{start + 1}\t.\t{ref}\t{','.join(alts)}\t.\t.\tKEY={number};WHICH={which}\n"))
    return [line for _, line in sorted(lines)]


def scores(model: SequenceModel, genome: Genome, path: Path) -> tuple[Scores, list[int]]:
    """Score and status of every allele by (record, number in it) as it was before norm; positions."""
    target = path.with_suffix(".scored.vcf")
    score_file(model, genome, path, target, OPTIONS, FilePolicy(), command="genossm score")
    found: Scores = {}
    positions = []
    with open_vcf(target) as vcf:
        for record in vcf.records:
            said = dict(entry.split("=", 1) for entry in record.info.decode().split(";"))
            columns = (said[key].split(",") for key in ("WHICH", "GENOSSM_LLR", "GENOSSM_STATUS"))
            for which, value, status in zip(*columns, strict=True):
                found[said["KEY"], which] = float("nan") if value == "." else float(value), status
            positions.append(record.pos1)
    return found, positions


@settings(max_examples=settings().max_examples // 3 or 1)
@given(data=st.data())
@pytest.mark.parametrize("how", ["-m-any", "-m+any", ""])
def test_norm_changes_the_writing_and_no_score(
    how: str, data: st.DataObject, letters: str, fasta: Path, model: SequenceModel, make_genome, tmp_path_factory
) -> None:
    """Left-aligned; split, so that every ALT allele has a record of its own; joined with others of its site."""
    folder = tmp_path_factory.mktemp("norm")
    lines = data.draw(records(letters))
    source, normal = folder / "in.vcf", folder / "norm.vcf"
    source.write_text(HEADER + "".join(lines))
    if how == "-m+any":
        # What norm joins keeps the INFO of one record: each goes into the file alone.
        lines = lines[:1]
        source.write_text(HEADER + "".join(lines))
        split = folder / "split.vcf"
        pysam.bcftools.norm("--no-version", "-m-any", "-o", str(split), str(source), catch_stdout=False)
        pysam.bcftools.norm("--no-version", how, "-f", str(fasta), "-o", str(normal), str(split), catch_stdout=False)
    else:
        options = [how] if how else []
        pysam.bcftools.norm(
            "--no-version", *options, "-f", str(fasta), "-o", str(normal), str(source), catch_stdout=False
        )
    genome = make_genome({"20": letters})
    before, _ = scores(model, genome, source)
    after, _ = scores(model, genome, normal)
    assert after.keys() == before.keys()
    for key, (value, status) in before.items():
        assert after[key][1] == status
        # A thousandth of a nat in 1,024 letters, of which 24 are compared, and six printed digits.
        assert after[key][0] == pytest.approx(value, rel=2e-5, abs=3e-5, nan_ok=True), (key, lines)


def test_there_is_something_to_normalise(
    letters: str, fasta: Path, model: SequenceModel, make_genome, tmp_path
) -> None:
    """Units of real repeats written at their right end move, and score as they did."""
    lines = []
    for number, (end, unit) in enumerate([(282, 1), (1200, 2), (1483, 1), (1868, 3), (1868, 1)]):
        ref = letters[end - unit - 1 : end]
        lines.append(f"20\t{end - unit}\t.\t{ref}\t{ref[0]},{ref}{ref[1:]}\t.\t.\tKEY={number};WHICH=0,1\n")
    (tmp_path / "in.vcf").write_text(HEADER + "".join(lines))
    normal = tmp_path / "norm.vcf"
    arguments = ("--no-version", "-f", str(fasta), "-o", str(normal), str(tmp_path / "in.vcf"))
    pysam.bcftools.norm(*arguments, catch_stdout=False)
    genome = make_genome({"20": letters})
    before, old = scores(model, genome, tmp_path / "in.vcf")
    after, new = scores(model, genome, normal)
    assert all(b <= a - 8 for a, b in zip(old, new, strict=True)), (old, new)
    assert len(before) == 10
    for key, (value, status) in before.items():
        assert status == "OK"
        assert abs(value) > 1e-4
        assert after[key][0] == pytest.approx(value, rel=2e-5, abs=3e-5)

"""A file through the scorer: every record comes out as it came, with a score or a reason; or nothing comes out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pysam
import pysam.bcftools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genossm.core.errors import (
    ContigNotFoundError,
    GenossmError,
    InputFileError,
    OutputExistsError,
    ReferenceMismatchError,
    TooManySkippedError,
    UsageError,
    WrongAssemblyError,
)
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.testing import random_sequence
from genossm.variants import FilePolicy, ScoringOptions, Summary, assembly, files, score, score_file
from genossm.variants.vcf_header import facts_in
from genossm.variants.vcf_input import open_vcf

CONTIG = random_sequence(600, seed=4).decode()
OPTIONS = ScoringOptions(context=64, horizon=8)
HEADER = (
    "##fileformat=VCFv4.2\n##contig=<ID=1>\n"
    '##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n'
)


@pytest.fixture(scope="module")
def genome(make_genome) -> Genome:
    return make_genome({"1": CONTIG, "2": CONTIG[::-1]})


def base(pos1: int) -> str:
    return CONTIG[pos1 - 1]


def other(letter: str) -> str:
    return "CATG"["ACGT".index(letter)]


def row(pos1: int, *, ref: str = "", alt: str = "", info: str = ".", contig: str = "1") -> str:
    ref = ref or base(pos1)
    return f"{contig}\t{pos1}\t.\t{ref}\t{alt or other(ref[0])}\t.\tPASS\t{info}\n"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text(header + "".join(rows))
    return path


def run(model: SequenceModel, genome: Genome, source: Path, target: Path, **policy: object) -> Summary:
    return score_file(model, genome, source, target, OPTIONS, FilePolicy(**policy), command="genossm score")  # type: ignore[arg-type]


def infos(path: Path) -> list[dict[str, str]]:
    with open_vcf(path) as vcf:
        records = [record.info.decode() for record in vcf.records]
    return [dict((*entry.split("=", 1), "")[:2] for entry in info.split(";")) for info in records]


def others(folder: Path, *kept: Path) -> list[str]:
    """What lies in a folder, hidden files included, beside what a test put there."""
    return sorted(path.name for path in folder.iterdir() if path not in kept)


def test_scores_are_those_of_the_library(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source = write(tmp_path / "in.vcf", row(100, alt=f"{other(base(100))},{base(100)}TT"), row(7, info="DP=3"))
    summary = run(model, genome, source, tmp_path / "out.vcf")
    first, second = infos(tmp_path / "out.vcf")
    wanted = [
        Variant("1", 100, base(100), other(base(100))),
        Variant("1", 100, base(100), base(100) + "TT"),
        Variant("1", 7, base(7), other(base(7))),
    ]
    scores = [one.llr for one in score(model, genome, wanted, context=64, horizon=8)]
    written = [float(text) for text in (first["GENOSSM_LLR"] + "," + second["GENOSSM_LLR"]).split(",")]
    assert written == pytest.approx(scores, rel=1e-5)
    assert (first["GENOSSM_STATUS"], second["GENOSSM_STATUS"]) == ("OK,OK", "OK")
    assert second["DP"] == "3"
    assert (summary.records, summary.alleles, summary.scored) == (2, 3, 3)


def test_header_says_how_the_scores_came_about(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source = write(tmp_path / "in.vcf", row(9))
    run(model, genome, source, tmp_path / "out.vcf")
    with open_vcf(tmp_path / "out.vcf") as vcf:
        header = vcf.header
    facts = facts_in(header)
    assert facts["model"] == f"sha256:{model.digest()}"
    assert facts["reference"] == f"sha256:{genome.reference_digest}"
    assert (facts["context"], facts["horizon"], facts["strands"], facts["command"]) == ("64", "8", "+", "genossm score")
    # Everything of the input's header stays, in its order, in front.
    assert header[:3] == tuple(HEADER.encode().splitlines()[:3])
    with pysam.VariantFile(str(tmp_path / "out.vcf")) as file:
        llr, status = file.header.info["GENOSSM_LLR"], file.header.info["GENOSSM_STATUS"]
    assert (llr.number, llr.type, status.number, status.type) == ("A", "Float", ".", "String")
    assert "positive" in llr.description


@pytest.mark.parametrize(("name", "index"), [("out.vcf.gz", ".tbi"), ("out.bcf", ".csi"), ("out.vcf", None)])
def test_every_format_holds_the_same_records(
    name: str, index: str | None, model: SequenceModel, genome: Genome, tmp_path: Path
) -> None:
    source = write(
        tmp_path / "in.vcf", row(9), row(30, alt="."), row(31, alt="<DEL>,A" if base(31) != "A" else "<DEL>,C")
    )
    run(model, genome, source, tmp_path / "plain.vcf")
    run(model, genome, source, tmp_path / name, force=True)
    assert infos(tmp_path / name) == infos(tmp_path / "plain.vcf")
    files_now = {path.name for path in tmp_path.iterdir()}
    assert files_now == {"in.vcf", "plain.vcf", name} | ({name + index} if index else set())
    if index:
        with pysam.VariantFile(str(tmp_path / name)) as file:
            assert [record.pos for record in file.fetch("1", 29, 30)] == [30]


def test_a_round_trip_changes_nothing_but_our_fields(human_vcf: Path, model: SequenceModel, tmp_path: Path) -> None:
    """With bcftools as the outsider: our fields taken out again, the file prints as before."""
    import genossm.genome

    source = tmp_path / "in.vcf"
    region = "20:1010000-1030000"
    pysam.bcftools.view("--no-version", "-r", region, "-o", str(source), str(human_vcf), catch_stdout=False)
    with genossm.genome.open(human_vcf.parent / "chr20_1-4Mb.fa.gz") as genome:
        summary = run(model, genome, source, tmp_path / "out.bcf")
    assert summary.scored == summary.records > 50
    fields = "INFO/GENOSSM_LLR,INFO/GENOSSM_STATUS"
    removed = pysam.bcftools.annotate("--no-version", "-x", fields, str(tmp_path / "out.bcf")).splitlines()
    kept = [line for line in removed if not line.startswith("##genossm_")]
    assert kept == pysam.bcftools.view("--no-version", str(source)).splitlines()


def test_names_that_the_header_does_not_declare_survive(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    header = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\n"
    line = f"1\t9\t.\t{base(9)}\t{other(base(9))}\t.\tq10;s50\tDB;XY=3,4\tGT:ZZ\t0|1:k"
    source = write(tmp_path / "in.vcf", line + "\n", header=header)
    run(model, genome, source, tmp_path / "out.vcf")
    run(model, genome, source, tmp_path / "out.bcf")
    for path in (tmp_path / "out.vcf", tmp_path / "out.bcf"):
        with open_vcf(path) as vcf:
            [record] = vcf.records
        columns = record.with_info(record.info.split(b";GENOSSM")[0]).decode()
        assert columns == line


def test_sorted_files_alone_are_indexed(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source = write(tmp_path / "in.vcf", row(9), row(9, contig="2", ref=CONTIG[-9]), row(30))
    summary = run(model, genome, source, tmp_path / "out.vcf.gz")
    assert "not sorted" in summary.line()
    assert others(tmp_path) == ["in.vcf", "out.vcf.gz"]
    assert "not sorted" not in run(model, genome, write(source, row(9), row(30)), tmp_path / "sorted.vcf.gz").line()
    run(model, genome, source, tmp_path / "asked.vcf.gz", index=False)
    assert others(tmp_path) == ["asked.vcf.gz", "in.vcf", "out.vcf.gz", "sorted.vcf.gz", "sorted.vcf.gz.tbi"]


def test_an_old_index_does_not_outlive_its_file(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source = write(tmp_path / "in.vcf", row(9))
    run(model, genome, source, tmp_path / "out.vcf.gz")
    run(model, genome, source, tmp_path / "out.vcf.gz", index=False, force=True)
    assert others(tmp_path) == ["in.vcf", "out.vcf.gz"]


def test_header_only_stays_header_only(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source = write(tmp_path / "in.vcf")
    for name in ("out.vcf", "out.vcf.gz", "out.bcf"):
        summary = run(model, genome, source, tmp_path / name, max_skip_frac=0.0)
        assert summary.line().startswith("0 records, 0 alleles: 0 scored")
        assert infos(tmp_path / name) == []
    assert facts_in((tmp_path / "out.vcf").read_bytes().splitlines())["context"] == "64"


def test_statuses_and_counts(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.vcf",
        *(row(pos1) for pos1 in range(100, 104)),
        row(200, ref=base(200), alt=f"*,{other(base(200))},<NON_REF>"),
        row(201, alt="."),
        row(202, ref=other(base(202)), alt=base(202)),
        row(203, contig="un"),
        row(900, ref="A", alt="C"),
        row(204, alt=base(204) + "ACGTACGTA"),
        row(205, alt=base(205) + "N"),
        row(206, alt=f"{base(206)}[1:400["),
    )
    summary = run(model, genome, source, tmp_path / "out.vcf")
    found = infos(tmp_path / "out.vcf")
    assert [info["GENOSSM_STATUS"] for info in found[4:]] == [
        "STAR_ALLELE,OK,SYMBOLIC", "NO_ALT", "REF_MISMATCH", "CONTIG_UNKNOWN", "OUT_OF_CONTIG", "TOO_LONG", "NON_ACGT",
        "BREAKEND",
    ]  # fmt: skip
    assert found[4]["GENOSSM_LLR"].split(",")[::2] == [".", "."]
    assert float(found[4]["GENOSSM_LLR"].split(",")[1])
    assert "GENOSSM_LLR" not in found[5]
    assert found[6]["GENOSSM_LLR"] == "."
    described = summary.as_dict()
    assert described["alleles"] == summary.alleles == 14
    assert described["scored"] == 5
    assert described["skipped"] == dict.fromkeys(summary.skipped(), 1)
    assert len(summary.skipped()) == 9
    json.dumps(described)


def test_scores_of_an_earlier_run(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    once, twice = tmp_path / "once.vcf", tmp_path / "twice.vcf"
    run(model, genome, write(tmp_path / "in.vcf", row(9, info="DP=3"), row(30)), once)
    with pytest.raises(InputFileError, match="earlier run"):
        run(model, genome, once, twice)
    assert not twice.exists()
    run(model, genome, once, twice, force=True)
    assert twice.read_bytes() == once.read_bytes()


def test_output_is_not_overwritten(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source = write(tmp_path / "in.vcf", row(9))
    target = tmp_path / "out.vcf"
    target.write_text("precious")
    with pytest.raises(OutputExistsError):
        run(model, genome, source, target)
    assert target.read_text() == "precious"
    run(model, genome, source, target, force=True)
    assert len(infos(target)) == 1
    assert others(tmp_path) == ["in.vcf", "out.vcf"]


def test_unknown_output_format(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot tell the format"):
        run(model, genome, write(tmp_path / "in.vcf", row(9)), tmp_path / "out.txt")
    run(model, genome, tmp_path / "in.vcf", tmp_path / "out.txt", output="z")
    assert gzip.decompress((tmp_path / "out.txt").read_bytes()).startswith(b"##fileformat")


@pytest.mark.parametrize(("wrong", "right", "stops"), [(1, 0, True), (6, 5, True), (5, 5, False), (0, 5, False)])
def test_another_assembly_stops(
    wrong: int, right: int, stops: bool, model: SequenceModel, genome: Genome, tmp_path: Path
) -> None:
    mismatched = (row(pos1, ref=other(base(pos1)), alt=base(pos1)) for pos1 in range(100, 100 + wrong))
    # What cannot be checked does not count.
    rest = (row(pos1, alt="<DEL>") for pos1 in range(300, 340))
    source = write(tmp_path / "in.vcf", *(row(pos1) for pos1 in range(50, 50 + right)), *mismatched, *rest)
    if not stops:
        assert run(model, genome, source, tmp_path / "out.vcf").skipped().get("REF_MISMATCH", 0) == wrong
        return
    with pytest.raises(WrongAssemblyError, match="another assembly") as caught:
        run(model, genome, source, tmp_path / "out.vcf.gz")
    assert caught.value.exit_code == 3
    assert others(tmp_path) == ["in.vcf"]


def test_only_the_first_two_hundred_decide_on_the_assembly(
    model: SequenceModel, genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks as small as this one also show that a sample may span several.
    monkeypatch.setattr(files, "block_records", lambda *_: 7)
    monkeypatch.setattr(assembly, "ASSEMBLY_SAMPLE", 20)
    good = [row(pos1) for pos1 in range(50, 61)]
    bad = [row(pos1, ref=other(base(pos1)), alt=base(pos1)) for pos1 in range(100, 140)]
    summary = run(model, genome, write(tmp_path / "in.vcf", *good, *bad), tmp_path / "out.vcf")
    assert summary.skipped() == {"REF_MISMATCH": 40}
    with pytest.raises(WrongAssemblyError, match="of the first 20 alleles"):
        run(model, genome, write(tmp_path / "in.vcf", *good[:9], *bad, *good), tmp_path / "two.vcf")


def test_blocks_do_not_show(
    model: SequenceModel, genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in.vcf", *(row(pos1, alt=f"{other(base(pos1))},<DEL>") for pos1 in range(40, 70)))
    run(model, genome, source, tmp_path / "one.vcf")
    monkeypatch.setattr(files, "block_records", lambda *_: 4)
    run(model, genome, source, tmp_path / "many.vcf")
    pairs = zip(infos(tmp_path / "one.vcf"), infos(tmp_path / "many.vcf"), strict=True)
    for one, many in pairs:
        assert one["GENOSSM_STATUS"] == many["GENOSSM_STATUS"] == "OK,SYMBOLIC"
        first, second = (float(info["GENOSSM_LLR"].split(",")[0]) for info in (one, many))
        assert first == pytest.approx(second, abs=1e-5)


def test_no_contig_in_common_stops(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source = write(tmp_path / "in.vcf", row(9, contig="scaffold_7"), row(10, alt="<DEL>"))
    with pytest.raises(ContigNotFoundError, match=r"scaffold_7.*which has 1, 2"):
        run(model, genome, source, tmp_path / "out.vcf")
    assert others(tmp_path) == ["in.vcf"]


def test_contigs_are_found_by_their_aliases(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    run(model, genome, write(tmp_path / "in.vcf", row(9), row(9, contig="chr1")), tmp_path / "out.vcf")
    first, second = infos(tmp_path / "out.vcf")
    assert first == second
    assert (tmp_path / "out.vcf").read_text().splitlines()[-1].startswith("chr1\t9\t")


@pytest.mark.parametrize(("limit", "stops"), [(0.0, True), (0.32, True), (0.34, False), (1.0, False)])
def test_share_of_skipped_alleles(
    limit: float, stops: bool, model: SequenceModel, genome: Genome, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.vcf", row(9), row(10), row(11, alt="<DEL>"))
    if stops:
        with pytest.raises(TooManySkippedError, match=r"1 of 3 alleles.*1 SYMBOLIC"):
            run(model, genome, source, tmp_path / "out.vcf", max_skip_frac=limit)
        assert others(tmp_path) == ["in.vcf"]
    else:
        run(model, genome, source, tmp_path / "out.vcf", max_skip_frac=limit)


def test_check_ref_e_stops_at_the_record(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    rows = [*(row(pos1) for pos1 in range(9, 14)), row(20, ref=other(base(20)), alt=base(20))]
    source = write(tmp_path / "in.vcf", *rows)
    with pytest.raises(ReferenceMismatchError, match="line 10: REF of 1:20"):
        run(model, genome, source, tmp_path / "out.vcf", check_ref="e")
    assert others(tmp_path) == ["in.vcf"]


def test_malformed_line_leaves_nothing(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source = write(tmp_path / "in.vcf", row(9), "1\tx\t.\tA\tC\t.\t.\t.\n", row(10))
    for name in ("out.vcf", "out.vcf.gz", "out.bcf"):
        with pytest.raises(InputFileError, match="line 6 is malformed"):
            run(model, genome, source, tmp_path / name)
    assert others(tmp_path) == ["in.vcf"]


def test_positions_beyond_what_tbi_can_say(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source = write(tmp_path / "in.vcf", row(9), row(600_000_000, ref="A", alt="C"))
    run(model, genome, source, tmp_path / "out.vcf.gz")
    assert others(tmp_path) == ["in.vcf", "out.vcf.gz", "out.vcf.gz.csi"]


ALLELES = st.sampled_from(
    ["A", "C", "G", "T", "AC", "<DEL>", "*", "N", "a", "A[1:3[", ".", "GATTACAGATTACA", "<*>", ""]
)
FIELDS = st.text(alphabet="ACGT.,;=:|/ x9%<>*\té", max_size=6)


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["1", "chr1", "2", "un", ""]),
            st.one_of(st.integers(0, 700).map(str), FIELDS),
            st.one_of(st.just("ref"), ALLELES),
            st.lists(ALLELES, min_size=1, max_size=3).map(",".join),
            FIELDS,
        ),
        max_size=6,
    )
)
def test_any_file_is_scored_whole_or_refused_clearly(
    rows: list[tuple[str, str, str, str, str]], model: SequenceModel, genome: Genome, tmp_path_factory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    texts = []
    for contig, position, ref, alts, info in rows:
        known = ref == "ref" and position.isdigit() and 0 < int(position) <= len(CONTIG)
        texts.append(f"{contig}\t{position}\t.\t{base(int(position)) if known else ref}\t{alts}\t.\t.\t{info}\n")
    source = write(folder / "in.vcf", *texts)
    try:
        summary = run(model, genome, source, folder / "out.vcf")
    except GenossmError:
        assert others(folder) == ["in.vcf"]
        return
    assert summary.records == len(rows)
    lines = (folder / "out.vcf").read_bytes().splitlines()[-len(rows) :] if rows else []
    for text, line in zip(texts, lines, strict=True):
        before, after = text.rstrip("\n").encode().split(b"\t"), line.split(b"\t")
        assert before[:7] == after[:7]
        statuses = after[7].split(b"GENOSSM_STATUS=")[1].split(b",")
        assert len(statuses) == len(before[4].split(b","))

"""Tables beside a scored file say what it says; fields under a name of their own keep to themselves."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from genossm.core.errors import GenossmError, InputFileError, MissingDependencyError, OutputExistsError, UsageError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.testing import random_sequence
from genossm.variants import FilePolicy, ScoringOptions, Summary, allele_tables, files, score_file
from genossm.variants.naming import DEFAULT_TAG, Naming
from genossm.variants.shards import Shard, merge
from genossm.variants.vcf_header import facts_in
from genossm.variants.vcf_input import open_vcf

CONTIG = random_sequence(600, seed=4).decode()
OPTIONS = ScoringOptions(context=64, horizon=8, methods=("llr", "embedding"))
HEADER = "##fileformat=VCFv4.2\n##contig=<ID=1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
NAMES = ["GENOSSM_LLR", "GENOSSM_EMB_L2", "GENOSSM_EMB_COS", "GENOSSM_EMB_WINDOW_L2", "GENOSSM_EMB_WINDOW_COS"]


@pytest.fixture(scope="module")
def genome(make_genome) -> Genome:
    return make_genome({"1": CONTIG})


def row(pos1: int, *, alt: str = "", name: str = ".", ref: str = "", info: str = ".") -> str:
    ref = ref or CONTIG[pos1 - 1]
    return f"1\t{pos1}\t{name}\t{ref}\t{alt or 'CATG'['ACGT'.index(ref[0])]}\t.\t.\t{info}\n"


@pytest.fixture
def vcf(tmp_path: Path) -> Path:
    """64 records and 130 alleles, with and without scores."""
    path = tmp_path / "in.vcf"
    rows = [
        row(pos1, alt="GATC"["ACGT".index(CONTIG[pos1 - 1])] + ",<DEL>", name=f"rs{pos1}") for pos1 in range(40, 100)
    ]
    wrong = "CATG"["ACGT".index(CONTIG[109])]
    rows += [row(100, alt="."), row(101), row(102, alt=CONTIG[101] + "ACG,*,N"), row(110, ref=wrong)]
    path.write_text(HEADER + "".join(rows))
    return path


def run(model: SequenceModel, genome: Genome, source: Path, target: Path, **policy: object) -> Summary:
    chosen = FilePolicy(**policy)  # type: ignore[arg-type]
    return score_file(model, genome, source, target, OPTIONS, chosen, command="genossm score")


def alleles_in(path: Path, tag: str = "GENOSSM") -> list[dict[str, str]]:
    """What a VCF says of its alleles."""
    found = []
    with open_vcf(path) as opened:
        for record in opened.records:
            info = dict(entry.split("=") for entry in record.info.decode().split(";"))
            for number, alt in enumerate(record.alts or (".",)):
                named = {
                    name: info[name].split(",")[number] if name in info else "."
                    for name in (one.replace("GENOSSM", tag) for one in NAMES)
                }
                status = info[f"{tag}_STATUS"].split(",")[number]
                place = {"contig": record.contig, "pos": str(record.pos1), "ref": record.ref, "alt": alt}
                found.append({**place, "id": record.columns[2].decode(), "status": status, **named})
    return found


def test_one_row_an_allele(model: SequenceModel, genome: Genome, vcf: Path, tmp_path: Path) -> None:
    run(model, genome, vcf, tmp_path / "out.vcf", tsv=tmp_path / "out.tsv", parquet=tmp_path / "out.parquet")
    expected = alleles_in(tmp_path / "out.vcf")
    assert len(expected) == 60 * 2 + 1 + 1 + 3 + 1
    lines = (tmp_path / "out.tsv").read_text().splitlines()
    comments = [line for line in lines if line.startswith("##")]
    found = list(csv.DictReader(lines[len(comments) :], delimiter="\t"))
    assert found == [
        {key: "" if key in NAMES and value == "." else value for key, value in one.items()} for one in expected
    ]
    with open_vcf(tmp_path / "out.vcf") as opened:
        facts = facts_in(opened.header)
    assert facts_in([line.encode() for line in comments]) == facts
    table = pq.read_table(tmp_path / "out.parquet")
    assert json.loads(table.schema.metadata[b"genossm"]) == facts
    assert str(table.schema.field("pos").type) == "int64"
    for one, row_ in zip(expected, table.to_pylist(), strict=True):
        for key, value in one.items():
            none = value == "." and key in ("alt", "id", *NAMES)
            wanted = None if none else float(value) if key in NAMES else int(value) if key == "pos" else value
            assert row_[key] == wanted


def test_row_groups_do_not_follow_blocks_or_pieces(
    model: SequenceModel, genome: Genome, vcf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "block_records", lambda *_: 8)
    monkeypatch.setattr(allele_tables, "_GROUP", 50)
    tables = {name: {"tsv": tmp_path / f"{name}.tsv.gz", "parquet": tmp_path / f"{name}.parquet"} for name in "wj"}
    for suffix in (".vcf", ".bcf"):
        whole = tmp_path / f"whole{suffix}"
        run(model, genome, vcf, whole, force=True, **tables["w"])
        pieces = [tmp_path / f"{number}{suffix}" for number in (1, 2, 3)]
        for number, piece in enumerate(pieces, start=1):
            run(model, genome, vcf, piece, shard=Shard(number, 3))
        merge(pieces, tmp_path / f"joined{suffix}", force=True, **tables["j"])
        assert (tmp_path / f"joined{suffix}").read_bytes() == whole.read_bytes()
        for kind in ("tsv", "parquet"):
            assert tables["j"][kind].read_bytes() == tables["w"][kind].read_bytes()
    file = pq.ParquetFile(tables["w"]["parquet"])
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert sizes == [50, 50, 26]
    assert len(gzip.decompress(tables["w"]["tsv"].read_bytes()).splitlines()) > 126


def test_records_moved_aside_are_in_no_table(model: SequenceModel, genome: Genome, vcf: Path, tmp_path: Path) -> None:
    aside = tmp_path / "skipped.vcf"
    run(model, genome, vcf, tmp_path / "out.vcf", tsv=tmp_path / "out.tsv", check_ref="x", skipped=aside)
    statuses = [line.split("\t")[5] for line in (tmp_path / "out.tsv").read_text().splitlines() if "##" not in line]
    assert "REF_MISMATCH" not in statuses
    assert len(statuses) == 1 + 125


def test_tables_are_whole_or_absent(model: SequenceModel, genome: Genome, vcf: Path, tmp_path: Path) -> None:
    for name in ("out.tsv", "out.parquet"):
        taken = tmp_path / name
        taken.write_text("precious")
        with pytest.raises(OutputExistsError):
            run(model, genome, vcf, tmp_path / "out.vcf", **{name.split(".")[1]: taken})
        assert taken.read_text() == "precious"
        taken.unlink()
    with pytest.raises(GenossmError):
        run(model, genome, vcf, tmp_path / "out.vcf", tsv=tmp_path / "out.tsv", max_skip_frac=0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.vcf"]


def test_parquet_without_pyarrow(
    run_in_process: Callable[..., tuple[int, str]], human_fasta: Path, model_dir: Path, vcf: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    code, said = run_in_process("-f", human_fasta, "-m", model_dir, vcf, "-o", "out.vcf", "--parquet", "out.parquet")
    assert code == 1
    assert MissingDependencyError.__name__ not in said
    assert "pip install 'genossm[tables]'" in said


def test_two_models_in_one_file(
    model: SequenceModel, model_without_bos: SequenceModel, genome: Genome, vcf: Path, tmp_path: Path
) -> None:
    one, two, again = (tmp_path / f"{name}.vcf" for name in ("one", "two", "again"))
    run(model, genome, vcf, one)
    run(model_without_bos, genome, one, two, tag="SMALL.v2", tsv=tmp_path / "two.tsv")
    assert alleles_in(two) == alleles_in(one)
    own = alleles_in(two, "SMALL.v2")
    assert [allele["SMALL.v2_LLR"] for allele in own] != [allele["GENOSSM_LLR"] for allele in alleles_in(one)]
    head = next(line for line in (tmp_path / "two.tsv").read_text().splitlines() if "##" not in line)
    assert head.split("\t")[6:] == [name.replace("GENOSSM", "SMALL.v2") for name in NAMES]
    with open_vcf(two) as opened:
        header = opened.header
    assert facts_in(header)["model"] == f"sha256:{model.digest()}"
    assert facts_in(header, Naming("SMALL.v2"))["model"] == f"sha256:{model_without_bos.digest()}"
    # Either is replaced without a trace of the other.
    with pytest.raises(InputFileError, match=r"INFO/SMALL\.v2_.*--force"):
        run(model, genome, two, again, tag="SMALL.v2")
    run(model, genome, two, again, tag="SMALL.v2", force=True)
    assert alleles_in(again) == alleles_in(one)
    assert [list(one.values()) for one in alleles_in(again, "SMALL.v2")] == [
        list(one.values()) for one in alleles_in(one)
    ]
    run(model_without_bos, genome, two, again, force=True)
    assert alleles_in(again, "SMALL.v2") == own


def test_fields_of_other_programs_are_left_alone(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source = tmp_path / "in.vcf"
    line = '##INFO=<ID=CADD_PHRED,Number=1,Type=Float,Description="Another\'s">\n'
    source.write_text(HEADER.replace("#CHROM", line + "#CHROM") + row(50, info="CADD_PHRED=3;GENO=2"))
    for force in (False, True):
        with pytest.raises(InputFileError, match="CADD_"):
            run(model, genome, source, tmp_path / "out.vcf", tag="CADD", force=force)
    run(model, genome, source, tmp_path / "out.vcf", tag="GENO")
    assert ";GENO_LLR=" in (tmp_path / "out.vcf").read_text()
    assert "\tCADD_PHRED=3;GENO=2;GENO_LLR=" in (tmp_path / "out.vcf").read_text()


def test_tags_that_begin_with_another_keep_their_scores(
    model: SequenceModel, model_without_bos: SequenceModel, genome: Genome, vcf: Path, tmp_path: Path
) -> None:
    one, two, again, alone = (tmp_path / f"{name}.vcf" for name in ("one", "two", "again", "alone"))
    for short, longer in ((DEFAULT_TAG, "GENOSSM_LONG"), ("A", "A_L")):
        run(model, genome, vcf, one, tag=short, force=True)
        run(model_without_bos, genome, one, two, tag=longer, force=True)
        run(model, genome, two, again, tag=short, force=True)
        assert alleles_in(again, longer) == alleles_in(two, longer)
        assert alleles_in(again, short) == alleles_in(one, short)
        with open_vcf(two) as before, open_vcf(again) as after:
            assert facts_in(before.header, Naming(longer)) == facts_in(after.header, Naming(longer))
            assert "L_version" not in facts_in(before.header, Naming(short))
        run(model_without_bos, genome, vcf, alone, tag=longer, force=True)
        run(model, genome, alone, again, tag=short, force=True)
        assert alleles_in(again, longer) == alleles_in(alone, longer)


def test_fields_that_no_header_declares_stay(model: SequenceModel, genome: Genome, tmp_path: Path) -> None:
    source, out = tmp_path / "in.vcf", tmp_path / "out.vcf"
    source.write_text(HEADER + row(50, info="AF_EUR=0.25;GENOSSM_NOTE=mine"))
    for tag in ("AF", DEFAULT_TAG):
        run(model, genome, source, out, tag=tag, force=True)
        assert f"\tAF_EUR=0.25;GENOSSM_NOTE=mine;{tag}_LLR=" in out.read_text()
    source.write_text(HEADER + row(50, info="GENOSSM_LLR=1"))
    with pytest.raises(
        InputFileError, match=r"^1:50: the record holds INFO/GENOSSM_LLR, which the header does not declare"
    ):
        run(model, genome, source, out, force=True)
    run(model, genome, source, out, tag="OTHER", force=True)
    assert "\tGENOSSM_LLR=1;OTHER_LLR=" in out.read_text()


@pytest.mark.parametrize("tag", ["", "A B", "1A", "A;B", "A=B", "É"])
def test_names_that_a_vcf_cannot_hold(tag: str) -> None:
    with pytest.raises(UsageError, match="--tag"):
        FilePolicy(tag=tag)


def test_the_commands(
    run_in_process: Callable[..., tuple[int, str]], human_fasta: Path, human_vcf: Path, model_dir: Path, tmp_path: Path
) -> None:
    usual = ["-f", human_fasta, "-m", model_dir, "--context", 64, "--horizon", 8, "-r", "20:1,000,001-1,010,000"]
    usual += [human_vcf, "--tag", "MINE"]
    whole = ["--tsv", "whole.tsv", "--parquet", "whole.parquet", "-o", "whole.vcf"]
    assert run_in_process(*usual, *whole)[0] == 0
    assert "--tag MINE" in (tmp_path / "whole.vcf").read_text()
    assert run_in_process(*usual, "--shard", "1/1", "-o", "piece.vcf")[0] == 0
    code, said = run_in_process("merge", "piece.vcf", "-o", "joined.vcf", "--tsv", "joined.tsv")
    assert (code, "pass the --tag" in said) == (1, True)
    joined = ["-o", "joined.vcf", "--tag", "MINE", "--tsv", "joined.tsv", "--parquet", "joined.parquet"]
    assert run_in_process("merge", "piece.vcf", *joined)[0] == 0
    for kind in ("vcf", "tsv", "parquet"):
        assert (tmp_path / f"joined.{kind}").read_bytes() == (tmp_path / f"whole.{kind}").read_bytes()


@pytest.mark.parametrize(
    "option", [["--tsv", "x.tsv"], ["--summary", "x.json"], ["--tag", "X"], ["--force"], ["-o", "x"]]
)
def test_what_single_variants_have_no_use_for(
    option: list[str], run_in_process: Callable[..., tuple[int, str]], human_fasta: Path, model_dir: Path
) -> None:
    code, said = run_in_process("-f", human_fasta, "-m", model_dir, "--variant", "20:5:A>C", *option)
    assert code == 2
    assert "go with a VCF or BCF file: -" in said

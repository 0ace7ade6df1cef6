"""`genossm score --method` as installed: which fields come, what the header says, what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pysam
import pytest

from genossm.core.errors import UsageError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.variants import FilePolicy, ScoringOptions, score, score_file
from genossm.variants.methods import METHODS, parse_methods, tags_of
from genossm.variants.vcf_header import facts_in
from genossm.variants.vcf_input import open_vcf

EMBEDDING_TAGS = ["GENOSSM_EMB_L2", "GENOSSM_EMB_COS", "GENOSSM_EMB_WINDOW_L2", "GENOSSM_EMB_WINDOW_COS"]


@pytest.fixture
def vcf(human_vcf: Path, tmp_path: Path) -> Path:
    """Ten records of the example file."""
    lines = gzip.decompress(human_vcf.read_bytes()).decode().splitlines(keepends=True)
    path = tmp_path / "in.vcf"
    path.write_text("".join([line for line in lines[:40] if line.startswith("#")] + lines[40:50]))
    return path


@pytest.fixture
def masked(human_fasta: Path, equivariant_dir: Path) -> list[object]:
    return ["-f", human_fasta, "-m", equivariant_dir, "--context", 64]


@pytest.fixture
def causal(human_fasta: Path, model_dir: Path) -> list[object]:
    return ["-f", human_fasta, "-m", model_dir, "--context", 64]


def header_of(path: Path) -> dict[str, str]:
    with open_vcf(path) as file:
        return facts_in(file.header)


def test_a_masked_models_own_method(run_score, masked: list[object], vcf: Path, tmp_path: Path) -> None:
    done = run_score(*masked, vcf, "-o", "out.vcf", "--summary", "summary.json")
    assert (done.returncode, done.stdout) == (0, "")
    facts = header_of(tmp_path / "out.vcf")
    # An equivariant model reads both strands whatever is asked.
    assert (facts["method"], facts["strands"], facts["context"]) == ("mlm (masked)", "+,-", "64")
    assert "horizon" not in facts
    assert facts["unit"] == "nats; ALT minus REF; positive: ALT likelier"
    assert "one a pass" in facts["masked"]
    with pysam.VariantFile(str(tmp_path / "out.vcf")) as file:
        assert set(file.header.info) >= {"GENOSSM_LLR", "GENOSSM_STATUS"}
        assert "masked model, in nats" in (file.header.info["GENOSSM_LLR"].description or "")
        assert not set(EMBEDDING_TAGS) & set(file.header.info)
        assert all(record.info["GENOSSM_STATUS"] == ("OK",) and record.info["GENOSSM_LLR"][0] for record in file)
    options = json.loads((tmp_path / "summary.json").read_text())["options"]
    assert options == {"methods": ["mlm"], "context": 64, "both_strands": True}


def test_equal_runs_say_the_same_however_they_are_asked_for(
    run_in_process, masked: list[object], vcf: Path, tmp_path: Path
) -> None:
    def output(*options: str) -> str:
        assert run_in_process(*masked, vcf.name, "-o", "out.vcf", "--force", *options)[0] == 0
        return (tmp_path / "out.vcf").read_text()

    plain = output()
    assert f"--context 64 --both-strands --check-ref w {vcf.name}\n" in plain
    assert output("--method", "mlm", "--both-strands") == plain
    both = output("--method", "embedding", "--method", "mlm")
    assert output("--method", "mlm,embedding") == both
    assert "--method mlm,embedding --context 64 --both-strands --check-ref w" in both


def test_distances_are_written_only_if_asked_for(run_score, causal: list[object], vcf: Path, tmp_path: Path) -> None:
    assert run_score(*causal, "--method", "llr,embedding", vcf, "-o", "both.bcf").returncode == 0
    assert run_score(*causal, "--method", "embedding", vcf, "-o", "alone.vcf.gz").returncode == 0
    found = []
    for name in ("both.bcf", "alone.vcf.gz"):
        with pysam.VariantFile(str(tmp_path / name)) as file:
            ours = [key for key in file.header.info if key.startswith("GENOSSM")]
            assert [key for key in ours if "EMB" in key] == EMBEDDING_TAGS
            assert ("GENOSSM_LLR" in ours) == (name == "both.bcf")
            assert all(file.header.info[key].number == "A" for key in EMBEDDING_TAGS)
            found.append([[record.info[key][0] for key in EMBEDDING_TAGS] for record in file])
    assert found[0] == found[1]
    assert all(value > 0 for values in found[0] for value in values)
    both, alone = header_of(tmp_path / "both.bcf"), header_of(tmp_path / "alone.vcf.gz")
    assert (both["method"], alone["method"]) == ("llr (causal), embedding", "embedding")
    assert both["central"] == alone["central"]
    assert "768 on either side" in both["central"]
    assert ("horizon" in both, "unit" in both) == (True, True)
    assert ("horizon" in alone, "unit" in alone) == (False, False)


def test_tables_have_a_column_a_field(run_score, masked: list[object]) -> None:
    done = run_score(*masked, "--method", "mlm,embedding", "--variant", "20:1000226:A>T", "--variant", "20:5:A>C")
    head, first, second = (line.split("\t") for line in done.stdout.splitlines())
    assert head == ["variant", "GENOSSM_LLR", *EMBEDDING_TAGS, "GENOSSM_STATUS"]
    assert all(float(value) for value in first[1:-1])
    assert second == ["20:5:A>C", *".....", "REF_MISMATCH"]


def test_in_a_file_and_alone(masked_model: SequenceModel, human_genome: Genome, human_variants, tmp_path: Path) -> None:
    substitutions, others = human_variants
    chosen = sorted(substitutions[:6] + others[:4], key=lambda one: one.pos1)
    source = tmp_path / "in.vcf"
    rows = "".join(one.to_vcf_row() + "\n" for one in chosen)
    source.write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + rows)
    options = ScoringOptions(context=256, methods=("mlm", "embedding"))
    score_file(masked_model, human_genome, source, tmp_path / "o.vcf", options, FilePolicy(), command="genossm score")
    with pysam.VariantFile(str(tmp_path / "o.vcf")) as file:
        written = [[record.info[tag.name][0] for tag in tags_of(options.methods)] for record in file]
    for one, values in zip(chosen, written, strict=True):
        [alone] = score(masked_model, human_genome, [one], methods=options.methods, context=256)
        assert alone.embedding is not None
        # Six digits are written, and float32 has seven.
        assert values == pytest.approx([alone.llr, *alone.embedding], rel=1e-5, abs=3e-5)


def test_alleles_without_a_score_have_no_distance(masked_model: SequenceModel, make_genome, tmp_path: Path) -> None:
    genome: Genome = make_genome({"1": "ACGTACGTAACCGGTTACGT"})
    rows = ("1\t2\t.\tC\tT,<DEL>,C\t.\t.\tGENOSSM_EMB_L2=9,9,9;DP=3\n", "1\t4\t.\tT\t.\t.\t.\t.\n")
    source = tmp_path / "in.vcf"
    declared = '##INFO=<ID=GENOSSM_EMB_L2,Number=A,Type=Float,Description="Of an earlier run">\n'
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    source.write_text("##fileformat=VCFv4.2\n" + declared + columns + "".join(rows))
    for methods in (("embedding",), ()):
        options = ScoringOptions(context=64, methods=methods)
        score_file(
            masked_model, genome, source, tmp_path / "out.vcf", options, FilePolicy(force=True), command="genossm score"
        )
        lines = (tmp_path / "out.vcf").read_text().splitlines()
        first, second = (line.split("\t")[7] for line in lines[-2:])
        entries = dict(entry.split("=") for entry in first.split(";"))
        assert second == "GENOSSM_STATUS=NO_ALT"
        # What an earlier run had written has gone, whatever it was.
        names = [tag.name for tag in tags_of(methods or ("mlm",))]
        assert list(entries) == ["DP", *names, "GENOSSM_STATUS"]
        assert entries["GENOSSM_STATUS"] == "OK,SYMBOLIC,OK"
        for name in names:
            scored, symbolic, same = entries[name].split(",")
            assert (float(scored) != 0, symbolic, same) == (True, ".", "0")


@pytest.mark.parametrize(
    ("kind", "arguments", "code", "said"),
    [
        ("masked", ["--method", "pll"], 2, "'pll' is no method; wanted one or several of llr, mlm, embedding"),
        ("masked", ["--method", "mlm,"], 2, "'' is no method"),
        ("masked", ["--method", "llr"], 1, "llr needs a causal model; this one is masked and gives mlm, embedding"),
        ("causal", ["--method", "embedding,mlm"], 1, "mlm needs a masked model; this one is causal"),
        ("masked", ["--horizon", "512"], 2, "mlm has none. Leave it out."),
        ("causal", ["--method", "embedding", "--horizon", "full"], 2, "embedding has none"),
    ],
)
def test_methods_that_cannot_be(
    kind: str,
    arguments: list[str],
    code: int,
    said: str,
    run_score,
    run_in_process,
    request: pytest.FixtureRequest,
    vcf: Path,
    tmp_path: Path,
) -> None:
    usual = request.getfixturevalue(kind)
    done = run_score(*usual, *arguments, vcf, "-o", "out.vcf")
    assert (done.returncode, done.stdout) == (code, "")
    assert not (tmp_path / "out.vcf").exists()
    by_variant = run_in_process(*usual, *arguments, "--variant", "20:1000226:A>T")
    assert by_variant == (code, done.stderr)
    [line] = done.stderr.splitlines()
    assert line.startswith("genossm: error: ")
    assert said in line


def test_help_says_sign_and_unit_of_every_field(run_score) -> None:
    text = " ".join(run_score("--help").stdout.split())
    for tag in tags_of(METHODS):
        assert tag.name in text
    for words in ("ALT minus REF in nats", "Positive: the model finds ALT likelier", "1 - cosine, without unit"):
        assert words in text


def test_names_of_methods() -> None:
    assert parse_methods([" embedding , llr", "llr"]) == (("llr", "embedding"), ())
    assert parse_methods([]) == ((), ())
    # What is no method may be a head: the model's directory knows.
    assert parse_methods(["b,llr", "a_1", "b"]) == (("llr",), ("b", "a_1"))
    options = ScoringOptions(methods=("embedding", "b"))
    assert (options.methods, options.heads) == (("embedding",), ("b",))
    # A head sees the model's own ratio, which therefore comes too.
    assert options.of_model("masked", equivariant=False).methods == ("mlm", "embedding")
    with pytest.raises(UsageError, match="no method"):
        ScoringOptions(methods=("LLR",))

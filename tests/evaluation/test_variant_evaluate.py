"""Scores beside allele frequency: what is read, how it is binned, the Markov model's scores, the whole command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import genossm.genome
from genossm.core.errors import ConfigError, GenossmError, InputFileError
from genossm.evaluation.markov import UNKNOWN, MarkovModel, base_codes, count_contexts, reverse_complement_codes
from genossm.evaluation.two_sided import TwoSidedMarkov, fit_two_sided
from genossm.evaluation.variant_alleles import read_scored
from genossm.evaluation.variant_baseline import best_baseline
from genossm.evaluation.variant_evaluate import run_evaluate_variants
from genossm.evaluation.variant_frequency import compare_by_frequency, score_bins
from genossm.evaluation.variant_markov import markov_ratios
from genossm.evaluation.variant_section import variants_section
from genossm.evaluation.variant_two_sided import two_sided_ratios
from genossm.genome import Genome
from genossm.sequence import Interval, Variant
from genossm.testing import random_sequence, write_fasta
from genossm.variants import ScoringOptions
from genossm.variants.vcf_header import ScoringRun

OPTIONS = ScoringOptions(context=256, horizon=32, methods=("llr",))
LETTERS = random_sequence(4000, seed=8)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", {"1": LETTERS, "2": LETTERS[::-1]})


@pytest.fixture(scope="module")
def genome(fasta: Path) -> Genome:
    return genossm.genome.open(fasta)


def scored_vcf(path: Path, genome: Genome, rows: list[str], options: ScoringOptions = OPTIONS) -> Path:
    run = ScoringRun("abc", genome.reference_digest, options, "genossm score")
    lines = ["##fileformat=VCFv4.2", *(line.decode() for line in run.header_lines())]
    lines += ["#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO", *rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def base(pos1: int) -> str:
    return chr(LETTERS[pos1 - 1])


def row(pos1: int, llr: float, frequency: float, contig: str = "1") -> str:
    alt = "CATG"["ACGT".index(base(pos1))]
    info = f"AF={frequency};GENOSSM_LLR={llr};GENOSSM_STATUS=OK"
    return f"{contig}\t{pos1}\t.\t{base(pos1)}\t{alt}\t.\t.\t{info}"


def test_alleles_of_the_region_with_their_frequencies(genome: Genome, tmp_path: Path) -> None:
    ref = base(20)
    alts = [letter for letter in "ACGT" if letter != ref]
    rows = [
        row(10, 1.0, 0.1),
        row(11, 2.0, 0.1, contig="chr1"),
        f"1\t20\t.\t{ref}\t{alts[0]},<DEL>,{alts[1]}\t.\t.\tAF=0.5,0.1,.;GENOSSM_LLR=-3,.,4;GENOSSM_STATUS=OK,SYMBOLIC,OK",
        f"1\t21\t.\t{base(21)}\t.\t.\t.\tAF=.;GENOSSM_STATUS=NO_ALT",
        row(30, 5.0, 0.2),
        row(31, 6.0, 0.2),
        row(20, 7.0, 0.2, contig="2"),
    ]
    found = read_scored(scored_vcf(tmp_path / "s.vcf", genome, rows), genome, Interval("1", 10, 30))
    assert [(one.variant.pos1, one.llr, one.frequency) for one in found.alleles] == [
        (11, 2.0, 0.1), (20, -3.0, 0.5), (30, 5.0, 0.2),
    ]  # fmt: skip
    assert (found.alleles[1].variant.alt, found.alleles[1].variant.contig) == (alts[0], "1")
    assert found.unscored == {"SYMBOLIC": 1, "NO_ALT": 1}
    assert found.without_frequency == 1
    assert (found.options, found.model_digest) == (OPTIONS, "abc")


def test_files_that_cannot_be_judged(genome: Genome, tmp_path: Path) -> None:
    everywhere = Interval("1", 0, 4000)
    plain = tmp_path / "plain.vcf"
    plain.write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
    with pytest.raises(InputFileError, match="holds no scores"):
        read_scored(plain, genome, everywhere)
    scored = scored_vcf(tmp_path / "s.vcf", genome, [row(10, 1.0, 0.1)])
    text = scored.read_text()
    scored.write_text(text.replace(genome.reference_digest, "0" * 64))
    with pytest.raises(InputFileError, match="another reference"):
        read_scored(scored, genome, everywhere)
    scored.write_text(text.replace("AF=0.1", "AF=0.1,0.2"))
    with pytest.raises(InputFileError, match=r"line 14.*2 AF"):
        read_scored(scored, genome, everywhere)


def test_bins_hold_every_allele_once_with_the_stated_ends() -> None:
    frequencies = np.array([0.0, 0.00198807, 0.002, 0.0021, 0.01, 0.011, 0.049, 0.05, 0.2, 0.21, 0.5, 0.51, 1.0])
    scores = np.arange(len(frequencies), dtype=float)
    bins = score_bins(scores, frequencies)
    assert [one.count for one in bins] == [3, 2, 2, 2, 2, 2]
    assert bins[0].mean == pytest.approx(1.0)
    assert bins[3].quantiles == pytest.approx(tuple(np.quantile([7.0, 8.0], [0.05, 0.25, 0.5, 0.75, 0.95])))


def test_a_perfect_and_a_blind_score() -> None:
    frequencies = np.tile([0.001, 0.3], 200)
    scores = {"model": np.where(frequencies > 0.1, 2.0, 1.0), "blind": np.zeros(400)}
    result = compare_by_frequency(
        "SNV", scores, frequencies, np.arange(400) * 5000, block=10_000, replicates=200, seed=0
    )
    assert (result.common, result.rare) == (200, 200)
    assert result.separations is not None
    perfect, blind = result.separations["model"], result.separations["blind"]
    assert (perfect.auroc, perfect.interval) == (1.0, (1.0, 1.0))
    assert (blind.auroc, blind.interval) == (0.5, (0.5, 0.5))
    [difference] = result.differences
    assert (difference.method, difference.auroc, difference.interval) == ("blind", 0.5, (0.5, 0.5))


def test_alleles_in_few_blocks_give_no_interval() -> None:
    frequencies = np.tile([0.001, 0.3], 20)
    scores = {"model": np.where(frequencies > 0.1, 2.0, 1.0), "blind": np.zeros(40)}
    result = compare_by_frequency("SNV", scores, frequencies, np.arange(40), block=10, replicates=50, seed=0)
    assert result.separations is not None
    assert result.separations["model"].auroc == 1.0
    assert np.isnan(result.separations["model"].interval).all()
    assert np.isnan(result.differences[0].interval).all()


def test_no_area_without_both_sides() -> None:
    result = compare_by_frequency(
        "SNV", {"model": np.arange(3.0)}, np.array([0.2, 0.3, 0.4]), np.arange(3), block=10, replicates=9, seed=0
    )
    assert (result.common, result.rare, result.separations, result.differences) == (3, 0, None, ())


def full_sum(model: MarkovModel, reference: bytes, alternative: bytes, first: int, count: int) -> float:
    """Both haplotypes whole, each letter given all before it: nothing is left out, nothing cancelled by hand."""
    sums = [
        model.log_probabilities(base_codes(haplotype))[first : first + count].sum()
        for haplotype in (alternative, reference)
    ]
    return float(sums[0] - sums[1])


@pytest.mark.parametrize(("ref_length", "alt"), [(1, "sub"), (3, "sub"), (4, "del"), (1, "ins"), (3, "complex")])
def test_markov_scores_follow_the_causal_definition(ref_length: int, alt: str, genome: Genome) -> None:
    model = MarkovModel(count_contexts([base_codes(LETTERS)], 3), (1.0, 2.0, 3.0, 4.0))
    start = 100
    ref = LETTERS[start : start + ref_length]
    swapped = ref.translate(bytes.maketrans(b"ACGT", b"CATG"))
    new = {"sub": swapped, "del": ref[:1], "ins": ref + swapped + b"ACGT", "complex": swapped[:1] + b"GG"}[alt]
    variant = Variant("1", start + 1, ref.decode(), new.decode())
    # Context 256: the window of position 100 is [0, 256).
    alternative = LETTERS[:start] + new + LETTERS[start + ref_length :]
    first = next(i for i in range(len(LETTERS)) if LETTERS[i] != alternative[i])
    plus = full_sum(model, LETTERS, alternative, first, 32)
    [found] = markov_ratios(model, genome, [variant], OPTIONS)
    assert found == pytest.approx(plus, abs=1e-9)

    end = 256 + len(new) - ref_length
    others = [bytes(reverse_complement_codes(base_codes(h))) for h in (LETTERS[:256], alternative[:end])]
    letters = [code.translate(bytes.maketrans(bytes(range(4)), b"ACGT")) for code in others]
    first = next(i for i in range(200) if letters[0][i] != letters[1][i])
    count = min(32, len(letters[0]) - first, len(letters[1]) - first)
    minus = full_sum(model, letters[0], letters[1], first, count)
    [both] = markov_ratios(model, genome, [variant], ScoringOptions(256, 32, both_strands=True))
    assert both == pytest.approx((plus + minus) / 2, abs=1e-9)


def test_markov_order_is_chosen_on_the_validation_region(genome: Genome) -> None:
    train, tuned = [Interval("1", 0, 3000)], [Interval("1", 3000, 4000)]
    # Independent letters: nothing but order 0 generalises.
    for method in ("llr", "mlm"):
        assert best_baseline(genome, train, tuned, (0, 5), method).order == 0
        assert best_baseline(genome, train, [], (5,), method).order == 5
        with pytest.raises(ConfigError, match="No order"):
            best_baseline(genome, train, tuned, (), method)


MASKED = ScoringOptions(context=256, both_strands=True, methods=("mlm",))


def masked_sum(model: TwoSidedMarkov, haplotype: bytes, places: list[int]) -> float:
    """Σ ln p of the haplotype's own letters, each hidden alone."""
    total = 0.0
    for place in places:
        codes = base_codes(haplotype)
        codes[place] = UNKNOWN
        total += float(model.log_probabilities_at(codes, np.array([place]))[0, b"ACGT".index(haplotype[place])])
    return total


def test_two_sided_scores_follow_the_masked_definition(genome: Genome) -> None:
    model = fit_two_sided([base_codes(LETTERS[:3000])], [base_codes(LETTERS[3000:])], (4,))[4]
    start = 300
    # Context 256: the window of position 300 is [128, 384).
    window, at = LETTERS[128:384], start - 128
    ref = LETTERS[start : start + 2]
    alt = ref.translate(bytes.maketrans(b"ACGT", b"CATG"))
    hidden = base_codes(window)
    hidden[at : at + 2] = UNKNOWN
    p = model.log_probabilities_at(hidden, np.array([at, at + 1]))
    substitution = sum(p[i, b"ACGT".index(alt[i])] - p[i, b"ACGT".index(ref[i])] for i in range(2))

    inserted = alt + b"GATC"
    longer = window[: at + 1] + inserted + window[at + 1 :]
    before = 0
    while before < len(window) and window[before] == longer[before]:
        before += 1
    behind = 0
    while window[-1 - behind] == longer[-1 - behind]:
        behind += 1
    left = list(range(len(window) - behind - 8, len(window) - behind))
    right = list(range(before, before + 8))
    shifted = [i + len(inserted) for i in right]
    expected = masked_sum(model, longer, left + shifted) - masked_sum(model, window, left + right)

    wanted = [
        Variant("1", start + 1, ref.decode(), alt.decode()),
        Variant("1", start + 1, chr(window[at]), (window[at : at + 1] + inserted).decode()),
    ]
    for options in (MASKED, ScoringOptions(context=256, methods=("mlm",))):
        # Counted on both strands, the table says the same of either.
        found = two_sided_ratios(model, genome, wanted, options)
        assert found == pytest.approx([substitution, expected], abs=1e-9)
        alone = [two_sided_ratios(model, genome, [one], options)[0] for one in wanted]
        assert found == pytest.approx(alone, abs=1e-12)


def test_masked_scores_are_compared_with_a_table_of_both_flanks(genome: Genome, fasta: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [row(pos1, round(float(rng.normal()), 3), 0.3 if pos1 % 2 else 0.001) for pos1 in range(1001, 3001, 7)]
    scored = scored_vcf(tmp_path / "m.vcf", genome, rows, MASKED)
    report = run_evaluate_variants(
        scored, str(fasta), region="1:1,001-3,000", markov_train=["2:1-3000"], orders=(0, 2), block=100,
        replicates=200, output=tmp_path / "v.json",
    )  # fmt: skip
    content = json.loads((tmp_path / "v.json").read_text())
    assert content["score"] == {
        "method": "mlm", "context": 256, "both_strands": True, "unit": "nats, ALT minus REF",
    }  # fmt: skip
    names = [method["name"] for method in content["results"][0]["methods"]]
    assert names[0] == "model"
    assert names[1].startswith("two-sided order ")
    assert f"{names[1]} " in report.table()
    section = variants_section(content)
    assert "of the bases behind [MASK], in windows of 256 bases" in section.text[0]


def test_a_file_of_distances_alone_is_refused(genome: Genome, tmp_path: Path) -> None:
    options = ScoringOptions(context=256, methods=("embedding",))
    scored = scored_vcf(tmp_path / "s.vcf", genome, [row(10, 1.0, 0.1)], options)
    with pytest.raises(InputFileError, match="holds no GENOSSM_LLR: it was scored by embedding"):
        read_scored(scored, genome, Interval("1", 0, 4000))
    both = ScoringOptions(context=256, horizon=16, methods=("llr", "embedding"))
    scored = scored_vcf(tmp_path / "b.vcf", genome, [row(10, 1.0, 0.1)], both)
    found = read_scored(scored, genome, Interval("1", 0, 4000))
    assert found.options == ScoringOptions(256, 16, methods=("llr",))


@pytest.fixture
def scored(genome: Genome, tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    rows = []
    for pos1 in range(1001, 3001, 5):
        common = rng.random() < 0.5
        rows.append(row(pos1, round(float(rng.normal() + 2 * common), 3), 0.3 if common else 0.001))
    return scored_vcf(tmp_path / "scored.vcf", genome, rows)


def test_the_command_writes_what_the_report_page_reads(scored: Path, fasta: Path, tmp_path: Path) -> None:
    output = tmp_path / "variants.json"
    done = subprocess.run(
        [
            Path(sys.executable).with_name("genossm"), "evaluate", "variants", scored, "-f", fasta, "--region",
            "chr1:1,001-3,000", "--markov-train", "2:1-3000", "--markov", "0,2", "--block", "100", "-o", output,
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    content = json.loads(output.read_text())
    assert content["score"] == {
        "method": "llr", "context": 256, "horizon": 32, "both_strands": False, "unit": "nats, ALT minus REF",
    }  # fmt: skip
    assert (content["format"], content["alleles"], content["region"]) == ("genossm-variants", 400, "1:1,001-3,000")
    assert content["provenance"]["model_digest"] == "abc"
    model, markov = content["results"][0]["methods"]
    assert 0.85 < model["auroc"] < 0.97
    assert 0.35 < markov["auroc"] < 0.65
    assert model["interval"][0] < model["auroc"] < model["interval"][1]
    assert "above chance; better than Markov order" in content["sentence"]
    assert done.stdout.endswith(content["sentence"] + "\n")
    assert f"{model['auroc']:.3f}" in done.stdout

    section = variants_section(content)
    assert section.verdict == content["sentence"]
    assert [one[0:2] for one in section.rows] == [
        ("SNV", "model"), ("SNV", markov["name"]), ("all", "model"), ("all", markov["name"]),
    ]  # fmt: skip
    assert all(picture.svg.startswith("<svg") for picture in section.pictures)
    assert len(section.pictures) == 2


def test_few_blocks_give_no_verdict(scored: Path, fasta: Path, tmp_path: Path) -> None:
    """Intervals from two blocks say next to nothing, however narrow they come out."""
    report = run_evaluate_variants(
        scored, str(fasta), region="chr1:1,001-3,000", markov_train=(), output=tmp_path / "few.json", block=1000
    )
    assert "has 2 blocks of 1,000 bases, too few" in report.sentence()
    assert "chance" not in report.sentence()
    assert "no interval" in report.table()
    content = json.loads((tmp_path / "few.json").read_text())
    assert content["results"][0]["methods"][0]["interval"] is None
    assert "no interval" in variants_section(content).render()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"markov_train": ["1:2,500-3,500"]}, "overlap"),
        ({"region": "1:3,900-4,000"}, "no scored allele"),
        ({"region": "7:1-10"}, "no contig"),
        ({"orders": (13,)}, "0..12"),
    ],
)
def test_mistakes(changes: dict[str, object], message: str, scored: Path, fasta: Path, tmp_path: Path) -> None:
    arguments = {"region": "1:1,001-3,000", "markov_train": ["2:1-3000"], "output": tmp_path / "v.json", **changes}
    with pytest.raises(GenossmError, match=message):
        run_evaluate_variants(scored, str(fasta), **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "v.json").exists()

"""`evaluate bases`: one set of bases for all methods, an honest verdict, a file that can be plotted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import genossm.genome
from genossm.core.errors import ConfigError, OutputExistsError
from genossm.core.provenance import Provenance
from genossm.data.regions import Splits
from genossm.evaluation import bases_methods
from genossm.evaluation.bases import evaluate_bases, run_evaluate_bases
from genossm.evaluation.bases_report import BasesReport, write_report
from genossm.evaluation.likelihood import base_log_probabilities
from genossm.evaluation.markov import base_codes
from genossm.evaluation.report import bases_section
from genossm.genome import Genome
from genossm.models import SequenceModel, StackConfig
from genossm.sequence.interval import Interval
from genossm.testing.models import enliven

TRAIN, VALIDATION, TEST = "x:1-3,000", "x:3,001-4,000", "x:4,001-6,000"


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    letters = rng.choice(list("ACGT"), 6000, p=[0.4, 0.1, 0.2, 0.3])
    letters[4500:4600] = "N"
    path = tmp_path_factory.mktemp("genome") / "toy.fa"
    path.write_text(">x\n" + "".join(letters) + "\n")
    return path


@pytest.fixture(scope="module")
def genome(fasta: Path) -> Genome:
    return genossm.genome.open(fasta)


@pytest.fixture(scope="module")
def model() -> SequenceModel:
    torch.manual_seed(0)
    return enliven(SequenceModel(StackConfig(d_model=8, n_layer=1, d_state=4))).eval()


@pytest.fixture(scope="module")
def report(model: SequenceModel, genome: Genome) -> BasesReport:
    splits = Splits.parse(genome, [TRAIN], [VALIDATION], [TEST])
    return evaluate_bases(model, genome, splits, orders=[0, 2], context=64, block=250, replicates=500)


def test_every_method_is_judged_on_the_same_bases(report: BasesReport, model: SequenceModel, genome: Genome) -> None:
    assert report.scored_bases == 1900
    region = Interval("x", 4000, 6000)
    values, scored = base_log_probabilities(model, genome, region, context=64)
    assert report.methods[0].bits == pytest.approx(-values[scored].mean() / math.log(2), abs=1e-9)
    markov = bases_methods.fit_on_splits(genome, report.splits, [2])[2]
    codes = base_codes(genome.fetch_array(Interval("x", 3900, 6000)))
    expected = -markov.log_probabilities(codes)[100:][scored].mean() / math.log(2)
    assert report.methods[2].name == "Markov order 2"
    assert report.methods[2].bits == pytest.approx(expected, abs=1e-9)


def test_blocks_add_up_to_the_whole(report: BasesReport) -> None:
    assert report.block_places == tuple(("x", 4000 + 250 * i) for i in range(8))
    assert report.block_counts.tolist() == [250, 250, 150, 250, 250, 250, 250, 250]
    for i, method in enumerate(report.methods):
        mean = (report.block_bits[:, i] * report.block_counts).sum() / report.block_counts.sum()
        assert mean == pytest.approx(method.bits, abs=1e-9)
        assert method.interval[0] < method.bits < method.interval[1]


def test_an_untrained_model_does_not_beat_the_markov_model_and_the_report_says_so(report: BasesReport) -> None:
    assert report.best_markov is not None
    assert report.best_markov.bits == min(m.bits for m in report.methods[1:])
    assert report.verdict == "does not beat"
    assert "does NOT beat the best Markov model" in report.sentence()
    table = report.table().splitlines()
    assert [line.split("  ")[0] for line in table[1:]][-1] == "model"
    assert len(table) == 4


@pytest.mark.parametrize(
    ("shift", "verdict", "words"),
    [
        (-0.2, "beats", "beats the best Markov"),
        (0.0, "undecided", "cannot be told apart"),
        (0.2, "does not beat", "NOT"),
    ],
)
def test_the_verdict_follows_the_interval_of_the_difference(
    shift: float, verdict: str, words: str, genome: Genome, model: SequenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = Splits.parse(genome, [TRAIN], [VALIDATION], [TEST])
    markov = bases_methods.fit_on_splits(genome, splits, [1])[1]
    noise = np.random.default_rng(5)

    def stub(_model: object, _genome: object, region: Interval, **_: object) -> tuple[np.ndarray, np.ndarray]:
        codes = base_codes(genome.fetch_array(region))
        wobble = noise.normal(0.0, 0.05, len(region)) - shift * math.log(2)
        return markov.log_probabilities(codes) + wobble, codes < 4

    monkeypatch.setattr(bases_methods, "base_log_probabilities", stub)
    report = evaluate_bases(model, genome, splits, orders=[1], context=64, block=100, replicates=500)
    assert report.differences[0].bits == pytest.approx(shift, abs=0.01)
    assert report.verdict == verdict
    assert words in report.sentence()


def test_few_blocks_give_no_verdict(genome: Genome, model: SequenceModel, tmp_path: Path) -> None:
    """One block gives every replicate the same mean: an interval of no width, and a verdict out of nothing."""
    splits = Splits.parse(genome, [TRAIN], [VALIDATION], ["x:4,001-4,100"])
    report = evaluate_bases(model, genome, splits, orders=[1], context=64)
    assert report.verdict == "undecided"
    assert "only 1 block of 10,000 bases, so there is no interval. Choose a longer region" in report.sentence()
    assert "no interval" in report.table()
    write_report(report, tmp_path / "bases.json", provenance=Provenance())
    text = (tmp_path / "bases.json").read_text()
    assert "NaN" not in text
    content = json.loads(text)
    assert [one["interval"] for one in (*content["methods"], *content["differences"])] == [None] * 3
    section = bases_section(content).render()
    assert "no interval" in section
    assert "nan" not in section


def test_the_file_holds_the_figures_and_where_they_come_from(fasta: Path, model: SequenceModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model", provenance=Provenance(seed=1))
    output = tmp_path / "bases.json"
    report = run_evaluate_bases(
        str(tmp_path / "model"),
        str(fasta),
        train=[TRAIN],
        validation=[VALIDATION],
        test=["x:4,001-4,600", "x:5,001-5,300"],
        orders=[1],
        context=None,
        output=output,
        block=100,
    )
    content = json.loads(output.read_text())
    assert content["format"] == "genossm-bases"
    assert content["context"] == "whole"
    assert content["regions"]["test"] == ["x:4,001-4,600", "x:5,001-5,300"]
    assert content["methods"][0]["bits_per_base"] == report.methods[0].bits
    assert content["best_markov"] == "Markov order 1"
    assert content["sentence"] == report.sentence()
    blocks = content["blocks"]
    assert blocks["start0"] == [4000, 4100, 4200, 4300, 4400, 4500, 5000, 5100, 5200]
    # The block of N has nothing to show.
    assert blocks["bits_per_base"]["model"][5] is None
    assert blocks["scored_bases"] == [100] * 5 + [0] + [100] * 3
    assert content["provenance"]["model_digest"] == model.digest()
    with pytest.raises(OutputExistsError):
        run_evaluate_bases(
            str(tmp_path / "model"), str(fasta), train=[TRAIN], validation=[VALIDATION], test=[TEST],
            orders=[], context=64, output=output,
        )  # fmt: skip


def test_a_model_is_not_judged_on_what_it_says_it_learnt(
    fasta: Path, genome: Genome, model: SequenceModel, tmp_path: Path
) -> None:
    config = {"splits": {"train": ["chrx:1-4,100"], "validation": "x:4,101-4,200"}}
    arguments = {"orders": [0], "context": 64, "output": tmp_path / "bases.json"}
    for digest, leak in ((genome.reference_digest, True), ("another reference", False)):
        provenance = Provenance(reference_digest=digest, extra={"config": config})
        model.save_pretrained(tmp_path / "model", provenance=provenance, force=True)
        splits = {"train": [TRAIN], "validation": [VALIDATION], "test": [TEST]}
        if leak:
            with pytest.raises(ConfigError, match=r"x:1-4,100 among its train regions.*100 bases.*x:4,001-6,000"):
                run_evaluate_bases(str(tmp_path / "model"), str(fasta), **splits, **arguments)
            assert not (tmp_path / "bases.json").exists()
        else:
            run_evaluate_bases(str(tmp_path / "model"), str(fasta), **splits, **arguments)


def test_impossible_questions_are_refused(model: SequenceModel, genome: Genome) -> None:
    whole = Splits.parse(genome, [TRAIN], [VALIDATION], [TEST])
    with pytest.raises(ConfigError, match=r"within 0\.\.12, got 13"):
        evaluate_bases(model, genome, whole, orders=[13], context=64)
    with pytest.raises(ConfigError, match="No test region"):
        evaluate_bases(model, genome, Splits(whole.train, whole.validation), orders=[0], context=64)
    empty = Splits.parse(genome, [TRAIN], [VALIDATION], ["x:4,501-4,600"])
    with pytest.raises(ConfigError, match="no A, C, G or T"):
        evaluate_bases(model, genome, empty, orders=[], context=64)

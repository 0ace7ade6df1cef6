"""`evaluate bases` of a masked model: hidden bases, two-sided tables, and no rival that sees more."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import genossm.genome
from genossm.cli.main import run
from genossm.core.errors import ConfigError
from genossm.data.regions import Splits
from genossm.evaluation.bases import evaluate_bases
from genossm.evaluation.bases_report import BasesReport
from genossm.evaluation.markov import UNKNOWN, base_codes
from genossm.evaluation.masked_likelihood import hidden_log_probabilities, hidden_places
from genossm.evaluation.two_sided import TwoSidedMarkov, count_both_strands, tune_two_sided
from genossm.genome import Genome
from genossm.models import SequenceModel, StackConfig
from genossm.sequence.interval import Interval
from genossm.testing.models import enliven

TRAIN, VALIDATION, TEST = "x:1-3,000", "x:3,001-4,000", "x:4,001-6,000"
REGIONS = ["--train", TRAIN, "--validation", VALIDATION, "--test", TEST]
JUDGED = Interval("x", 4000, 6000)
SEED, FRACTION = 3, 0.25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every third base is a function of its two neighbours, so that both flanks say more than one."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, 6000)
    codes[1:-1:3] = (codes[:-2:3] + codes[2::3]) % 4
    letters = np.array(list("ACGT"))[codes]
    letters[4500:4600] = "N"
    folder = tmp_path_factory.mktemp("masked")
    (folder / "toy.fa").write_text(">x\n" + "".join(letters) + "\n")
    torch.manual_seed(0)
    masked = {"direction": "bidirectional", "objective": "masked", "reverse_complement": "equivariant"}
    enliven(SequenceModel(StackConfig(d_model=8, n_layer=1, d_state=4, **masked))).save_pretrained(folder / "model")
    SequenceModel(StackConfig(d_model=8, n_layer=1, d_state=4)).save_pretrained(folder / "causal")
    return folder


@pytest.fixture(scope="module")
def genome(folder: Path) -> Genome:
    return genossm.genome.open(folder / "toy.fa")


@pytest.fixture(scope="module")
def model(folder: Path) -> SequenceModel:
    return genossm.load(str(folder / "model"))


@pytest.fixture(scope="module")
def splits(genome: Genome) -> Splits:
    return Splits.parse(genome, [TRAIN], [VALIDATION], [TEST])


@pytest.fixture(scope="module")
def report(model: SequenceModel, genome: Genome, splits: Splits) -> BasesReport:
    return evaluate_bases(
        model, genome, splits, orders=[0, 2], context=64, mask_fraction=FRACTION, block=250, replicates=500, seed=SEED
    )


def expected_bits(table: TwoSidedMarkov, codes: np.ndarray, *, masked: bool) -> float:
    hidden = hidden_places(JUDGED, FRACTION, SEED) & (codes[4000:] < UNKNOWN)
    read = codes.copy()
    if masked:
        read[hidden_places(Interval("x", 0, 6000), FRACTION, SEED)] = UNKNOWN
    places = np.flatnonzero(hidden) + 4000
    return -table.log_probabilities_at(read, places)[np.arange(len(places)), codes[places]].mean() / math.log(2)


def test_model_and_tables_fill_in_the_same_bases_from_the_same_input(
    report: BasesReport, model: SequenceModel, genome: Genome
) -> None:
    codes = base_codes(genome.fetch_array(Interval("x", 0, 6000)))
    scored = hidden_places(JUDGED, FRACTION, SEED) & (codes[4000:] < UNKNOWN)
    assert report.scored_bases == scored.sum() == report.block_counts.sum()
    values = hidden_log_probabilities(model, genome, JUDGED, fraction=FRACTION, seed=SEED, context=64)
    assert report.methods[0].bits == pytest.approx(-values[scored].mean() / math.log(2), abs=1e-9)
    counts = count_both_strands([codes[:3000]], 2)
    hidden = [hidden_places(Interval("x", 3000, 4000), FRACTION, SEED)]
    bits = {method.name: method.bits for method in report.methods}
    for masked, name in ((hidden, "two-sided order 2"), (None, "two-sided order 2 (flanks unmasked)")):
        table = tune_two_sided(counts, [codes[3000:4000]], [2], masked=masked)[2]
        expected = expected_bits(table, codes, masked=masked is not None)
        assert bits[name] == pytest.approx(expected, abs=1e-9), name


def test_names_units_and_details_say_what_was_measured(report: BasesReport) -> None:
    unmasked = " (flanks unmasked)"
    tables = ("two-sided order 0", "two-sided order 2")
    # Order 0 looks at no flank, masked or not.
    assert [method.name for method in report.methods] == ["model", *tables, tables[1] + unmasked]
    content = report.as_dict()
    assert (content["objective"], content["mask_fraction"]) == ("masked", FRACTION)
    assert [method.get("flanks") for method in content["methods"]] == [None, "masked", "masked", "unmasked"]
    assert "masked bits per base" in report.sentence()
    lines = report.table().splitlines()
    assert len({line.index(".") for line in lines[1:]}) == 1


def test_a_table_that_sees_whole_flanks_is_shown_and_is_no_rival(report: BasesReport) -> None:
    bits = {method.name: method.bits for method in report.methods}
    assert bits["two-sided order 2 (flanks unmasked)"] < bits["two-sided order 2"]
    assert report.best_markov is not None
    assert report.best_markov.name == "two-sided order 2"
    assert report.verdict == "does not beat"


def test_masks_follow_the_seed_and_default_to_fifteen_percent(
    model: SequenceModel, genome: Genome, splits: Splits
) -> None:
    reports = [
        evaluate_bases(model, genome, splits, orders=[0], context=64, replicates=50, seed=seed) for seed in (0, 0, 1)
    ]
    assert [r.methods[0].bits for r in reports[:2]] == [reports[0].methods[0].bits] * 2
    assert reports[2].methods[0].bits != reports[0].methods[0].bits
    assert {report.mask_fraction for report in reports} == {0.15}
    codes = base_codes(genome.fetch_array(JUDGED))
    assert reports[0].scored_bases == (hidden_places(JUDGED, 0.15, 0) & (codes < UNKNOWN)).sum()


def test_without_tables_there_is_no_comparison(model: SequenceModel, genome: Genome, splits: Splits) -> None:
    report = evaluate_bases(model, genome, splits, orders=[], context=None, replicates=50)
    assert report.verdict == "not compared"
    assert report.sentence().endswith("masked bits per base; no Markov model was asked for.")


def test_what_cannot_be_asked_is_refused(genome: Genome, folder: Path, model: SequenceModel, splits: Splits) -> None:
    causal = genossm.load(str(folder / "causal"))
    with pytest.raises(ConfigError, match="but the model is causal"):
        evaluate_bases(causal, genome, splits, orders=[0], context=64, mask_fraction=0.15)
    for fraction in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="share of hidden bases"):
            evaluate_bases(model, genome, splits, orders=[0], context=64, mask_fraction=fraction)
    with pytest.raises(ConfigError, match=r"within 0\.\.12, got 13"):
        evaluate_bases(model, genome, splits, orders=[13], context=64)


def test_orders_follow_the_objective(
    folder: Path, genome: Genome, model: SequenceModel, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []

    def note(*_: object, orders: tuple[int, ...], **__: object) -> None:
        asked.append(orders)
        raise ConfigError("enough")

    for name in ("causal_methods", "masked_methods"):
        monkeypatch.setattr("genossm.evaluation.bases." + name, note)
    for judged in (model, genossm.load(str(folder / "causal"))):
        with pytest.raises(ConfigError, match="enough"):
            evaluate_bases(judged, genome, splits, context=64)
    assert asked == [(0, 4, 8, 12), (0, 3, 8, 11)]


def test_command_and_page(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(folder)
    arguments = ["evaluate", "bases", "-m", "model", "-g", "toy.fa", *REGIONS, "--markov", "0,2", "--context", "64"]
    with pytest.raises(SystemExit) as ended:
        run([*arguments, "--mask-fraction", "0.3", "-o", "bases.json"])
    assert ended.value.code == 0
    content = json.loads((folder / "bases.json").read_text())
    assert content["mask_fraction"] == 0.3
    assert capsys.readouterr().out.splitlines()[-1] == content["sentence"]
    with pytest.raises(SystemExit):
        run(["report", "--bases", "bases.json", "-o", "page.html", "--force"])
    page = (folder / "page.html").read_text()
    assert "Masked bits per base" in page
    assert "30 % of the bases were hidden" in page
    assert content["sentence"] in page
    assert "that were neither trained on" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "causal", "--mask-fraction", "0.15"], "but the model is causal"),
        (["-m", "model", "--mask-fraction", "2"], "share of hidden bases is 2.0"),
        (["-m", "model", "--context", "66"], "cannot be quartered"),
        (["-m", "model", "--markov", "13"], "within 0..12"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        run(["evaluate", "bases", "-g", "toy.fa", *REGIONS, *arguments, "-o", "new.json"])
    assert ended.value.code == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("genossm: error: ")
    assert message in err
    assert not (folder / "new.json").exists()

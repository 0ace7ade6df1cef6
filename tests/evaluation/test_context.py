"""Bits by context: the same bases at every context, sums that add up, differences that are paired."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import genossm.genome
from genossm.cli.main import main
from genossm.core.errors import ConfigError, InputFileError, UsageError
from genossm.core.provenance import Provenance
from genossm.data.regions import Splits
from genossm.evaluation.bases_methods import Hiding
from genossm.evaluation.context import measure_context, model_method
from genossm.evaluation.context_baselines import baseline_method
from genossm.evaluation.context_file import ContextBits, read_context, write_context
from genossm.evaluation.context_report import draw, markdown
from genossm.evaluation.context_table import ALL, Reading, compare
from genossm.evaluation.likelihood import base_log_probabilities
from genossm.evaluation.markov_fit import TUNING_PLACES, thinned, thinning
from genossm.evaluation.masked_likelihood import hidden_log_probabilities
from genossm.evaluation.places import classify_places
from genossm.genome import Genome
from genossm.models import SequenceModel, StackConfig
from genossm.plotting import to_png
from genossm.sequence.interval import Interval
from genossm.testing.models import enliven
from genossm.testing.toy import random_sequence, repetitive_sequence, write_fasta

REGIONS = (Interval("x", 1000, 1330), Interval("x", 1600, 1900))
SPLITS = Splits((Interval("y", 0, 2000),), (Interval("x", 0, 600),), REGIONS)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = repetitive_sequence(1200, seed=1) + b"NN" + random_sequence(798, seed=2)
    contigs = {"x": x, "y": repetitive_sequence(2000, seed=1)}
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


@pytest.fixture(scope="module")
def genome(fasta: Path) -> Genome:
    return genossm.genome.open(fasta)


def causal(seed: int = 0) -> SequenceModel:
    torch.manual_seed(seed)
    return enliven(SequenceModel(StackConfig(d_model=8, n_layer=2, d_state=4)), seed).eval()


def masked() -> SequenceModel:
    torch.manual_seed(0)
    return enliven(
        SequenceModel(StackConfig(d_model=8, n_layer=1, direction="bidirectional", objective="masked"))
    ).eval()


def test_sums_are_those_of_single_bases_and_classes_add_up(genome: Genome) -> None:
    model = causal()
    places = classify_places(genome, [Interval("y", 0, 2000)], REGIONS)
    found = measure_context(
        model_method(model, genome, "m"), genome, REGIONS, [8, 64], places=places, keep=[64], block=100
    )
    assert found.places == tuple(("x", s) for s in (1000, 1100, 1200, 1300, 1600, 1700, 1800))
    assert found.counts.sum() == 330 + 300 - 2
    for row, context in enumerate((8, 64)):
        values = [base_log_probabilities(model, genome, region, context=context)[0] for region in REGIONS]
        assert found.nats[row].sum() == pytest.approx(-sum(v.sum() for v in values))
        assert found.nats[row, 2].sum() == pytest.approx(-values[0][200:300].sum())
        assert found.bits()[row] == pytest.approx(found.nats[row].sum() / 628 / math.log(2))
    classes = [places.of(genome, region) for region in REGIONS]
    for kind in range(len(places.names)):
        chosen = sum(-v[c == kind].sum() for v, c in zip(values, classes))
        assert found.nats[1, :, kind].sum() == pytest.approx(chosen)
    np.testing.assert_allclose(found.kept[64][0], -values[0], rtol=1e-3)


def test_masked_models_are_asked_for_hidden_bases_alone(genome: Genome) -> None:
    model, hiding = masked(), Hiding(0.3, 5)
    found = measure_context(model_method(model, genome, "m", hiding=hiding), genome, REGIONS, [16, 64])
    values = [hidden_log_probabilities(model, genome, r, fraction=0.3, seed=5, context=64) for r in REGIONS]
    assert found.objective == "masked"
    assert found.nats[1].sum() == pytest.approx(-sum(v.sum() for v in values))
    assert found.counts.sum() == sum((v != 0).sum() for v in values)


def test_a_markov_model_sees_no_more_than_its_window(genome: Genome) -> None:
    method = baseline_method("markov-3", genome, SPLITS, [2, 64], hiding=Hiding())
    region = Interval("x", 1000, 1040)
    whole, _ = method.score(region, 64)
    short, _ = method.score(region, 2)
    unigram = baseline_method("markov-1", genome, SPLITS, [2], hiding=Hiding())
    assert not np.allclose(short, whole)
    # In windows of two bases every base is judged from one before it: order 1, with strengths tuned for order 3.
    codes = genome.fetch(region)
    pairs = {(a, b): value for a, b, value in zip(codes, codes[1:], short[1:])}
    for a, b, value in zip(codes, codes[1:], short[1:]):
        assert value == pytest.approx(pairs[a, b])
    assert abs(short.mean() - unigram.score(region, 2)[0].mean()) < 0.05


@pytest.mark.parametrize(("name", "error"), [("markov", UsageError), ("gzip", UsageError), ("markov-13", ConfigError)])
def test_baselines_that_are_not_are_refused(genome: Genome, name: str, error: type) -> None:
    with pytest.raises(error):
        baseline_method(name, genome, SPLITS, [64], hiding=Hiding())


def test_a_two_sided_table_refuses_windows_that_it_would_look_beyond(genome: Genome) -> None:
    method = baseline_method("two-sided-4", genome, SPLITS, [16], hiding=Hiding())
    values, scored = method.score(REGIONS[0], 16)
    assert (values[scored] < 0).all()
    assert (values[~scored] == 0).all()
    with pytest.raises(ConfigError, match="looks beyond windows of 8 bases"):
        method.score(REGIONS[0], 8)


def bits_file(name: str, nats: np.ndarray, **choices: object) -> ContextBits:
    counts = np.array([[10, 0], [10, 5], [0, 5]])
    places = (("x", 0), ("x", 10), ("x", 20))
    details = {"kind": "model"}
    contexts = tuple(4 ** (i + 1) for i in range(len(nats)))
    file = ContextBits(
        name, "causal", details, (Interval("x", 0, 30),), contexts, 10, places, ("a; c", "b; c"), nats, counts
    )
    return dataclasses.replace(file, **choices)  # type: ignore[arg-type]


def test_few_blocks_give_no_interval() -> None:
    nats = np.array([[[9.0, 0.0], [20.0, 3.0], [0.0, 11.0]]])
    (comparison,) = compare([bits_file("one", nats), bits_file("other", nats + 1.0)])
    text = json.dumps(comparison.as_dict(), allow_nan=False)
    assert '"interval": null' in text
    assert "(no interval)" in markdown([comparison])
    assert to_png(draw(comparison))


def test_differences_are_paired_over_blocks() -> None:
    """Two methods that scatter between blocks, always 0.1 bit a base apart: the difference does not scatter."""
    counts = np.array([[10, 0], [10, 5], [0, 5]] * 3)
    nats = np.array([[[9.0, 0.0], [20.0, 3.0], [0.0, 11.0]] * 3, [[8.0, 0.0], [19.0, 3.0], [0.0, 10.0]] * 3])
    judged = {"counts": counts, "places": tuple(("x", start) for start in range(0, 90, 10))}
    better = bits_file("better", nats - 0.1 * math.log(2) * counts, **judged)
    (comparison,) = compare([bits_file("worse", nats, **judged), better])
    assert set(comparison.subsets) == {ALL, "a", "b", "c"}
    difference = comparison.difference(Reading("better", 4), Reading("worse", 4))
    for subset, bases in ((ALL, 90), ("a", 60), ("b", 30), ("c", 90)):
        figure = difference.figures[subset]
        assert figure.bits == pytest.approx(-0.1)
        assert figure.interval == pytest.approx((-0.1, -0.1))
        assert figure.bases == bases
    wide = comparison.figure(Reading("worse", 4))
    assert wide is not None
    assert wide.bits == pytest.approx(43 / 30 / math.log(2))
    assert wide.interval[1] - wide.interval[0] > 0.3
    assert comparison.difference(Reading("worse", 16), Reading("worse", 4)).figures["b"].bits == pytest.approx(
        -1 / 10 / math.log(2)
    )


def test_methods_of_other_bases_are_not_compared() -> None:
    nats = np.ones((1, 3, 2))
    for choices, message in (
        ({"block": 5}, "block"),
        ({"counts": np.ones((3, 2), int)}, "scored bases"),
        ({"regions": (Interval("x", 0, 29),)}, "regions"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare([bits_file("one", nats), bits_file("other", nats, **choices)])
    with pytest.raises(ConfigError, match="share a name"):
        compare([bits_file("one", nats), bits_file("one", nats)])


def test_a_file_reads_back(tmp_path: Path) -> None:
    kept = {4: (np.array([0.5, 0.25], np.float16),)}
    file = bits_file("one", np.arange(6.0).reshape(1, 3, 2), kept=kept)
    write_context(file, tmp_path / "one.npz", provenance=Provenance())
    found = read_context(tmp_path / "one.npz")
    for field in dataclasses.fields(ContextBits):
        if field.name not in ("nats", "counts", "kept"):
            assert getattr(found, field.name) == getattr(file, field.name)
    np.testing.assert_array_equal(found.nats, file.nats)
    np.testing.assert_array_equal(found.kept[4][0], kept[4][0])
    np.savez(tmp_path / "other.npz", description=np.array("{}"))
    with pytest.raises(InputFileError, match="Cannot read"):
        read_context(tmp_path / "other.npz")


def test_many_places_are_thinned_for_tuning() -> None:
    scored = np.ones(TUNING_PLACES * 3 + 7, bool)
    kept = thinned(scored, thinning(len(scored)))
    assert TUNING_PLACES <= kept.sum() <= TUNING_PLACES + 3
    assert thinned(scored[:100], thinning(100)).all()


def test_the_commands_from_models_and_baselines_to_a_page(fasta: Path, tmp_path: Path) -> None:
    causal().save_pretrained(tmp_path / "long")
    masked().save_pretrained(tmp_path / "both")

    def call(*arguments: str | Path) -> str:
        done = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    judged = ["-f", fasta, "--region", "x:1,001-1,330"]
    counted = ["--train", "y", "--validation", "x:1-600"]
    call("evaluate", "places", *judged, "--train", "y", "-o", tmp_path / "p.npz")
    judged = ["evaluate", "context", *judged, "--places", tmp_path / "p.npz"]
    printed = call(*judged, "-m", tmp_path / "long", "--context", "8-32,64", "-o", tmp_path / "a.npz")
    assert [line.split("\t")[0] for line in printed.splitlines()] == ["8", "16", "32", "64"]
    call(*judged, *counted, "--baseline", "markov-2", "--context", "8,64", "-o", tmp_path / "b.npz")
    call(*judged, "-m", tmp_path / "both", "--context", "16", "-o", tmp_path / "d.npz")
    files = [tmp_path / f"{name}.npz" for name in "abd"]
    page = call("evaluate", "context-table", *files, "-o", tmp_path / "table")
    assert (tmp_path / "table.md").read_text() == page
    assert "### Masked bits per base, outside repeats" in page
    bits = read_context(files[0]).bits()[-1]
    row = next(line for line in page.splitlines() if line.startswith("| 32 to 63 |"))
    assert f"| {bits:.4f} |" in row
    content = json.loads((tmp_path / "table.json").read_text())
    assert [c["objective"] for c in content["comparisons"]] == ["causal", "masked"]
    (entry,) = [m for m in content["comparisons"][0]["methods"] if m["name"] == "long"]
    assert entry["subsets"]["all"][-1]["bits_per_base"] == pytest.approx(bits)
    assert (tmp_path / "table-causal.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "table-masked.png").read_bytes()) > 5000

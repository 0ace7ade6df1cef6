"""What the tour shows, checked against other ways to the same numbers, and what its prose says, against the numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import genossm.genome
from genossm.genome import Genome
from genossm.models import SequenceModel, load
from genossm.sequence import Interval, Variant
from genossm.testing import write_fasta
from genossm.variants import score
from genossm.variants.definition import causal_llr

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROBE = """
import socket

try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except RuntimeError as error:
    probe["network"] = str(error)
model.save_pretrained(kept / "causal")
masked.save_pretrained(kept / "masked")
probe["bits"] = [trained.validation_bits, trained_masked.validation_bits]
probe["variant"] = [str(variant), scored.llr]
probe["letters"], probe["pos1"] = found.letters, found.pos1.tolist()
probe["strand_scores"], probe["importance"] = found.strand_scores.tolist(), found.importance().tolist()
probe["expected"] = expected.tolist()
probe["strands"] = strands[["plus", "minus", "mean"]].to_numpy().tolist()
probe["other"] = [other.letters, other.strand_scores[1].tolist()]
probe["masked"] = masked_map.scores.tolist()
probe["mirror"] = mirror.to_numpy().tolist()
probe["inside"] = [str(variant) for variant in inside]
"""


@pytest.fixture(scope="module")
def tour(execute: Callable[..., Any]) -> Any:
    return execute("01_tour.ipynb", probe=PROBE, before="tidy")


@pytest.fixture(scope="module")
def probe(tour: Any) -> dict[str, Any]:
    return {key: np.array(value) if key in ARRAYS else value for key, value in tour.probe.items()}


ARRAYS = ("strand_scores", "importance", "expected", "strands", "masked", "mirror", "pos1")


@pytest.fixture(scope="module")
def causal(tour: Any) -> SequenceModel:
    return load(tour.folder / "causal")


@pytest.fixture(scope="module")
def genome(human_fasta: Path) -> Genome:
    return genossm.genome.open(human_fasta)


def test_every_picture_is_drawn(tour: Any) -> None:
    pictures = tour.pictures()
    assert set(pictures) == {"map", "importance", "prediction", "agreement", "minus-map", "masked-map"}
    for name, picture in pictures.items():
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"))
        assert min(pixels.shape[:2]) > 150, name
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, name


def test_training_is_silent_and_the_network_is_out_of_reach(tour: Any) -> None:
    assert not tour.cells["train"]["outputs"]
    assert not tour.cells["train-masked"]["outputs"]
    assert "192.0.2.1" in tour.probe["network"]


def test_nothing_is_left_behind(tour: Any) -> None:
    assert tour.cells["tidy"]["execution_count"]
    assert not tour.left


def test_models_have_learnt_something(probe: dict[str, Any]) -> None:
    assert all(1.6 < bits < 1.93 for bits in probe["bits"])


def test_the_variant_against_the_definition(
    tour: Any, probe: dict[str, Any], causal: SequenceModel, genome: Genome
) -> None:
    text, llr = probe["variant"]
    expected = causal_llr(causal, genome, Variant.parse(text), context=8192, horizon=512, strand="+")
    assert llr == pytest.approx(expected, abs=1e-3)
    assert f"{llr:+.2f} nats" in tour.text("variant")


def test_the_map_holds_the_variant(probe: dict[str, Any]) -> None:
    text, llr = probe["variant"]
    variant = Variant.parse(text)
    row = probe["pos1"].tolist().index(variant.pos1)
    assert probe["letters"][row] == variant.ref
    assert probe["strand_scores"][0, row, "ACGT".index(variant.alt)] == pytest.approx(llr, abs=1e-3)
    # "rs6139128 puts the G back": both strands find it likelier, and the letter hangs down in the logo.
    assert (probe["strand_scores"][:, row, "ACGT".index(variant.alt)] > 0).all()
    assert probe["importance"][row, "ACGT".index(variant.ref)] < 0


def test_the_minus_map_is_the_plus_map_turned(probe: dict[str, Any]) -> None:
    letters, scores = probe["other"]
    assert letters.endswith("AAAAAAAAAA")
    np.testing.assert_allclose(np.array(scores), probe["strand_scores"][1, ::-1, ::-1], atol=1e-3)


def test_what_is_said_of_the_repeat(probe: dict[str, Any]) -> None:
    """In the stretch that all copies share, almost every change is a loss."""
    start = probe["letters"].index("CCCAGGCTGGAGTGCA")
    for scores in (*probe["strand_scores"], probe["strand_scores"].mean(axis=0)):
        rows = scores[start : start + 16]
        assert (rows < 0).sum() >= 0.9 * 48
    assert probe["importance"][start : start + 16].sum() > 16 * 0.8


def test_what_is_said_of_cpg(probe: dict[str, Any]) -> None:
    letters = probe["letters"]
    sites = [place for place in range(len(letters) - 1) if letters[place : place + 2] == "CG"]
    assert len(sites) >= 4
    scores = probe["strand_scores"].mean(axis=0)
    gains = [value for place in sites for value in (scores[place, 3], scores[place + 1, 0])]
    assert np.mean(np.array(gains) > 0) >= 0.75
    assert np.mean(gains) > np.mean(scores) + 0.5


def test_predictions_against_a_run_of_their_own(probe: dict[str, Any], causal: SequenceModel, genome: Genome) -> None:
    """The base's distribution is what the model says when the sequence ends in front of it."""
    first = int(probe["pos1"][0]) - 1
    for place in (0, 17, 79):
        before = genome.fetch(Interval("20", first - 1000, first + place))
        with torch.inference_mode():
            logits = causal(causal.encode(before)).logits[0, -1, list(causal.tokenizer.base_ids)]
        np.testing.assert_allclose(probe["expected"][place], torch.softmax(logits.double(), -1).numpy(), atol=1e-4)


def test_strands_agree_in_tendency_and_not_in_detail(tour: Any, probe: dict[str, Any]) -> None:
    plus, minus, mean = probe["strands"].T
    assert len(plus) > 100
    np.testing.assert_allclose(mean, (plus + minus) / 2)
    correlation = np.corrcoef(plus, minus)[0, 1]
    assert 0.5 < correlation < 0.98
    assert np.abs(plus - minus).mean() > 0.2
    assert f"correlation of the strands {correlation:.2f}" in tour.text("agreement")


def test_a_sequence_turned_round(tour: Any, probe: dict[str, Any], causal: SequenceModel, genome: Genome) -> None:
    """The causal model reads another text, that of the minus strand; the equivariant one the same."""
    here, there, masked_here, masked_there = probe["mirror"].T
    assert len(here) > 20
    np.testing.assert_allclose(masked_here, masked_there, atol=1e-4)
    assert np.abs(masked_here).mean() > 0.3
    assert np.abs(here - there).max() > 1
    path = write_fasta(tour.folder / "piece.fa", {"piece": genome.fetch(Interval.parse("20:3,418,001-3,418,768"))})
    with genossm.genome.open(path) as piece:
        variants = [Variant.parse(text) for text in probe["inside"]]
        found = [one.strand_scores for one in score(causal, piece, variants, context=1024, both_strands=True)]
    np.testing.assert_allclose(np.array(found), np.stack([here, there], axis=1), atol=1e-3)


def test_the_masked_map_against_single_scores(tour: Any, probe: dict[str, Any], genome: Genome) -> None:
    assert np.abs(probe["masked"]).mean() < np.abs(probe["strand_scores"][0]).mean()
    masked = load(tour.folder / "masked")
    for row, column in ((20, 0), (52, 2), (79, 1)):
        ref, alt = probe["letters"][row], "ACGT"[column]
        if ref != alt:
            variant = Variant("20", int(probe["pos1"][row]), ref, alt)
            [alone] = score(masked, genome, [variant], context=1024)
            assert probe["masked"][row, column] == pytest.approx(alone.llr, abs=1e-4)

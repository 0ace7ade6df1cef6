"""Windows that are whole contigs: the scores of a context that holds the contig, in pieces of bounded size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genossm.inference import masked, streaming
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.testing import random_sequence
from genossm.variants import passes, score
from genossm.variants.options import ScoringOptions
from genossm.variants.scorer import Scorer

LENGTH = 700
LETTERS = random_sequence(LENGTH, seed=8).decode()
TOLERANCE = 1e-4


def variants() -> list[Variant]:
    """All over the contig, its ends included."""
    places = (0, 1, 90, 350, 640, 698, 699)
    found = [Variant("1", start0 + 1, LETTERS[start0], other(LETTERS[start0])) for start0 in places]
    deletion = Variant("1", 501, LETTERS[500:504], LETTERS[500])
    return [*found, deletion, Variant("1", 601, LETTERS[600], LETTERS[600] + "ACG")]


def other(base: str) -> str:
    return "A" if base != "A" else "C"


def ratios(model: SequenceModel, genome, context: int | None, **options: object) -> np.ndarray:  # type: ignore[no-untyped-def]
    scored = score(model, genome, variants(), context=context, both_strands=True, **options)  # type: ignore[call-overload]
    return np.array([one.strand_scores for one in scored])


@pytest.mark.parametrize("kind", ["model", "masked_model"])
@pytest.mark.parametrize("circular", [False, True])
def test_the_window_is_the_contig(
    kind: str, circular: bool, make_genome, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, genome = request.getfixturevalue(kind), make_genome({"1": LETTERS}, circular=["1"] if circular else [])
    # A context of 4/3 of the contig holds it in its first window.
    held = ratios(model, genome, 4 * LENGTH, horizon=40)
    np.testing.assert_allclose(ratios(model, genome, None, horizon=40), held, atol=TOLERANCE)
    lengths: list[int] = []
    run = streaming._run
    monkeypatch.setattr(streaming, "_run", lambda m, ids, *rest: lengths.append(ids.shape[1]) or run(m, ids, *rest))
    monkeypatch.setattr(passes, "_PASS_TOKENS", {"cpu": 64})
    monkeypatch.setattr(passes, "_STATE_BYTES", {"cpu": 1})
    monkeypatch.setattr(masked, "_LONG", 100)
    np.testing.assert_allclose(ratios(model, genome, None, horizon=40), held, atol=TOLERANCE)
    assert max(lengths, default=0) <= 64
    assert bool(lengths) == (kind == "model")


def test_a_shorter_context_is_another_question(model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": LETTERS})
    assert np.abs(ratios(model, genome, None) - ratios(model, genome, 64)).max() > 100 * TOLERANCE


def test_the_full_horizon_is_a_quarter_of_the_contig(model: SequenceModel, make_genome) -> None:
    genome = make_genome({"1": LETTERS})
    full = ratios(model, genome, None, horizon=None)
    np.testing.assert_allclose(full, ratios(model, genome, None, horizon=LENGTH // 4), atol=TOLERANCE)
    assert np.abs(full - ratios(model, genome, None, horizon=LENGTH // 8)).max() > 10 * TOLERANCE


def test_the_horizons_error_is_measured_on_alleles_of_the_run(model: SequenceModel, make_genome) -> None:
    genome, [one] = make_genome({"1": LETTERS}), variants()[2:3]
    short, full = (Scorer(model, genome, ScoringOptions(400, horizon)) for horizon in (3, None))
    [found], [wanted] = (scorer.score([scorer.locate(one)]) for scorer in (short, full))
    assert found.llr is not None
    assert wanted.llr is not None
    measured = short.measured["llr"]
    assert (measured["horizon"], measured["against"], measured["alleles"]) == (3, "100 letters", 1)
    assert measured["max_abs"] == measured["mean_abs"] == pytest.approx(abs(found.llr - wanted.llr), abs=TOLERANCE)
    assert float(measured["max_abs"]) > 10 * TOLERANCE
    assert full.measured == {}


def test_what_is_measured_leaves_the_scores_alone(model: SequenceModel, human_genome, human_variants) -> None:
    """And is an eighth of what they cost: of 3,000 letters more than one full horizon of 512."""
    chosen = human_variants[0][100:140]
    scorer = Scorer(model, human_genome, ScoringOptions(2048, 16))
    values = [one.llr for one in scorer.score([scorer.locate(one) for one in chosen])]
    alone = [one.llr for one in score(model, human_genome, chosen[:3], context=2048, horizon=16)]
    assert values[:3] == pytest.approx(alone, abs=TOLERANCE)
    again = Scorer(model, human_genome, ScoringOptions(2048, 16))
    again.score([again.locate(one) for one in chosen[::-1]])
    first, second = (one.measured["llr"] for one in (scorer, again))
    assert 1 <= int(first["alleles"]) <= 4
    assert first["alleles"] == second["alleles"]
    assert first["max_abs"] == pytest.approx(second["max_abs"], abs=TOLERANCE)


def test_the_command(model_dir: Path, tmp_path: Path, run_in_process) -> None:
    (tmp_path / "x.fa").write_text(f">1\n{LETTERS}\n")
    rows = "".join(f"1\t{one.pos1}\t.\t{one.ref}\t{one.alt}\t.\t.\t.\n" for one in variants()[2:5])
    head = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (tmp_path / "x.vcf").write_text(head + rows)
    options = ("--context", "whole", "--horizon", "20", "--summary", "s.json", "-o", "out.vcf")
    code, _ = run_in_process("-f", "x.fa", "-m", model_dir, "x.vcf", *options)
    assert code == 0
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["options"]["context"] == "whole"
    assert summary["measured"]["llr"]["horizon"] == 20
    header = (tmp_path / "out.vcf").read_text()
    assert "##genossm_context=whole\n" in header
    assert "--context whole --horizon 20" in header
    assert run_in_process("-f", "x.fa", "-m", model_dir, "x.vcf", "--context", "all", "-o", "y.vcf")[0] == 2

"""Models, count tables and heads on the same sets, side by side: who scores what, once, and which way round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import genossm.genome
from genossm.core.errors import ConfigError, InputFileError, MethodError, UsageError
from genossm.core.provenance import Provenance
from genossm.evaluation.labelled_page import write_labelled_table
from genossm.evaluation.labelled_report import CountedOn, run_evaluate_labelled
from genossm.evaluation.labelled_scores import ModelScores, TableScores, count_tables
from genossm.evaluation.labelled_table import labelled_table
from genossm.evaluation.markov import base_codes
from genossm.models import SequenceModel, StackConfig
from genossm.sequence import Interval
from genossm.testing import random_sequence, write_fasta
from genossm.testing.models import enliven
from genossm.variants import ScoringOptions, score
from genossm.variants.heads.estimators import fit_linear
from genossm.variants.heads.features import FeatureSpec
from genossm.variants.heads.head import VariantHead
from genossm.variants.locate import Allele

OPTIONS = ScoringOptions(64, 8, methods=("llr", "mlm", "embedding"))
DIGEST = "d" * 64


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    path = tmp_path / "r.fa"
    write_fasta(path, {"1": random_sequence(3000, seed=3)})
    return path


def alleles(reference: Path, count: int = 6) -> list[Allele]:
    found = []
    with genossm.genome.open(reference) as genome:
        for pos1 in range(1500, 1500 + count):
            ref = genome.fetch(Interval("1", pos1 - 1, pos1)).decode()
            found.append(Allele("1", pos1, ref, "CATG"["ACGT".index(ref)]))
    return found


def test_a_model_gives_those_of_the_named_methods_that_it_has_and_each_allele_once(
    reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = enliven(SequenceModel(StackConfig(d_model=8, n_layer=1)), 1)
    scores = ModelScores("m", model, OPTIONS)
    assert scores.columns[0] == "GENOSSM_LLR"
    assert len(scores.columns) == 5
    asked = alleles(reference)
    lost = Allele("1", 1500, "ACGT"[(1 + "ACGT".index(asked[0].ref)) % 4], "N")
    seen: list[int] = []
    inner = scores._score
    monkeypatch.setattr(scores, "_score", lambda genome, rows: inner(genome, _counted(rows, seen)))
    first = scores.of(str(reference), [*asked[:4], lost])
    second = scores.of(str(reference), asked)
    assert seen == [5, 2]
    assert first[4].numbers is None
    assert first[4].status == "NON_ACGT"
    with genossm.genome.open(reference) as genome:
        plain = [one.numbers for one in score(model, genome, asked, methods="llr,embedding", context=64, horizon=8)]
    found = np.array([one.numbers for one in second], dtype=float)
    np.testing.assert_allclose(found, np.array(plain, dtype=float), atol=1e-5)
    assert [one.numbers for one in first[:4]] == [one.numbers for one in second[:4]]
    with pytest.raises(MethodError, match="needs a masked model"):
        ModelScores("m", model, ScoringOptions(64, 8, methods=("mlm",)))


def _counted(rows: Any, seen: list[int]) -> list[Allele]:
    found = list(rows)
    seen.append(len(found))
    return found


def test_count_tables_stand_on_the_regions_that_they_were_given(reference: Path) -> None:
    tables = count_tables(str(reference), ("1:1-1,000",), ("1:1,001-1,200",), OPTIONS)
    assert [(one.name, one.columns) for one in tables] == [
        ("Markov order 12", ("GENOSSM_LLR",)),
        ("two-sided order 12", ("GENOSSM_LLR",)),
    ]
    markov = tables[0]
    assert isinstance(markov, TableScores)
    [asked] = alleles(reference, 1)
    [found] = markov.of(str(reference), [asked])
    with genossm.genome.open(reference) as genome:
        before = genome.fetch(Interval("1", 1400, 1520))
    changed = before[:99] + str(asked.alt).encode() + before[100:]
    table: Any = markov._table
    # The horizon is 8 letters.
    by_hand = sum(
        sign * table.log_probabilities(base_codes(letters))[99:107].sum()
        for sign, letters in ((1, changed), (-1, before))
    )
    assert by_hand != 0
    assert found.numbers == pytest.approx((by_hand,), abs=1e-9)
    with pytest.raises(UsageError, match="--train"):
        count_tables(str(reference), (), (), OPTIONS)


def report(path: Path, figures: list[dict[str, Any]], **changes: Any) -> Path:
    shared = {"table": "t.tsv", "negative": [], "at_least": None}
    sets = [
        {"name": "classes", "label": "class", "positive": ["yes"], "effect_is": "", **shared},
        {"name": "fitness", "label": "fitness", "positive": [], "effect_is": "low", **shared},
        {"name": "size", "label": "size", "positive": [], "effect_is": "high", **shared},
        {"name": "change", "label": "change", "positive": [], "effect_is": "", **shared},
    ]
    content = {
        "format": "genossm-labelled",
        "format_version": 2,
        "models": {"m": DIGEST},
        "options": {"context": 64},
        "bootstrap": {"replicates": 10},
        "sets": sets,
        "figures": figures,
        **changes,
    }
    path.write_text(json.dumps(content))
    return path


def figure(set_name: str, number: str, value: float, model: str = "m") -> dict[str, Any]:
    positives = 4 if set_name == "classes" else None
    ends = [round(value - 0.1, 3), round(value + 0.2, 3)]
    return {"set_name": set_name, "model": model, "number": number, "metric": "", "value": value, "interval": ends,
            "alleles": 9, "positives": positives}  # fmt: skip


def head(folder: Path, label: str, model: str = DIGEST) -> Path:
    rng = np.random.default_rng(0)
    linear = fit_linear("logistic", rng.normal(size=(8, 2)), np.array([0.0, 1.0] * 4), 1.0)
    figures = {"metric": "AUROC", "value": 0.7, "interval": [0.6, 0.8], "alleles": 9, "source": "t.tsv"}
    made = VariantHead("h", linear, FeatureSpec(("llr",)), (), {"model": model, "context": 64}, label, figures)
    return made.save(folder, provenance=Provenance())


def test_above_chance_is_always_the_expected_way_round(tmp_path: Path) -> None:
    names = ("-GENOSSM_LLR", "GENOSSM_EMB_L2", "cadd")
    figures = [figure("classes", name, 0.6, "-" if name == "cadd" else "m") for name in names]
    for each in ("fitness", "size", "change"):
        figures += [figure(each, "GENOSSM_LLR", -0.3), figure(each, "GENOSSM_EMB_L2", 0.2)]
    first = report(tmp_path / "a.json", figures)
    other = report(tmp_path / "b.json", [figure("classes", "cadd", 0.6, "-")], models={})
    table = write_labelled_table(
        [first, other], tmp_path / "out", heads=[head(tmp_path / "h", "class being yes of t.tsv")]
    )
    found = {
        (each.name, one.owner, one.number): (one.value, *one.interval) for each in table.sets for one in each.entries
    }
    assert found == {
        ("classes", "m", "ratio"): (0.6, 0.5, 0.8),
        ("classes", "m", "L2"): (0.6, 0.5, 0.8),
        ("classes", "-", "cadd"): (0.6, 0.5, 0.8),
        ("classes", "m", "head"): (0.7, 0.6, 0.8),
        # Low fitness is an effect: a low ratio goes with it, so a correlation below 0 is the wrong way round.
        ("fitness", "m", "ratio"): (-0.3, -0.4, -0.1),
        ("fitness", "m", "L2"): (-0.2, -0.4, -0.1),
        ("size", "m", "ratio"): (0.3, 0.1, 0.4),
        ("size", "m", "L2"): (0.2, 0.1, 0.4),
        ("change", "m", "ratio"): (-0.3, -0.4, -0.1),
        ("change", "m", "L2"): (0.2, 0.1, 0.4),
    }
    page = (tmp_path / "out.md").read_text()
    assert "| classes | AUROC | 9 | **0.700 (0.600 to 0.800)** |" in page
    assert "| classes | AUROC | 4 of 9 | 0.600 (0.500 to 0.800) |" in page
    assert "| change | Spearman ± | 9 | **-0.300 (-0.400 to -0.100)** |" in page
    assert json.loads((tmp_path / "out.json").read_text())["models"] == {"m": DIGEST}
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_no_interval_is_not_shown_as_one(tmp_path: Path) -> None:
    figures = [
        {**figure(each, "GENOSSM_LLR", -0.3), "interval": [None, None]}
        for each in ("classes", "fitness", "size", "change")
    ]
    write_labelled_table([report(tmp_path / "a.json", figures)], tmp_path / "out")
    page = (tmp_path / "out.md").read_text()
    assert "| fitness | Spearman | 9 | -0.300 (no interval) |" in page
    assert "**" not in page
    assert "NaN" not in (tmp_path / "out.json").read_text()


def test_what_cannot_stand_side_by_side(tmp_path: Path) -> None:
    one = report(tmp_path / "a.json", [figure("classes", "-GENOSSM_LLR", 0.6)])
    with pytest.raises(ConfigError, match="judged on 'classes' in two reports"):
        labelled_table([one, one])
    with pytest.raises(ConfigError, match="Judge both under equal ones"):
        labelled_table([one, report(tmp_path / "b.json", [], options={"context": 128})])
    with pytest.raises(ConfigError, match="different sets called 'x'"):
        labelled_table([report(tmp_path / f"{n}.json", [], sets=[{"name": "x", "label": n}]) for n in "cd"])
    with pytest.raises(ConfigError, match="which no report is of"):
        labelled_table([one], [head(tmp_path / "h", "class being yes of t.tsv", model="e" * 64)])
    with pytest.raises(ConfigError, match="the label of no set"):
        labelled_table([one], [head(tmp_path / "i", "other being yes of t.tsv")])
    (tmp_path / "text").write_text("{}")
    with pytest.raises(InputFileError, match="Wanted what"):
        labelled_table([tmp_path / "text"])


def test_nothing_to_judge(tmp_path: Path, reference: Path) -> None:
    rows = ["contig\tpos\tref\talt\tx", *(f"1\t{a.pos1}\t{a.ref}\t{a.alt}\t{a.pos1 % 3}" for a in alleles(reference))]
    (tmp_path / "t.tsv").write_text("\n".join(rows) + "\n")
    content = {
        "context": 64,
        "replicates": 10,
        "sets": [{"name": "s", "table": "t.tsv", "reference": "r.fa", "label": "x"}],
    }
    (tmp_path / "c.yaml").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="--counted"):
        run_evaluate_labelled(tmp_path / "c.yaml", [], tmp_path / "o.json")
    counted = CountedOn(str(reference), ("1:1-1,000",), ("1:1,001-1,200",))
    found = run_evaluate_labelled(tmp_path / "c.yaml", [], tmp_path / "o.json", counted=counted)
    assert [one.model for one in found.figures] == ["Markov order 12", "two-sided order 12"]
    assert len(set(found.models.values())) == 1

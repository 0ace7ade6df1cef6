"""Fine-tuning learns what can be learnt, and what it says is what scoring says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import genossm
from genossm.cli.main import run
from genossm.core.errors import InputFileError, OutputExistsError, UsageError
from genossm.evaluation.tuned_head import TuningPlan, run_tune_head
from genossm.models import SequenceModel, StackConfig
from genossm.nn.pair_head import PairHead
from genossm.sequence import Variant
from genossm.testing import random_sequence, write_fasta
from genossm.testing.models import enliven
from genossm.training.pairs import PairTraining, TuningConfig, WindowCollator
from genossm.variants import ScoringOptions, score
from genossm.variants.heads.labelled import LabelColumn
from genossm.variants.opening import Request, load_extras

OPTIONS = ScoringOptions(context=32, horizon=8)
LETTERS = random_sequence(6000, seed=8).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Substitutions by a G or a C are the positive class: the model has to look at ALT, and at nothing else."""
    path = tmp_path_factory.mktemp("tuned")
    write_fasta(path / "r.fa", {"1": LETTERS.encode()})
    rng = np.random.default_rng(0)
    rows = ["contig\tpos\tref\talt\tstrong\tweight"]
    for pos1 in rng.choice(np.arange(100, 5900), 400, replace=False):
        ref = LETTERS[pos1 - 1]
        alt = rng.choice([base for base in "ACGT" if base != ref])
        rows.append(f"1\t{pos1}\t{ref}\t{alt}\t{int(alt in 'GC')}\t{3 + 2 * (alt in 'GC')}")
    (path / "t.tsv").write_text("\n".join(rows) + "\n")
    for name, config in (
        ("causal", StackConfig(d_model=8, n_layer=1)),
        ("masked", StackConfig(d_model=8, n_layer=1, direction="bidirectional", objective="masked")),
    ):
        torch.manual_seed(0)
        enliven(SequenceModel(config)).save_pretrained(path / name)
    return path


def plan(**changes) -> TuningPlan:
    usual = {"label": LabelColumn("strong"), "stretch": 500, "kind": "logistic"}
    config = TuningConfig(
        epochs=4, batch=16, learning_rate=3e-3, head_rate=3e-2, flank=2, classes="weight" not in changes
    )
    changes.pop("weight", None)
    return TuningPlan("strong", **{**usual, "config": config, **changes})


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_it_learns_and_scoring_says_the_same(kind: str, folder: Path, tmp_path: Path) -> None:
    request = Request(str(folder / kind), str(folder / "r.fa"), OPTIONS)
    tuned = run_tune_head(request, folder / "t.tsv", plan(), tmp_path / "new")
    assert tuned.figures["value"] > 0.9
    assert abs(tuned.figures["alone"] - 0.5) < 0.25
    assert (tuned.figures["trained"] + tuned.figures["alleles"], tuned.figures["stretches"]) == (400, 2)
    model = genossm.load(tmp_path / "new")
    assert model.digest() != genossm.load(folder / kind).digest()
    extras = load_extras(str(tmp_path / "new"), ["strong"])
    ref = LETTERS[2999]
    others = [base for base in "ACGT" if base != ref]
    with genossm.genome.open(folder / "r.fa") as genome:
        alleles = [Variant("1", 3000, ref, base) for base in others]
        found = list(score(model, genome, alleles, methods=["strong"], context=32, horizon=8, extras=extras))
    said = {base: float(one.numbers[-1] or 0.0) for base, one in zip(others, found)}
    assert min(value for base, value in said.items() if base in "GC") > 0.5
    assert max(value for base, value in said.items() if base in "AT") < 0.5


def test_means_are_those_of_scoring(folder: Path) -> None:
    """The training step's features, by the class that gives heads theirs: the same windows, the same numbers."""
    from genossm.data.variant_pairs import VariantPairs
    from genossm.data.variant_rows import read_variant_rows
    from genossm.variants.scorer import Scorer

    config = TuningConfig(flank=3)
    with genossm.genome.open(folder / "r.fa") as genome:
        for kind in ("causal", "masked"):
            model = genossm.load(folder / kind)
            rows = read_variant_rows(folder / "t.tsv", labels=("strong",))
            # In a window that begins where the contig does both have the same letters around the allele.
            first = [number for number, pos1 in enumerate(rows.pos1) if 100 <= pos1 < 140][:3]
            pairs = VariantPairs(genome, rows.select(first), model.tokenizer, 32)
            batch = WindowCollator(model)([pairs[number] for number in range(len(pairs))])
            module = PairTraining(model, PairHead(8), config, 1)
            with torch.inference_mode():
                ours = module._mean(batch.alternative, batch.alternative_spans).numpy()
            scorer = Scorer(model, genome, ScoringOptions(context=6000))
            wanted = []
            for number in range(len(pairs)):
                item = pairs[number]
                letters = genome.fetch(item.interval).decode()
                window = letters[:16] + (rows.alts[first[int(item.row)]] or "") + letters[17:]
                ids = model.encode(window, add_bos=model.begins_with_bos)
                with torch.inference_mode():
                    states = model.backbone(ids)[0, int(model.begins_with_bos) :]
                wanted.append(states[16 - 3 : 17 + 3].mean(dim=0).numpy())
            assert scorer.options.context == 6000
            np.testing.assert_allclose(ours, np.stack(wanted), atol=1e-5)


def test_a_number_in_its_own_unit(folder: Path, tmp_path: Path) -> None:
    request = Request(str(folder / "causal"), str(folder / "r.fa"), OPTIONS)
    tuned = run_tune_head(
        request, folder / "t.tsv", plan(label=LabelColumn("weight"), kind="ridge", weight=1), tmp_path / "w"
    )
    assert (tuned.figures["metric"], tuned.figures["value"] > 0.7) == ("Spearman", True)
    with genossm.genome.open(folder / "r.fa") as genome:
        alleles = [
            Variant("1", pos1, LETTERS[pos1 - 1], base)
            for pos1 in range(400, 480)
            for base in "ACGT"
            if base != LETTERS[pos1 - 1]
        ]
        extras = load_extras(str(tmp_path / "w"), ["strong"])
        found = score(
            genossm.load(tmp_path / "w"), genome, alleles, methods=["strong"], context=32, horizon=8, extras=extras
        )
        said = np.array([one.numbers[-1] for one in found], dtype=float)
    strong = np.array([one.alt in "GC" for one in alleles])
    assert said[strong].mean() == pytest.approx(5, abs=0.7)
    assert said[~strong].mean() == pytest.approx(3, abs=0.7)


def test_what_cannot_be(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    request = Request(str(folder / "causal"), str(folder / "r.fa"), OPTIONS)
    with pytest.raises(InputFileError, match="1 stretches, too few to hold some out"):
        run_tune_head(request, folder / "t.tsv", plan(stretch=100_000), tmp_path / "x")
    with pytest.raises(UsageError, match="fitted on frozen features alone"):
        plan(kind="svm")
    with pytest.raises(OutputExistsError):
        run_tune_head(request, folder / "t.tsv", plan(), folder)
    with pytest.raises(SystemExit) as stop:
        run(["head", "tune", str(folder / "t.tsv"), "--name", "llr", "--label", "strong", "-m", str(folder / "causal"),
             "-f", str(folder / "r.fa"), "-o", str(tmp_path / "y")])  # fmt: skip
    assert stop.value.code == 2
    assert "cannot be called 'llr'" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())

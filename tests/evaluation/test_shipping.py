"""From a training run to a shipped model: what is rounded, what is recorded, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import genossm.genome
from genossm.core.errors import ConfigError, UsageError
from genossm.core.provenance import Provenance
from genossm.evaluation import shipping
from genossm.evaluation.leaks import refuse_learnt_regions
from genossm.evaluation.shipping import ship
from genossm.models import SequenceModel, StackConfig, shipped
from genossm.sequence.interval import Interval
from genossm.testing.models import enliven
from genossm.testing.toy import random_sequence, write_fasta

HELD_OUT = "x:2,001-3,000"


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    contigs = {"x": random_sequence(3000), "y": random_sequence(500, seed=1)}
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


@pytest.fixture
def run(tmp_path: Path, fasta: Path) -> Path:
    """What a training run leaves."""
    model = enliven(SequenceModel(StackConfig(d_model=16, n_layer=2, d_state=4)), 3)
    splits = {"train": ["x:1-1,000", "y"], "validation": "x:1,001-2,000", "test": "x:2,001-3,000"}
    config = {"splits": splits, "data": {"window": 1024, "lengths": [{"window": 64, "steps": 3}]}}
    metrics = {"validation_bits_per_base": 1.91, "best_step": 40, "steps": 50, "tokens": 51_200, "seconds": 90.0}
    with genossm.genome.open(fasta) as genome:
        digest = genome.reference_digest
    provenance = Provenance(seed=7, reference_digest=digest, extra={"config": config, "metrics": metrics})
    (tmp_path / "run").mkdir()
    return model.save_pretrained(tmp_path / "run" / "model", provenance=provenance)


def shipping_of(run: Path, fasta: Path, folder: Path, name: str = "toy-causal", **choices: object) -> Path:
    wanted = {"regions": [HELD_OUT], "context": 64, "summary": "A toy.", "config_file": "configs/train/toy.yaml"}
    return ship(run, name, str(fasta), folder=folder, **{**wanted, **choices})  # type: ignore[arg-type]


def test_weights_are_rounded_and_the_effect_is_recorded(
    run: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "pretrained")
    monkeypatch.chdir(tmp_path)
    directory = shipping_of(
        run,
        fasta,
        tmp_path / "pretrained",
        evaluation="## Bits per base\n\n| a table |\n\n## Masked bits per base\n\n| another |\n\n## Labels\n\n| 3 |",
        limits=["Untried on y."],
    )
    exact, loaded = genossm.load(run), genossm.load("toy-causal")
    for name, tensor in exact.tensors().items():
        kept = name.endswith((".D", "dt_proj.bias"))
        stored = torch.float32 if kept else torch.float16 if name.endswith("A_log") else torch.bfloat16
        expected = tensor.to(stored).float()
        assert torch.equal(loaded.tensors()[name], expected), name
    record = json.loads((directory / "provenance.json").read_text())
    assert record["seed"] == 7
    assert record["extra"]["source_digest"] == exact.digest()
    assert record["extra"]["loaded_digest"] == loaded.digest()
    rounding = record["extra"]["rounding"]
    assert rounding["difference"] == pytest.approx(rounding["after"] - rounding["before"])
    assert 0 < abs(rounding["difference"]) < 0.02
    card = (directory / "README.md").read_text()
    for text in ('genossm.load("toy-causal")', "| a table |", "- Untried on y.", "configs/train/toy.yaml",
                 "`x:2,001-3,000`", "windows of 64 then 1,024", loaded.digest()[:12]):  # fmt: skip
        assert text in card
    assert "### Bits per base" in card
    assert "another" not in card
    assert "### Labels\n\n| 3 |" in card


def test_rounded_bits_are_those_of_the_loaded_model(run: Path, fasta: Path, tmp_path: Path) -> None:
    from genossm.evaluation.likelihood import base_log_probabilities

    directory = shipping_of(run, fasta, tmp_path / "pretrained")
    rounding = json.loads((directory / "provenance.json").read_text())["extra"]["rounding"]
    model = genossm.load(str(directory), dtype=torch.float32)
    with genossm.genome.open(fasta) as genome:
        values, _ = base_log_probabilities(model, genome, Interval("x", 2000, 3000), context=64)
    assert rounding["after"] == pytest.approx(-values.mean() / torch.log(torch.tensor(2.0)).item(), abs=1e-5)


@pytest.mark.parametrize(("choices", "error", "message"), [
    ({"regions": ["x:900-1,100"]}, ConfigError, "what is judged was learnt"),
    ({"name": "a/b"}, UsageError, "without a path separator"),
])  # fmt: skip
def test_what_must_not_ship_is_refused(
    run: Path, fasta: Path, tmp_path: Path, choices: dict, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        shipping_of(run, fasta, tmp_path / "pretrained", **choices)
    assert not (tmp_path / "pretrained").exists()


def test_a_package_that_would_be_too_large_is_refused(
    run: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipping_of(run, fasta, tmp_path / "pretrained")
    size = sum(file.stat().st_size for file in (tmp_path / "pretrained" / "toy-causal").iterdir())
    monkeypatch.setattr(shipping, "MOST_BYTES", size + 100)
    with pytest.raises(ConfigError, match="other shipped models"):
        shipping_of(run, fasta, tmp_path / "pretrained", name="second")
    shipping_of(run, fasta, tmp_path / "pretrained", force=True)


def test_a_model_without_a_record_is_refused(fasta: Path, tmp_path: Path) -> None:
    bare = SequenceModel(StackConfig(d_model=8, n_layer=1)).save_pretrained(tmp_path / "bare")
    with pytest.raises(ConfigError, match="does not say how the model was trained"):
        shipping_of(bare, fasta, tmp_path / "pretrained")


def test_a_shipped_model_knows_its_contigs_in_another_file(run: Path, fasta: Path, tmp_path: Path) -> None:
    """Under another name, beside other contigs: the same letters are the same contig. A slice is another contig."""
    directory = shipping_of(run, fasta, tmp_path / "pretrained")
    with genossm.genome.open(fasta) as genome:
        letters = genome.fetch(Interval("x", 0, 3000))
    other = write_fasta(tmp_path / "other.fa", {"chrX1": letters, "z": random_sequence(400, seed=5)})
    sliced = write_fasta(tmp_path / "slice.fa", {"x": letters[:1500]})
    with genossm.genome.open(other) as genome:
        with pytest.raises(ConfigError, match="chrX1:1-1,000"):
            refuse_learnt_regions(directory, genome, [Interval("chrX1", 900, 1200)])
        refuse_learnt_regions(directory, genome, [Interval("chrX1", 2000, 3000), Interval("z", 0, 400)])
    with genossm.genome.open(sliced) as genome:
        refuse_learnt_regions(directory, genome, [Interval("x", 0, 1500)])


def test_the_wheel_takes_models_along(tmp_path: Path) -> None:
    """By the project's own packaging rules, in a copy of it that has a model."""
    from hatchling.builders.wheel import WheelBuilder

    root = Path(genossm.__file__).parents[1]
    (tmp_path / "pyproject.toml").write_text((root / "pyproject.toml").read_text())
    (tmp_path / ".gitignore").write_text((root / ".gitignore").read_text())
    for package in ("genossm", "kernels/genossm_kernels"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    model = tmp_path / "genossm" / "models" / "pretrained" / "toy"
    SequenceModel(StackConfig(d_model=8, n_layer=1)).save_pretrained(model.parent.mkdir(parents=True) or model)
    found = {Path(file.distribution_path) for file in WheelBuilder(str(tmp_path)).recurse_included_files()}
    for name in ("config.json", "model.safetensors", "tokenizer.json", "provenance.json", "README.md"):
        assert Path("genossm/models/pretrained/toy") / name in found


def test_names_given_to_commands_reach_the_shipped_model(
    run: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from genossm.cli.main import main

    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "pretrained")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shipping_of(run, fasta, tmp_path / "pretrained")
    common = ["-m", "toy-causal", "-f", str(fasta)]
    splits = ["--train", "x:1-1,000", "--validation", "x:1,001-2,000", "--markov", "0,2"]
    judged = CliRunner().invoke(main, ["evaluate", "bases", *common, *splits, "--test", HELD_OUT, "-o", "b.json"])
    assert judged.exit_code == 0, judged.output
    learnt = CliRunner().invoke(
        main,
        ["evaluate", "bases", *common, "--train", HELD_OUT, "--validation", "y", "--test", "x:1-500", "-o", "c.json"],
    )
    assert isinstance(learnt.exception, ConfigError)
    assert "learnt" in str(learnt.exception)
    scored = CliRunner().invoke(main, ["score", *common, "--variant", _snv(fasta), "--context", "64"])
    assert scored.exit_code == 0, scored.output
    assert "GENOSSM_LLR" in scored.output


def _snv(fasta: Path) -> str:
    with genossm.genome.open(fasta) as genome:
        base = genome.fetch(Interval("x", 2500, 2501)).decode()
    return f"x:2501:{base}>{'A' if base != 'A' else 'C'}"

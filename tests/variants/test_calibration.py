"""Quantiles: the sketch keeps its bound, and refers to nothing but equal settings."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

import genossm.genome
from genossm.cli.main import run
from genossm.core.errors import InputFileError, OutputExistsError, UsageError
from genossm.models import SequenceModel
from genossm.sequence import Variant
from genossm.variants import ScoringOptions, run_calibrate, score
from genossm.variants.calibration import FILE_NAME, allele_kind, load_calibration
from genossm.variants.extras import Extras
from genossm.variants.opening import Request
from genossm.variants.run_calibrate import Background
from genossm.variants.run_calibrate import run_calibrate as calibrate
from genossm.variants.sketch import POINTS, TAIL, Sketch

OPTIONS = ScoringOptions(context=64, horizon=8)


@given(
    st.integers(1, 30_000),
    st.sampled_from(["normal", "ties", "steps", "heavy"]),
    st.integers(0, 1 << 30),
)
def test_a_share_is_off_by_less_than_the_bound(count: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = {
        "normal": rng.normal(size=count),
        "ties": np.round(rng.normal(size=count), 1),
        "steps": rng.integers(0, 3, size=count).astype(float),
        "heavy": rng.standard_cauchy(size=count),
    }[kind]
    sketch = Sketch.of(scores)
    asked = np.sort(np.concatenate([rng.choice(scores, 50), rng.normal(size=50), [-1e300, 1e300]]))
    found = sketch.share_at_or_below(asked)
    exact = np.searchsorted(np.sort(scores), asked, side="right") / count
    assert np.abs(found - exact).max() <= sketch.largest_error + 1e-12
    assert sketch.largest_error < 1 / (POINTS - 1)
    assert (np.diff(found) >= -1e-12).all()
    assert (found[0], found[-1]) == (0.0, 1.0)
    assert len(sketch.values) <= POINTS + 2 * TAIL
    if count <= POINTS:
        np.testing.assert_allclose(found, exact, atol=1e-12)
    # The ends are what calls are made by: none of them is approximate.
    ends = np.concatenate([np.sort(scores)[:TAIL], np.sort(scores)[-TAIL:]])
    np.testing.assert_allclose(
        sketch.share_at_or_below(ends), np.searchsorted(np.sort(scores), ends, side="right") / count, atol=1e-12
    )


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf]])
def test_what_cannot_be_sketched(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        Sketch.of(scores)


@pytest.mark.parametrize(
    ("ref", "alt", "kind"),
    [
        ("A", "C", "snv"),
        ("ga", "gC", "snv"),
        ("A", "AT", "insertion"),
        ("CTT", "CT", "deletion"),
        ("AC", "GT", "other"),
        ("ACG", "T", "other"),
        ("A", "a", None),
    ],
)
def test_kinds(ref: str, alt: str, kind: str | None) -> None:
    assert allele_kind(ref, alt) == kind


@pytest.fixture(scope="module")
def vcf(human_vcf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 400 records of the example file."""
    path = tmp_path_factory.mktemp("calibrate") / "in.vcf"
    lines = gzip.decompress(human_vcf.read_bytes()).decode().splitlines(keepends=True)
    header = [line for line in lines if line.startswith("#")]
    path.write_text("".join(header + lines[len(header) : len(header) + 400]))
    return path


@pytest.fixture(scope="module")
def asked(model_dir: Path, human_store: Path) -> Request:
    return Request(str(model_dir), str(human_store), OPTIONS)


@pytest.fixture(scope="module")
def file(asked: Request, vcf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibrate") / "c.safetensors"
    calibrate(asked, Background(str(vcf), "AF", 0.01), path)
    return path


def test_a_quantile_is_the_share_of_the_background(
    model: SequenceModel, human_store: Path, vcf: Path, file: Path
) -> None:
    with pysam.VariantFile(str(vcf)) as records, genossm.genome.open(human_store) as genome:
        chosen = [r for r in records if r.info["AF"][0] >= 0.01]
        snvs = [Variant(r.chrom, r.pos, r.ref or "", (r.alts or ())[0]) for r in chosen]
        snvs = [one for one in snvs if one.is_snv]
        extras = Extras(load_calibration(file))
        indel = Variant(snvs[0].contig, snvs[0].pos1, snvs[0].ref, f"{snvs[0].ref}CG")
        same = [*snvs, indel]
        scored = list(score(model, genome, same, context=64, horizon=8, extras=extras))
    background = np.array([float(f"{one.numbers[0]:.6g}") for one in scored[:-1]])
    for one, value in zip(scored, background):
        assert one.numbers[1] == pytest.approx(np.mean(background <= value))
    # There were too few insertions to say anything of one.
    assert scored[-1].numbers[0] is not None
    assert scored[-1].numbers[1] is None
    [entry] = load_calibration(file).entries
    assert (entry.tag, entry.kind, entry.sketch.count) == ("GENOSSM_LLR", "snv", len(snvs))
    assert entry.background["name"] == "in.vcf, AF 0.01 to 1"


def test_other_settings_have_no_quantiles(
    model: SequenceModel, human_store: Path, make_genome, file: Path, tmp_path: Path
) -> None:
    with genossm.genome.open(human_store) as genome:
        options = OPTIONS.of_model("causal", equivariant=False)
        one = Variant.parse("20:1000226:A>T")
        extras = Extras(load_calibration(file))
        for change, said in (
            ({"context": 128}, "context"),
            ({"horizon": 9}, "horizon"),
            ({"both_strands": True}, "both"),
        ):
            changed = replace(options, **change)
            [scored] = score(
                model, genome, [one], context=changed.context, horizon=changed.horizon,
                both_strands=changed.both_strands, extras=extras,
            )  # fmt: skip
            assert len(scored.numbers) == 1
            with pytest.raises(UsageError, match=f"no calibration of these settings: {said}"):
                Request("-", "-", options, calibration=file).extras(model, genome, changed)
        # Of several methods, those that were calibrated have quantiles.
        both = replace(options, methods=("llr", "embedding"))
        assert Request("-", "-", options, calibration=file).extras(model, genome, both).calibration is not None
    assert Request(str(tmp_path), "-", options).extras(model, make_genome({"1": "ACGT"}), options).calibration is None


def test_files_are_added_to_and_scored_files_read(
    asked: Request, vcf: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(file.read_bytes())
    with pytest.raises(OutputExistsError, match="GENOSSM_LLR of snv alleles under the same settings"):
        calibrate(asked, Background(str(vcf), "AF", 0.01), path)
    embedding = replace(asked, options=replace(OPTIONS, methods=("embedding",)))
    with pytest.raises(SystemExit):
        run(["score", str(vcf), "-f", asked.reference, "-m", asked.model, "--context", "64", "--horizon", "8", "-o",
             str(tmp_path / "scored.vcf")])  # fmt: skip
    calibrate(embedding, Background(str(vcf), "AF", 0.05), path)
    tags = [entry.tag for entry in load_calibration(path).entries]
    assert tags == [
        "GENOSSM_LLR",
        "GENOSSM_EMB_L2",
        "GENOSSM_EMB_COS",
        "GENOSSM_EMB_WINDOW_L2",
        "GENOSSM_EMB_WINDOW_COS",
    ]
    before = load_calibration(path).entries[0].sketch
    scored = Background(str(tmp_path / "scored.vcf"), "AF", 0.01, scored=True)
    summary = calibrate(asked, scored, path, force=True)
    again = load_calibration(path).entries[-1].sketch
    assert summary.kinds == {"snv": before.count}
    np.testing.assert_array_equal(again.values, before.values)
    np.testing.assert_array_equal(again.below, before.below)
    with pytest.raises(InputFileError, match="other settings: context is 64, here 128"):
        calibrate(replace(asked, options=replace(OPTIONS, context=128)), scored, path, force=True)
    with pytest.raises(InputFileError, match="was not scored by genossm"):
        calibrate(asked, Background(str(vcf), scored=True), tmp_path / "new.safetensors")
    monkeypatch.setattr(run_calibrate, "FEWEST", 1000)
    with pytest.raises(InputFileError, match="too few for quantiles"):
        calibrate(asked, scored, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_the_command_keeps_it_with_the_model(
    model: SequenceModel, human_store: Path, vcf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    usual = ["-f", str(human_store), "-m", str(folder), "--context", "64", "--horizon", "8"]

    def command(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            run([*words, *usual])
        return int(stop.value.code or 0), capfd.readouterr().err

    code, said = command("calibrate", str(vcf), "--info-key", "AF", "--min", "0.01")
    assert code == 0
    assert f"{FILE_NAME}: " in said
    assert "insertion: fewer than 100" in said
    (tmp_path / "in.tsv").write_text("variant\n20:1000226:A>T\n")
    assert command("score-table", str(tmp_path / "in.tsv"), "-o", str(tmp_path / "out.tsv"))[0] == 0
    head, row = (line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines())
    assert head == ["variant", "GENOSSM_LLR", "GENOSSM_Q", "GENOSSM_STATUS"]
    assert 0 <= float(row[2]) <= 1
    # The model is the model that it was.
    assert genossm.load(folder).digest() == model.digest()
    code, said = command("calibrate", str(vcf), "--info-key", "XX")
    assert code == 1
    assert "No allele of" in said
    assert "has XX from 0 to 1; 400 have no XX at all" in said


def test_damaged_files(file: Path, tmp_path: Path) -> None:
    for content in (b"", file.read_bytes()[:200], b"x" * 100):
        (tmp_path / "c.safetensors").write_bytes(content)
        with pytest.raises(InputFileError, match="no calibration of genossm, or is damaged"):
            load_calibration(tmp_path / "c.safetensors")
    with pytest.raises(InputFileError, match="No calibration at"):
        load_calibration(tmp_path / "none")
    with pytest.raises(UsageError, match=r"--min 0\.5 is above --max 0\.1"):
        Background("x.vcf", "AF", 0.5, 0.1)

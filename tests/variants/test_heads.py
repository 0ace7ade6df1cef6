"""A head from labels to fields: what it sees, where it may be used, what it wants to be told."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest
import torch

import genossm.genome
from genossm.cli.main import run
from genossm.core.errors import InputFileError, OutputExistsError, UsageError
from genossm.models import SequenceModel
from genossm.sequence import Interval, Variant
from genossm.variants import ScoringOptions, score
from genossm.variants.extras import CovariateTable, Extras
from genossm.variants.heads import crossvalidation
from genossm.variants.heads.covariates import Covariate, learn_covariates
from genossm.variants.heads.features import FeatureSpec
from genossm.variants.heads.head import check_name, load_head
from genossm.variants.heads.labelled import LabelColumn, read_labelled
from genossm.variants.heads.training import HeadPlan, TrainedHead, run_train_head
from genossm.variants.locate import Allele
from genossm.variants.opening import Request, load_extras

OPTIONS = ScoringOptions(context=64, horizon=8)
SPEC = FeatureSpec(flank=4)


@pytest.fixture(scope="module", autouse=True)
def _few_strengths() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crossvalidation, "STRENGTHS", (0.01, 1.0))
        yield


@pytest.fixture(scope="module")
def vcf(human_vcf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """250 records of the example file with a tissue and a distance in INFO, made up from their positions."""
    path = tmp_path_factory.mktemp("heads") / "in.vcf"
    lines = gzip.decompress(human_vcf.read_bytes()).decode().splitlines()
    header = [line for line in lines if line.startswith("#")]
    rows = [line.split("\t")[:8] for line in lines[len(header) : len(header) + 250]]
    for row in rows:
        row[7] += f";TISSUE={'liver' if int(row[1]) % 3 else 'brain'};DIST={int(row[1]) % 1000}"
    keys = [
        '##INFO=<ID=TISSUE,Number=1,Type=String,Description="x">',
        '##INFO=<ID=DIST,Number=1,Type=Float,Description="x">',
    ]
    columns = "\t".join(header[-1].split("\t")[:8])
    path.write_text("\n".join([*header[:-1], *keys, columns, *("\t".join(row) for row in rows)]) + "\n")
    return path


@pytest.fixture(scope="module")
def asked(model_dir: Path, human_store: Path) -> Request:
    return Request(str(model_dir), str(human_store), OPTIONS)


def plan(name: str, **changes) -> HeadPlan:
    usual = {"covariates": ("TISSUE", "DIST"), "spec": SPEC, "stretch": 5000, "outer": 3, "inner": 2}
    label = LabelColumn("AF", at_least=0.01, at_most=0.002)
    return HeadPlan(name, changes.pop("kind", "logistic"), changes.pop("label", label), **{**usual, **changes})


@pytest.fixture(scope="module")
def trained(asked: Request, vcf: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedHead:
    return run_train_head(asked, vcf, plan("common"), tmp_path_factory.mktemp("heads") / "common")


def test_a_head_sees_what_it_says(trained: TrainedHead, model: SequenceModel, human_store: Path) -> None:
    """Everything by hand for one substitution: two passes, means, standardisation, one sum."""
    told = {"TISSUE": "brain", "DIST": "17"}
    with genossm.genome.open(human_store) as genome:
        one = Allele("20", 1_000_226, "A", "T", told)
        [scored] = score(
            model, genome, [one], methods=["common"], context=64, horizon=8, extras=Extras(heads=(trained.head,))
        )
        [alone] = score(model, genome, [Variant("20", 1_000_226, "A", "T")], context=64, horizon=8)
        start = max(0, (1_000_225 - 16) // 32) * 32
        window = genome.fetch(Interval("20", start, start + 64)).decode()
    place = 1_000_225 - start
    means = []
    for letter in "AT":
        ids = model.encode(window[:place] + letter + window[place + 1 :], add_bos=True)
        with torch.inference_mode():
            states = model(ids, return_hidden_states=True).hidden_states
        assert states is not None
        means.append(states[-1][0, 1:][place - 4 : place + 5].double().mean(dim=0).numpy())
    ref, alt = means
    cosine = ref @ alt / np.linalg.norm(ref) / np.linalg.norm(alt)
    assert alone.llr is not None
    seen = [alone.llr, abs(alone.llr), np.linalg.norm(alt - ref), 1 - cosine, *(alt - ref), *ref, 1.0, 0.0, 17.0]
    linear = trained.head.linear
    total = float(((np.array(seen) - linear.mean) / linear.scale) @ linear.weights + linear.intercept)
    assert scored.numbers == pytest.approx((alone.llr, 1 / (1 + np.exp(-total))), abs=2e-4)
    assert scored.llr == pytest.approx(alone.llr, abs=1e-4)


def test_company_does_not_matter(trained: TrainedHead, model: SequenceModel, human_store: Path) -> None:
    told = {"TISSUE": "liver", "DIST": 5.0}
    many = [Allele("20", pos1, "N", "T", told) for pos1 in range(1_000_300, 1_000_312)]
    with genossm.genome.open(human_store) as genome:
        many = [replace(one, ref=genome.fetch(Interval("20", one.pos1 - 1, one.pos1)).decode()) for one in many]
        many += [Allele("20", 1_000_300, many[0].ref, many[0].ref + "AC", told), Allele("20", 5, "A", "T", told)]

        def numbers(alleles: list[Allele]) -> list[tuple[float | None, ...]]:
            extras = Extras(heads=(trained.head,))
            found = score(
                model, genome, alleles, methods=["common"], context=64, horizon=8, batch_size=3, extras=extras
            )
            return [one.numbers for one in found]

        together, apart = numbers(many), [numbers([one])[0] for one in many]
    assert together[-1] == apart[-1] == ()
    for one, allele, other in zip(together[:-1], many, apart):
        assert one[0] == pytest.approx(other[0], abs=1e-4)
        if allele.ref != allele.alt:
            assert one[1] == pytest.approx(other[1], abs=1e-4)
        else:
            # Nothing changes, so there is nothing to see.
            assert (one, other) == ((0.0, None), (0.0, None))


def test_it_is_used_under_its_own_settings_alone(
    trained: TrainedHead, model: SequenceModel, masked_model: SequenceModel, human_store: Path
) -> None:
    extras = Extras(heads=(trained.head,))
    with genossm.genome.open(human_store) as genome:
        for options, said in (
            ({"context": 128}, "context 64, here it is 128"),
            ({"horizon": 9}, "horizon 8, here it is 9"),
            ({"both_strands": True}, "both_strands False, here it is True"),
        ):
            usual = {"context": 64, "horizon": 8, "methods": ["common"], "extras": extras}
            with pytest.raises(UsageError, match=said):
                score(model, genome, [], **{**usual, **options})
        with pytest.raises(UsageError, match="trained with"):
            score(masked_model, genome, [], methods=["common"], context=64, horizon=8, extras=extras)
        with pytest.raises(UsageError, match="'other' is no method"):
            score(model, genome, [], methods=["other"], context=64, horizon=8, extras=extras)


def test_what_is_not_told_is_asked_for(trained: TrainedHead, model: SequenceModel, human_store: Path) -> None:
    with genossm.genome.open(human_store) as genome:
        for told, said in (
            (None, "lacks the covariate TISSUE"),
            ({"TISSUE": "liver"}, "lacks the covariate DIST"),
            ({"TISSUE": "liver", "DIST": "."}, "lacks the covariate DIST"),
            ({"TISSUE": "liver", "DIST": float("nan")}, "lacks the covariate DIST"),
            ({"TISSUE": "skin", "DIST": 1}, "TISSUE is 'skin', which training never saw; it saw brain, liver"),
            ({"TISSUE": "liver", "DIST": "far"}, "DIST is 'far'; wanted a number"),
        ):
            one = Allele("20", 1_000_226, "A", "T", told)
            with pytest.raises(InputFileError, match=f"20:1000226:A>T.*{said}"):
                list(
                    score(
                        model,
                        genome,
                        [one],
                        methods=["common"],
                        context=64,
                        horizon=8,
                        extras=Extras(heads=(trained.head,)),
                    )
                )
        table = CovariateTable({("20", 1_000_226, "A", "T"): {"TISSUE": "liver", "DIST": 3}}, ("TISSUE", "DIST"), "abc")
        extras = Extras(heads=(trained.head,), covariates=table)
        [told] = score(
            model,
            genome,
            [Variant("20", 1_000_226, "A", "T")],
            methods=["common"],
            context=64,
            horizon=8,
            extras=extras,
        )
        assert told.numbers[1] is not None


def test_files_are_whole_or_refused(trained: TrainedHead, tmp_path: Path) -> None:
    again = load_head(trained.path)
    features = np.random.default_rng(0).normal(size=(5, len(again.linear.weights) - 3))
    told = np.ones((5, 3))
    np.testing.assert_array_equal(again.predict(features, told), trained.head.predict(features, told))
    assert again.digest() == trained.head.digest()
    folder = shutil.copytree(trained.path, tmp_path / "common")
    content = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps({**content, "intercept": 9.0}))
    with pytest.raises(InputFileError, match="the digest differs"):
        load_head(folder)
    (folder / "head.json").write_text(json.dumps({**content, "settings": {}}))
    with pytest.raises(InputFileError, match="the digest differs"):
        load_head(folder)
    (folder / "head.safetensors").unlink()
    with pytest.raises(InputFileError, match="no readable head"):
        load_head(folder)
    for name in ("LLR", "llr", "q", "emb_l2", "a_q", "9x", "a b"):
        with pytest.raises(UsageError, match="cannot be called"):
            check_name(name)


def test_labels(tmp_path: Path, vcf: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("chrom,pos,ref,alt,class,score\n1,5,A,C,LOF,0.5\n1,6,A,C,FUNC,1\n1,7,A,C,,0\n1,8,A,C,INT,.\n")
    words = read_labelled(path, LabelColumn("class", ("LOF", "INT")), classes=True)
    assert [(one.allele.pos1, one.label) for one in words] == [(5, 1.0), (6, 0.0), (8, 1.0)]
    numbers = read_labelled(path, LabelColumn("score"), classes=False)
    assert [one.label for one in numbers] == [0.5, 1.0, 0.0]
    with pytest.raises(InputFileError, match=r"line 2: the label score is 0\.5; wanted 0 or 1"):
        read_labelled(path, LabelColumn("score"), classes=True)
    with pytest.raises(InputFileError, match="Say which words are positive"):
        read_labelled(path, LabelColumn("class"), classes=True)
    with pytest.raises(InputFileError, match=r"all 3 .* class being Lof; wanted two\. .* LOF \(1\), FUNC \(1\)"):
        read_labelled(path, LabelColumn("class", ("Lof",)), classes=True)
    with pytest.raises(InputFileError, match="no column 'weight'"):
        read_labelled(path, LabelColumn("score"), classes=False, covariates=["weight"])
    by_af = read_labelled(vcf, LabelColumn("AF", at_least=0.01, at_most=0.002), classes=True, group="TISSUE")
    assert {one.label for one in by_af} == {0.0, 1.0}
    assert {one.group for one in by_af} == {"liver", "brain"}
    assert len(by_af) < 250
    for wrong in (
        {"at_least": 1.0},
        {"at_least": 0.1, "at_most": 0.2},
        {"positive": ("x",), "at_least": 2.0, "at_most": 1.0},
    ):
        with pytest.raises(UsageError):
            LabelColumn("x", **wrong)


def test_covariates_are_numbers_or_words() -> None:
    rows = [{"a": "1", "b": "x", "c": 3.5}, {"a": "-2e3", "b": "2", "c": 0}]
    assert learn_covariates(["a", "b", "c"], rows, ["1", "2"]) == (
        Covariate("a"),
        Covariate("b", ("2", "x")),
        Covariate("c"),
    )
    with pytest.raises(InputFileError, match="row 2 lacks the covariate a"):
        learn_covariates(["a"], [{"a": "1"}, {"a": "."}], ["row 1", "row 2"])


def test_commands(
    model: SequenceModel, human_store: Path, vcf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    usual = ["-m", str(folder), "-f", str(human_store), "--context", "64", "--horizon", "8"]

    def command(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            run([str(word) for word in words])
        return int(stop.value.code or 0), *capfd.readouterr()

    options = ["--label", "AF", "--at-least", 0.01, "--at-most", 0.002, "--flank", 4, "--block", 5000, "--folds", 3]
    options += ["--inner-folds", 2, "--covariate", "DIST", "--features", "llr,distances"]
    code, _, said = command("head", "train", vcf, "--name", "rare_or_not", *options, *usual)
    assert code == 0
    assert "in nested cross-validation; the model's ratio alone" in said
    code, listed, _ = command("head", "list", "-m", folder)
    assert [line.split("\t")[:3] for line in listed.splitlines()[1:]] == [["rare_or_not", "logistic", "AUROC"]]
    methods = ["--method", "rare_or_not,embedding"]
    assert command("score", vcf, *usual, *methods, "-o", tmp_path / "out.vcf")[0] == 0
    with pysam.VariantFile(str(tmp_path / "out.vcf")) as file:
        ours = [key for key in file.header.info if key.startswith("GENOSSM")]
        assert ours[0] == "GENOSSM_LLR"
        assert ours[-2:] == ["GENOSSM_RARE_OR_NOT", "GENOSSM_STATUS"]
        assert "AF of at least 0.01 against at most 0.002" in (
            file.header.info["GENOSSM_RARE_OR_NOT"].description or ""
        )
        assert "genossm_head_rare_or_not=sha256:" in str(file.header)
        in_vcf = [record.info["GENOSSM_RARE_OR_NOT"][0] for record in file]
    # A head's number has its quantile too, once it is calibrated.
    assert command("calibrate", vcf, "--info-key", "AF", *usual, *methods)[0] == 0
    assert command("score", vcf, *usual, *methods, "-o", tmp_path / "q.vcf")[0] == 0
    with pysam.VariantFile(str(tmp_path / "q.vcf")) as file:
        rows_of = [(r.info["GENOSSM_RARE_OR_NOT"][0], r.info.get("GENOSSM_RARE_OR_NOT_Q", (None,))[0]) for r in file]
    pairs = np.array([pair for pair in rows_of if pair[1] is not None])
    assert len(pairs) > 200
    np.testing.assert_allclose(pairs[:, 1], [(pairs[:, 0] <= one).mean() for one in pairs[:, 0]], atol=1e-5)
    (folder / "calibration.safetensors").unlink()
    # The same through a table whose covariate stands in a table of its own, and through a frame's column.
    with pysam.VariantFile(str(vcf)) as file:
        rows = [(r.chrom, r.pos, r.ref, (r.alts or ("",))[0], r.info["DIST"]) for r in file]
    frame = pd.DataFrame(rows[:20], columns=["contig", "pos", "ref", "alt", "DIST"])
    frame.drop(columns="DIST").to_csv(tmp_path / "in.csv", index=False)
    frame.to_csv(tmp_path / "told.csv", index=False)
    assert command("score-table", tmp_path / "in.csv", *usual, *methods, "-o", tmp_path / "no.csv")[0] == 1
    beside = ["--covariates", tmp_path / "told.csv"]
    assert command("score-table", tmp_path / "in.csv", *usual, *methods, *beside, "-o", tmp_path / "out.csv")[0] == 0
    by_table = pd.read_csv(tmp_path / "out.csv")["GENOSSM_RARE_OR_NOT"]
    with genossm.genome.open(human_store) as genome:
        extras = load_extras(str(folder), ["rare_or_not"])
        by_frame = score(model, genome, frame, methods=["rare_or_not"], context=64, horizon=8, extras=extras)
    np.testing.assert_allclose(by_table, in_vcf[:20], rtol=1e-4)
    np.testing.assert_allclose(by_frame["GENOSSM_RARE_OR_NOT"], in_vcf[:20], rtol=1e-4)
    code, _, said = command("score", vcf, *usual, "--method", "rare", "-o", tmp_path / "no.vcf")
    assert (code, "or a head (there are rare_or_not)" in said) == (2, True)


def test_nothing_is_replaced_or_kept_elsewhere(asked: Request, vcf: Path, trained: TrainedHead) -> None:
    with pytest.raises(OutputExistsError):
        run_train_head(asked, vcf, plan("common"), trained.path)
    with pytest.raises(UsageError, match="no directory of yours to keep a head in"):
        run_train_head(replace(asked, model="human-causal-2m"), vcf, plan("common"), None)


def test_a_method_cannot_be_chosen(
    asked: Request, vcf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It used to leave every allele without a ratio, called "REF equal to ALT"."""
    chosen = replace(asked, options=replace(asked.options, methods=("embedding",)))
    with pytest.raises(UsageError, match="got embedding"):
        run_train_head(chosen, vcf, plan("common"), tmp_path / "head")
    for command in ("train", "tune"):
        with pytest.raises(SystemExit, match="2"):
            run(["head", command, str(vcf), "--method", "embedding"])
        assert "--method" in capfd.readouterr().err


def test_features_that_cannot_be() -> None:
    """Features have names, a flank is a length."""
    builders: list[Callable[[], object]] = [
        lambda: FeatureSpec(("llr", "x")),
        lambda: FeatureSpec(()),
        lambda: FeatureSpec(flank=-1),
    ]
    for build in builders:
        with pytest.raises(UsageError):
            build()

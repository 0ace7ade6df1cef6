"""Figures from labels: right by an outsider, in the direction that they say, the same for all columns' resamples."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from genossm.cli.main import run
from genossm.core.errors import ConfigError, UsageError
from genossm.core.strict import from_mapping
from genossm.evaluation.labelled import (
    LabelledConfig,
    LabelledSet,
    figures_of,
    load_labelled_config,
    read_set,
    weighted_spearman,
)
from genossm.evaluation.labelled_report import run_evaluate_labelled
from genossm.models import SequenceModel, StackConfig
from genossm.testing import random_sequence, write_fasta
from genossm.testing.models import enliven

ROOT = Path(__file__).parents[2]
COUNT = 300


def one(**changes: object) -> LabelledSet:
    return from_mapping(
        LabelledSet, {"name": "s", "table": "t", "reference": "r", "label": "x", "block": 10, **changes}
    )


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 3)), min_size=3, max_size=40))
def test_correlations_are_scipys(rows: list[tuple[int, int, int]]) -> None:
    values, labels, weights = (np.array(column, dtype=float) for column in zip(*rows))
    [plain, weighted] = weighted_spearman(values, labels, np.stack([np.ones(len(rows)), weights]))
    repeated = np.repeat(np.arange(len(rows)), weights.astype(int))
    for found, chosen in ((plain, np.arange(len(rows))), (weighted, repeated)):
        if len(set(values[chosen])) < 2 or len(set(labels[chosen])) < 2:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(spearmanr(values[chosen], labels[chosen])[0], abs=1e-9)


def test_an_effect_has_a_low_ratio_and_a_large_distance() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(COUNT) < 0.3).astype(float)
    ratio, distance = rng.normal(size=COUNT) - labels, rng.normal(size=COUNT) + labels
    columns = {"GENOSSM_LLR": ratio, "GENOSSM_EMB_L2": distance, "cadd": np.where(labels > 0, 1.0, 0.0)}
    config = LabelledConfig((one(positive=["a"], compare=["cadd"]),), replicates=200)
    found = figures_of(config.sets[0], "m", columns, labels, np.arange(COUNT) * 10, config)
    assert [(f.model, f.number, f.metric) for f in found] == [
        ("m", "-GENOSSM_LLR", "AUROC"),
        ("m", "GENOSSM_EMB_L2", "AUROC"),
        ("-", "cadd", "AUROC"),
    ]
    assert found[0].value == pytest.approx(roc_auc_score(labels, -ratio))
    assert found[1].value == pytest.approx(roc_auc_score(labels, distance))
    assert found[2].value == 1.0
    assert 0.5 < found[0].interval[0] < found[0].value < found[0].interval[1] < 0.9
    assert {(f.alleles, f.positives) for f in found} == {(COUNT, int(labels.sum()))}
    measured = LabelledConfig((one(),), replicates=200)
    signed = figures_of(measured.sets[0], "m", {"GENOSSM_LLR": ratio}, -labels, np.arange(COUNT) * 10, measured)
    # A measurement keeps its sign: less function, less likely.
    assert (signed[0].number, signed[0].metric, signed[0].positives) == ("GENOSSM_LLR", "Spearman", None)
    assert signed[0].value > 0.2


def test_alleles_without_one_of_the_columns_count_in_none() -> None:
    labels = np.array([0.0, 1.0] * 20)
    columns = {"GENOSSM_LLR": np.arange(40.0), "phylop": np.where(np.arange(40) < 30, 1.0, np.nan)}
    config = LabelledConfig((one(positive=["a"], compare=["phylop"]),), replicates=20)
    found = figures_of(config.sets[0], "m", columns, labels, np.arange(40), config)
    assert [f.alleles for f in found] == [30, 30]
    assert found[1].value == 0.5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    letters = random_sequence(400, seed=3)
    write_fasta(tmp_path / "r.fa", {"1": letters})
    rows = ["contig\tpos\tref\talt\tclass\tscore\tcadd"]
    for pos1 in range(100, 220):
        ref = chr(letters[pos1 - 1])
        alt = "CATG"["ACGT".index(ref)] if pos1 % 10 else ref + "A"
        rows.append(
            f"1\t{pos1}\t{ref}\t{alt}\t{['LOF', 'FUNC', 'INT'][pos1 % 3]}\t{pos1 / 7}\t{pos1 if pos1 > 110 else ''}"
        )
    (tmp_path / "t.tsv").write_text("\n".join(rows) + "\n")
    shared = {"table": "t.tsv", "reference": "r.fa", "block": 10}
    classes = {"label": "class", "positive": ["LOF"], "negative": ["FUNC"], "kinds": ["snv"], "compare": ["cadd"]}
    sets = [{"name": "classes", **shared, **classes}, {"name": "scores", **shared, "label": "score", "sample": 50}]
    content = {"context": 64, "horizon": 8, "replicates": 20, "methods": ["llr", "embedding"], "sets": sets}
    (tmp_path / "c.yaml").write_text(json.dumps(content))
    for name, seed in (("a", 1), ("b", 2)):
        enliven(SequenceModel(StackConfig(d_model=8, n_layer=2)), seed).save_pretrained(tmp_path / name)
    return tmp_path


def test_models_on_sets(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(["evaluate", "labelled", "--config", str(folder / "c.yaml"), "-m", f"first={folder / 'a'}", "-m",
             str(folder / "b"), "-o", str(folder / "o.json")])  # fmt: skip
    assert not stop.value.code
    lines = capfd.readouterr().out.splitlines()
    # Five numbers of two models on two sets, and one other column once.
    assert len(lines) == 2 + 5 * 2 * 2 + 1
    assert sum("| - | cadd |" in line for line in lines) == 1
    content = json.loads((folder / "o.json").read_text())
    assert list(content["models"]) == ["first", "b"]
    figures = {(f["set_name"], f["model"], f["number"]): f for f in content["figures"]}
    rows = [line.split("\t") for line in (folder / "t.tsv").read_text().splitlines()[1:]]
    judged = [row for row in rows if len(row[3]) == 1 and row[4] != "INT" and row[6]]
    cadd = figures["classes", "-", "cadd"]
    assert (cadd["alleles"], cadd["positives"]) == (len(judged), sum(row[4] == "LOF" for row in judged))
    outsider = roc_auc_score([row[4] == "LOF" for row in judged], [float(row[6]) for row in judged])
    assert cadd["value"] == pytest.approx(outsider, abs=1e-5)
    assert figures["scores", "first", "GENOSSM_LLR"]["alleles"] == 50
    with pytest.raises(UsageError, match="same name"):
        run_evaluate_labelled(folder / "c.yaml", ["x=a", "x=b"], folder / "p.json")


def test_samples_and_sides(folder: Path) -> None:
    config = load_labelled_config(folder / "c.yaml")
    first, again = (read_set(config.sets[1], seed=0) for _ in range(2))
    assert [row.place for row in first] == [row.place for row in again]
    assert len(read_set(config.sets[1], seed=1)) == 50
    low = {**config.sets[1].__dict__, "at_least": 25.0, "at_most": 20.0, "sample": 0}
    rows = read_set(LabelledSet(**{**low, "low_is_effect": True}), seed=0)
    assert [row.label for row in rows] == [1.0 - row.label for row in read_set(LabelledSet(**low), seed=0)]
    assert {row.label for row in rows} == {0.0, 1.0}


def test_configurations() -> None:
    shipped = load_labelled_config(ROOT / "configs/evaluate/labelled.yaml")
    for each in shipped.sets:
        assert Path(each.table).is_file()
        assert Path(each.reference).is_file()
    assert {row.label for row in read_set(shipped.sets[0], seed=0)} == {0.0, 1.0}
    for wrong in ({"sets": []}, {"sets": [one().__dict__], "replicates": 3}):
        with pytest.raises(ConfigError):
            from_mapping(LabelledConfig, wrong)
    with pytest.raises(ConfigError, match="kinds: got 'snp'"):
        one(kinds=["snp"])


def test_published_sets_come_into_one_form(tmp_path: Path) -> None:
    """A made-up file in the layout of each source."""
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "workflows/labelled_variants/prepare.py")
    assert spec is not None
    assert spec.loader is not None
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)

    def table(name: str, text: str) -> None:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))

    table("brca1_sge/brca1_sge_variants.tsv.gz", "chrom\tpos\tref\talt\tfunction_score\tfunc_class\tcadd\tphylop\n"
          "17\t41100003\tT\tG\t-0.3\tFUNC\t6.0\tNA\n")  # fmt: skip
    (tmp_path / "in/brca1_sge/brca1_chr17_41100001-41300000_GRCh37.fa").write_text(">17:41100001-41300000 x\nACTT\n")
    elements = "Chrom\tPos\tRef\tAlt\tBarcodes\tDNA\tRNA\tCoefficient\tpValue\tElement\tRelease\n"
    for pos, alt, barcodes, p, release in (
        (11, "G", 20, 1e-9, "GRCh37"),
        (11, "C", 5, 0.5, "GRCh37"),
        (12, "-", 50, 0.5, "GRCh37"),
        (12, "A", 50, 0.5, "GRCh37"),
        (12, "A", 50, 0.5, "GRCh38"),
    ):
        elements += f"9\t{pos}\tT\t{alt}\t{barcodes}\t1\t1\t-0.5\t{p}\tE\t{release}\n"
    table("satmut_mpra/elements.tsv.gz", elements)
    (tmp_path / "in/satmut_mpra/elements_GRCh37.fa").write_text(">E 9:10-13\nATTG\n")
    out = tmp_path / "out"
    out.mkdir()
    source = tmp_path / "in"
    names = [each["name"] for each in (*prepare.brca1(source, out), *prepare.mpra(source, out))]
    assert len(names) == len(set(names)) == 5
    assert (out / "brca1.tsv").read_text().splitlines()[1].split("\t")[:4] == ["17:41100001-41300000", "3", "T", "G"]
    assert [
        line.split("\t")[:4] + line.split("\t")[-1:] for line in (out / "mpra.tsv").read_text().splitlines()[1:]
    ] == [
        ["E", "2", "T", "G", "yes"],
        ["E", "3", "T", "A", "no"],
    ]
    sets = [*prepare.brca1(source, out), *prepare.mpra(source, out)]

    table("kg_chr20_1-2Mb/z.fa.gz", ">z here\nACGTACGT\n")
    rows = [(1, "A", "C", 0.0002, 1), (2, "C", "T", 0.3, 1500), (3, "GT", "G", 0.3, 1500), (4, "T", "A", 0.01, 50)]
    lines = [f"z\t{pos}\t.\t{ref}\t{alt}\t.\t.\tAC={count};AF={af}" for pos, ref, alt, af, count in rows]
    table("kg_chr20_1-2Mb/z.vcf.gz", "\n".join(["##fileformat=VCFv4.1", *lines]) + "\n")
    sets += prepare.thousand_genomes(source, out)
    assert [line.split("\t")[1::4] for line in (out / "kg.tsv").read_text().splitlines()[1:]] == [
        ["1", "yes"],
        ["2", "no"],
    ]

    # A scan in its genome stands on a stretch of it, and what was not measured is no measurement.
    genome = random_sequence(300_000, seed=8)
    write_fasta(tmp_path / "genome.fa", {"chromosome": genome})
    ref = chr(genome[270_000 - 1])
    scan = "chrom\tpos\tref\talt\taa_variant\tDMS\n"
    scan += f"U1\t270000\t{ref}\t{'CATG'['ACGT'.index(ref)]}\tA2D\t0.5\nU1\t270000\t{ref}\tAC\tA2E\t-999\n"
    table("dms_nucleotide/g.tsv.gz", scan)
    sets += prepare.scan_in_genome(source, out, "G", "g.tsv.gz", tmp_path / "genome.fa")
    [row] = [line.split("\t") for line in (out / "G.tsv").read_text().splitlines()[1:]]
    start = 3 * prepare.GRID
    assert row[:3] == [f"U1:{start + 1}-300000", str(270_000 - start), ref]
    prepare.agree(out, sets)
    (out / "bla.fa").write_text(">x\nTTTT\n")
    (out / "wrong.tsv").write_text("chrom\tpos\tref\talt\nx\t2\tA\tC\n")
    with pytest.raises(SystemExit, match=r"x:2:A>C, but bla\.fa has T"):
        prepare.agree(out, [{"table": "wrong.tsv", "reference": "bla.fa"}])
    for each in sets:
        from_mapping(LabelledSet, each)

"""A whole run gives what `genossm score` gives, sums it up rightly, and is not done twice."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pysam
import pytest
import yaml

import genossm.genome

Call = Callable[..., CompletedProcess[str]]
TARGET = "results/scored/mixed.vcf.gz"


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory, snakemake: Call) -> Path:
    """A project after a whole run. Do not write to it."""
    folder = Path(shutil.copytree(inputs, tmp_path_factory.mktemp("run") / "project"))
    done = snakemake(folder, "--cores", 1)
    assert done.returncode == 0, done.stderr
    return folder


def records(path: Path) -> list[bytes]:
    with gzip.open(path) as file:
        return [line for line in file if not line.startswith(b"#")]


@pytest.mark.parametrize(("name", "source", "number"), [("snvs", "snvs.vcf.gz", 21), ("mixed", "mixed.vcf", 14)])
def test_records_are_those_of_a_direct_call(
    call: Call, finished: Path, tmp_path: Path, name: str, source: str, number: int
) -> None:
    options = ["-f", finished / "reference.fa.gz", "-m", finished / "model", "--context", 1024, "--horizon", 64]
    direct = call("genossm", "score", *options, finished / source, "-o", tmp_path / "direct.vcf.gz", cwd=tmp_path)
    assert direct.returncode == 0, direct.stderr
    scored = records(finished / f"results/scored/{name}.vcf.gz")
    assert len(scored) == number
    assert scored == records(tmp_path / "direct.vcf.gz")
    assert json.loads((finished / f"results/scored/{name}.json").read_text())["records"] == number


def test_scored_files_have_an_index(finished: Path) -> None:
    with pysam.VariantFile(str(finished / "results/scored/snvs.vcf.gz")) as file:
        assert len(list(file.fetch("20", 3_300_000, 3_301_000))) < 21


@pytest.fixture
def stopped(finished: Path, human_vcf: Path, tmp_path: Path, snakemake: Call) -> Path:
    """A project whose job had finished a block of records when an allele without a score, the last one, stopped it."""
    project = Path(shutil.copytree(finished, tmp_path / "project"))
    lines = gzip.decompress(human_vcf.read_bytes()).decode().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    without = (project / "mixed.vcf").read_text().splitlines()[-1]
    (project / "mixed.vcf").write_text("".join(lines[: first + 260]) + f"{without}\n")
    set_score(project, context=256, horizon="full", max_skip_frac=0.0)
    assert snakemake(project, "--cores", 1, TARGET).returncode == 1
    return project


def set_score(project: Path, **score: Any) -> None:
    path = project / "config/config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"score": score}))


def files_of(project: Path) -> list[str]:
    """The scored file and what is called by its name."""
    return sorted(path.name for path in (project / TARGET).parent.glob("mixed.vcf.gz*"))


def test_a_job_that_stops_leaves_finished_blocks_and_no_index_of_before(finished: Path, stopped: Path) -> None:
    assert files_of(finished) == ["mixed.vcf.gz", "mixed.vcf.gz.tbi"]
    assert files_of(stopped) == ["mixed.vcf.gz.journal"]


@pytest.mark.parametrize(
    ("context", "said"),
    [(256, "256 records were finished before"), (512, "context was 256, is 512")],
    ids=["goes on", "scores anew"],
)
def test_a_stopped_job_goes_on_and_after_a_change_scores_anew(
    call: Call, stopped: Path, tmp_path: Path, snakemake: Call, context: int, said: str
) -> None:
    set_score(stopped, context=context, horizon="full")
    done = snakemake(stopped, "--cores", 1, TARGET)
    assert done.returncode == 0, done.stderr
    assert said in (stopped / "results/logs/score/mixed.log").read_text()
    assert files_of(stopped) == ["mixed.vcf.gz", "mixed.vcf.gz.tbi"]
    options = ["-f", stopped / "reference.fa.gz", "-m", stopped / "model", "--context", context, "--horizon", "full"]
    direct = call("genossm", "score", *options, stopped / "mixed.vcf", "-o", tmp_path / "direct.vcf.gz", cwd=tmp_path)
    assert direct.returncode == 0, direct.stderr
    assert records(stopped / TARGET) == records(tmp_path / "direct.vcf.gz")


def test_a_stopped_job_whose_input_changed_scores_it_anew(stopped: Path, snakemake: Call) -> None:
    """The change shows in the records alone: it is found when the run is under way."""
    path = stopped / "mixed.vcf"
    header, first, rest = path.read_text().partition("\n20\t")
    path.write_text(header + first + rest[rest.index(first) + len(first) :])
    set_score(stopped, context=256, horizon="full")
    done = snakemake(stopped, "--cores", 1, TARGET)
    assert done.returncode == 0, done.stderr
    assert "The input has changed" in (stopped / "results/logs/score/mixed.log").read_text()
    assert len(records(stopped / TARGET)) == 260


def scores_and_statuses(path: Path) -> tuple[list[float], Counter[str]]:
    """As an outsider reads them."""
    scores: list[float] = []
    statuses: Counter[str] = Counter()
    with pysam.VariantFile(str(path)) as file:
        for record in file:
            scores += [score for score in record.info.get("GENOSSM_LLR", ()) if score is not None]
            statuses.update(record.info["GENOSSM_STATUS"])
    return scores, statuses


def test_summary_against_an_outsider(finished: Path) -> None:
    summary = json.loads((finished / "results/summary.json").read_text())
    files = {name: scores_and_statuses(finished / f"results/scored/{name}.vcf.gz") for name in ("snvs", "mixed")}
    files["all"] = (files["snvs"][0] + files["mixed"][0], files["snvs"][1] + files["mixed"][1])
    assert files["mixed"][1] == {"OK": 13, "SYMBOLIC": 1}
    for name, (scores, statuses) in files.items():
        found = summary["all"] if name == "all" else summary["inputs"][name]
        assert {status: count for status, count in found["statuses"].items() if count} == statuses
        assert found["records"] == found["alleles"] == statuses.total()
        ratios = found["scores"]["GENOSSM_LLR"]
        assert ratios["count"] == statuses["OK"] == len(scores)
        assert ratios["mean"] == pytest.approx(np.mean(scores), rel=1e-5)
        for quantile, value in ratios["quantiles"].items():
            assert value == pytest.approx(np.quantile(scores, float(quantile)), rel=1e-5)
    with genossm.genome.open(finished / "reference.fa.gz") as genome:
        assert summary["scoring"]["reference"] == f"sha256:{genome.reference_digest}"


def test_the_table_says_what_the_json_says(finished: Path) -> None:
    summary = json.loads((finished / "results/summary.json").read_text())
    with open(finished / "results/summary.tsv", newline="") as file:
        rows = {row["input"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert list(rows) == ["snvs", "mixed", "all"]
    for name, row in rows.items():
        wanted = summary["all"] if name == "all" else summary["inputs"][name]
        assert int(row["alleles"]) == wanted["alleles"]
        assert {status: int(row[status]) for status in wanted["statuses"]} == wanted["statuses"]
        assert float(row["GENOSSM_LLR_q0.5"]) == wanted["scores"]["GENOSSM_LLR"]["quantiles"]["0.5"]


def test_every_job_has_a_log_and_a_benchmark(finished: Path) -> None:
    results = finished / "results"
    assert "21 scored" in (results / "logs/score/snvs.log").read_text()
    assert "4000000 bases" in (results / "logs/genome_store.log").read_text()
    for name in ("genome_store", "score/snvs", "score/mixed", "summary"):
        assert (results / f"benchmarks/{name}.tsv").read_text().startswith("s\th:m:s\tmax_rss")


def test_the_store_is_whole_with_what_snakemake_puts_into_it(call: Call, finished: Path) -> None:
    done = call("genossm", "genome", "verify", "results/genome/reference.zarr", cwd=finished)
    assert done.returncode == 0, done.stderr


def test_a_second_run_does_nothing(finished: Path, snakemake: Call) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "results").rglob("*")}
    done = snakemake(finished, "--cores", 1)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (finished / "results").rglob("*")} == before


def test_a_changed_option_scores_again_and_builds_no_store(finished: Path, tmp_path: Path, snakemake: Call) -> None:
    config = yaml.safe_load((finished / "config/config.yaml").read_text())
    config["score"]["both_strands"] = True
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(finished, "--dry-run", "--configfile", tmp_path / "changed.yaml")
    assert done.returncode == 0, done.stderr
    assert "rule score:" in done.stdout
    assert "--both-strands" in done.stdout
    assert "rule genome_store:" not in done.stdout


def test_a_masked_model_is_scored_by_its_own_method(finished: Path, project: Path, snakemake: Call) -> None:
    config = yaml.safe_load((project / "config/config.yaml").read_text())
    config["reference"]["path"] = str(finished / "results/genome/reference.zarr")
    config |= {"model": "masked_model", "inputs": config["inputs"][1:]}
    config["score"] = {"methods": ["mlm", "embedding"], "context": 1024}
    (project / "config/config.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(project, "--cores", 1)
    assert done.returncode == 0, done.stderr
    summary = json.loads((project / "results/summary.json").read_text())
    assert "mlm" in summary["scoring"]["method"]
    assert summary["scoring"]["strands"] == "+,-"
    scores = summary["all"]["scores"]
    assert {"GENOSSM_LLR", "GENOSSM_EMB_L2", "GENOSSM_EMB_COS"} <= set(scores)
    assert {described["count"] for described in scores.values()} == {13}
    assert scores["GENOSSM_EMB_L2"]["quantiles"]["0.05"] > 0


def test_a_report_is_made_without_a_network(finished: Path, tmp_path: Path, snakemake: Call) -> None:
    done = snakemake(finished, "--report", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "ALT alleles of every input" in page

"""The summary's script on files that a run on the example data does not bring."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Summarise = Callable[..., CompletedProcess[str]]

HEADER = """##fileformat=VCFv4.3
##INFO=<ID=GENOSSM_LLR,Number=A,Type=Float,Description="x">
##INFO=<ID=GENOSSM_EMB_L2,Number=A,Type=Float,Description="x">
##INFO=<ID=GENOSSM_STATUS,Number=.,Type=String,Description="x">
##genossm_model=sha256:{model}
##genossm_context=1024
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""


def write(path: Path, *infos: str, model: str = "abc") -> Path:
    lines = [f"20\t{i + 1}\t.\tA\tC,<DEL>\t.\t.\t{info}\n" for i, info in enumerate(infos)]
    path.write_bytes(gzip.compress((HEADER.format(model=model) + "".join(lines)).encode()))
    return path


@pytest.fixture
def summarise(call: Callable[..., CompletedProcess[str]], workflow: Path, tmp_path: Path) -> Summarise:
    def run(*paths: Path) -> CompletedProcess[str]:
        outputs = ["--table", tmp_path / "t.tsv", "--json", tmp_path / "s.json"]
        script = workflow / "scripts" / "summarise.py"
        return call("python", script, *paths, "--quantiles", 0, 0.5, 1, *outputs, cwd=tmp_path)

    return run


def test_alleles_are_counted_each_and_only_scores_enter_quantiles(summarise: Summarise, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.vcf.gz",
        "AF=0.5;GENOSSM_LLR=-1.5,.;GENOSSM_EMB_L2=2,.;GENOSSM_STATUS=OK,SYMBOLIC",
        "GENOSSM_LLR=0.25,0.75;GENOSSM_EMB_L2=3,4;GENOSSM_STATUS=OK,OK;DB",
        "GENOSSM_STATUS=NO_ALT",
    )
    done = summarise(path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "s.json").read_text())["inputs"]["a"]
    assert (found["records"], found["alleles"]) == (3, 5)
    assert {status: count for status, count in found["statuses"].items() if count} == {
        "OK": 3,
        "SYMBOLIC": 1,
        "NO_ALT": 1,
    }
    assert found["scores"]["GENOSSM_LLR"] == {
        "count": 3,
        "mean": -0.166667,
        "quantiles": {"0": -1.5, "0.5": 0.25, "1": 0.75},
    }
    assert found["scores"]["GENOSSM_EMB_L2"]["quantiles"] == {"0": 2.0, "0.5": 3.0, "1": 4.0}


def test_inputs_without_a_score_are_not_available(summarise: Summarise, tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.vcf.gz")
    full = write(tmp_path / "full.vcf.gz", "GENOSSM_LLR=1,2;GENOSSM_EMB_L2=1,1;GENOSSM_STATUS=OK,OK")
    done = summarise(empty, full)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "t.tsv", newline="") as file:
        rows = {row["input"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert (rows["empty"]["records"], rows["empty"]["GENOSSM_LLR_q0.5"]) == ("0", "NA")
    assert rows["full"]["GENOSSM_LLR_q0.5"] == rows["all"]["GENOSSM_LLR_q0.5"] == "1.5"
    assert json.loads((tmp_path / "s.json").read_text())["inputs"]["empty"]["scores"]["GENOSSM_LLR"]["mean"] is None


def test_files_of_different_models_are_not_summed(summarise: Summarise, tmp_path: Path) -> None:
    done = summarise(write(tmp_path / "a.vcf.gz"), write(tmp_path / "b.vcf.gz", model="xyz"))
    assert done.returncode == 1
    assert "a and b were not scored alike: model is sha256:abc and sha256:xyz" in done.stderr
    assert not (tmp_path / "t.tsv").exists()


def test_a_file_without_scores_is_refused(summarise: Summarise, tmp_path: Path) -> None:
    path = tmp_path / "plain.vcf.gz"
    path.write_bytes(gzip.compress(b"##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"))
    done = summarise(path)
    assert done.returncode == 1
    assert "plain.vcf.gz holds no scores of genossm" in done.stderr
    assert "Traceback" not in done.stderr

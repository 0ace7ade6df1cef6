"""`--check-ref x`: records whose REF differs go to a file of their own, and nothing is lost or written twice."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pysam.bcftools
import pytest

Run = Callable[..., Any]
WRONG = (3, 7, 8, 20)


@pytest.fixture
def usual(human_fasta: Path, model_dir: Path) -> list[object]:
    return ["-f", human_fasta, "-m", model_dir, "--context", 64, "--horizon", 8]


@pytest.fixture
def vcf(human_vcf: Path, tmp_path: Path) -> Path:
    """The first records of the example file, four of them with another REF than the reference has."""
    lines = gzip.decompress(human_vcf.read_bytes()).decode().splitlines()[:40]
    first = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    for number in WRONG:
        columns = lines[first + number].split("\t")
        columns[3] = {"A": "C", "C": "G", "G": "T", "T": "A"}[columns[3][0]] + columns[3][1:]
        columns[4] = "N" if number == 8 else {"A": "C", "C": "A", "G": "A", "T": "A"}[columns[3][0]]
        lines[first + number] = "\t".join(columns)
    path = tmp_path / "in.vcf"
    path.write_text("\n".join(lines) + "\n")
    return path


def records(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_moved_and_kept_are_together_what_marking_gives(
    run_score: Run, usual: list[object], vcf: Path, tmp_path: Path
) -> None:
    marked = records(run_score(*usual, vcf.name).stdout)
    done = run_score(
        *usual, "--check-ref", "x", "--skipped", "aside.vcf.gz", vcf.name, "-o", "out.vcf", "--summary", "s.json"
    )
    assert done.returncode == 0, done.stderr
    aside = gzip.decompress((tmp_path / "aside.vcf.gz").read_bytes()).decode()
    kept = records((tmp_path / "out.vcf").read_text())
    # NON_ACGT is looked for before the reference is: that record stays.
    wrong = [line for line in marked if "REF_MISMATCH" in line]
    assert len(wrong) == len(WRONG) - 1
    assert records(aside) == wrong
    assert kept == [line for line in marked if line not in wrong]
    assert "--check-ref x" in aside
    assert (tmp_path / "aside.vcf.gz.tbi").exists()
    assert pysam.bcftools.view("-H", str(tmp_path / "aside.vcf.gz")).count("REF_MISMATCH") == len(wrong)
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["moved"] == len(wrong)
    assert summary["records"] == len(marked)
    assert f"{len(wrong)} records moved aside" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check-ref", "x", "in.vcf", "-o", "out.vcf"], "give both, or neither"),
        (["--skipped", "aside.vcf", "in.vcf", "-o", "out.vcf"], "give both, or neither"),
        (["--check-ref", "x", "--skipped", "-", "in.vcf", "-o", "out.vcf"], "takes the name of a file"),
        (["--check-ref", "x", "--skipped", "out.vcf", "in.vcf", "-o", "out.vcf"], "Two outputs are both out.vcf"),
        (
            ["--check-ref", "x", "--skipped", "in.vcf", "--force", "in.vcf", "-o", "out.vcf"],
            "Input and output are both",
        ),
        (["--check-ref", "x", "--skipped", "aside", "in.vcf", "-o", "out.vcf"], "Cannot tell the format of aside"),
        (["--check-ref", "x", "--skipped", "aside.vcf", "--variant", "20:5:A>C"], "go with a VCF"),
    ],
)
def test_what_does_not_go_together(
    run_score: Run, usual: list[object], vcf: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run_score(*usual, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [vcf.name]


def test_a_file_that_stands_there_is_kept(run_score: Run, usual: list[object], vcf: Path, tmp_path: Path) -> None:
    (tmp_path / "aside.vcf").write_text("mine")
    done = run_score(*usual, "--check-ref", "x", "--skipped", "aside.vcf", vcf.name, "-o", "out.vcf")
    assert done.returncode == 1
    assert "aside.vcf" in done.stderr
    assert (tmp_path / "aside.vcf").read_text() == "mine"
    assert not (tmp_path / "out.vcf").exists()

"""The page: everything that the files say, nothing from elsewhere, and clear errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from genossm.core.errors import InputFileError, OutputExistsError, UsageError
from genossm.evaluation.report import write_report
from genossm.evaluation.report_page import Section, render_page

pytest.importorskip("matplotlib")

BASES = {
    "format": "genossm-bases",
    "regions": {"train": ["20:1-100"], "validation": ["20:101-200"], "test": ["20:201-400"]},
    "context": 64,
    "scored_bases": 200,
    "methods": [
        {"name": "model", "bits_per_base": 1.8125, "interval": [1.80, 1.83]},
        {"name": "Markov order 3", "bits_per_base": 1.9375, "interval": [1.92, 1.95]},
    ],
    "differences": [{"method": "Markov order 3", "bits_per_base": -0.125, "interval": [-0.13, -0.12]}],
    "best_markov": "Markov order 3",
    "sentence": "The model beats <the> best.",
    "blocks": {
        "contig": ["20", "20"],
        "start0": [200, 300],
        "bits_per_base": {"model": [1.8, None], "Markov order 3": [1.9, 1.95]},
    },
    "provenance": {"command": "genossm evaluate bases", "genossm_version": "0.0", "model_digest": "abc123"},
}
METRICS = """step,tokens,seconds,train_bits_per_base,validation_bits_per_base
10,1000000,5.0,1.95,
10,1000000,6.0,,1.9125
20,2000000,11.0,1.91,
20,2000000,12.0,,1.9500
"""


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    path = tmp_path / "bases.json"
    path.write_text(json.dumps(BASES))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.csv").write_text(METRICS)
    return folder


def test_page_says_what_the_files_say(tmp_path: Path, bases: Path, run: Path) -> None:
    page = write_report(tmp_path / "report.html", runs=[run], bases=[bases]).read_text()
    assert "Fewest bits per base on the validation region: 1.9125, after 1.00 million bases." in page
    assert "20 steps over 2.00 million bases in 12 seconds" in page
    assert "<td>model</td><td>1.8125</td><td>1.8000 to 1.8300</td><td></td>" in page
    assert "-0.1250 (-0.1300 to -0.1200)" in page
    assert "The model beats &lt;the&gt; best." in page
    assert "abc123" in page
    assert page.count("<svg") == 3


def test_a_masked_run_is_called_so(tmp_path: Path, run: Path) -> None:
    (run / "config.yaml").write_text("masking: {fraction: 0.15}\n")
    page = write_report(tmp_path / "report.html", runs=[run]).read_text()
    assert "Fewest masked bits per base on the validation region: 1.9125" in page
    (run / "config.yaml").write_text("masking: null\n")
    assert "Fewest bits per base" in write_report(tmp_path / "report.html", runs=[run], force=True).read_text()


def test_models_stand_one_after_the_other(tmp_path: Path, bases: Path, run: Path) -> None:
    masked = tmp_path / "masked"
    masked.mkdir()
    (masked / "metrics.csv").write_text(METRICS)
    (masked / "config.yaml").write_text("masking: {fraction: 0.15}\n")
    other = tmp_path / "masked.json"
    other.write_text(
        json.dumps(BASES | {"objective": "masked", "mask_fraction": 0.15, "provenance": {"model_digest": "def456"}})
    )
    page = write_report(tmp_path / "report.html", runs=[run, masked], bases=[bases, other]).read_text()
    headlines = re.findall("<h2>(.*?)</h2>", page)
    assert headlines[:4] == ["Training", "Bits per base", "Training of a masked model", "Masked bits per base"]
    assert re.search(rf"<dt>{bases}</dt><dd>[^<]*model digest abc123</dd>", page)
    assert re.search(rf"<dt>{other}</dt><dd>[^<]*model digest def456</dd>", page)


def test_page_stands_alone(tmp_path: Path, bases: Path, run: Path) -> None:
    page = write_report(tmp_path / "report.html", runs=[run], bases=[bases]).read_text()
    assert "<script" not in page
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert all(address.startswith("#") for address in addresses), addresses


def test_text_is_escaped() -> None:
    section = Section("<b>", text=["a & b"], header=["<i>"], rows=[["1 < 2"]])
    page = render_page("t", "l", [section], {"<k>": "<v>"})
    for raw in ("<b>", "<i>", "<k>", "<v>", "1 < 2", "a & b"):
        assert raw not in page


def test_nothing_to_report_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--bases"):
        write_report(tmp_path / "report.html")


def test_files_of_another_kind_are_refused(tmp_path: Path, bases: Path) -> None:
    with pytest.raises(InputFileError, match="holds genossm-bases; wanted genossm-variants"):
        write_report(tmp_path / "report.html", variants=[bases])
    with pytest.raises(InputFileError, match=r"metrics\.csv"):
        write_report(tmp_path / "report.html", runs=[tmp_path])
    with pytest.raises(InputFileError, match="Cannot read"):
        write_report(tmp_path / "report.html", bases=[tmp_path / "absent.json"])
    assert not (tmp_path / "report.html").exists()


def test_existing_page_is_kept_unless_forced(tmp_path: Path, bases: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("mine")
    with pytest.raises(OutputExistsError):
        write_report(page, bases=[bases])
    assert page.read_text() == "mine"
    write_report(page, bases=[bases], force=True)
    assert "mine" not in page.read_text()

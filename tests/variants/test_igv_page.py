"""The page over top-scored alleles: which records, which sequence, what igv-reports is asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from genossm.cli.main import run
from genossm.core.errors import InputFileError, MissingDependencyError, OutputExistsError, UsageError
from genossm.testing import random_sequence, write_fasta
from genossm.variants import igv_page
from genossm.variants.igv_page import refuse_igv_page, write_igv_page

# Stands in for the program: writes down what it was asked for, and what it found.
STAND_IN = """
import json, sys
words = sys.argv[1:]
def after(name):
    return words[words.index(name) + 1]
columns = words[words.index("--info-columns") + 1 : words.index("--title")]
asked = {"standalone": "--standalone" in words, "note": open(after("--header")).read() if "--header" in words else ""}
content = {**asked, "sites": open(words[0]).read(), "fasta": open(after("--fasta")).read(), "columns": columns}
open(after("--fasta") + ".fai").close()
if "FAIL" in content["sites"]:
    sys.exit("it failed")
open(after("--output"), "w").write(json.dumps(content))
"""
HEADER = """##fileformat=VCFv4.2
##INFO=<ID=DP,Number=1,Type=Integer,Description="x">
##INFO=<ID=GENOSSM_LLR,Number=A,Type=Float,Description="x">
##INFO=<ID=GENOSSM_Q,Number=A,Type=Float,Description="x">
##INFO=<ID=GENOSSM_STATUS,Number=.,Type=String,Description="x">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""
LETTERS = random_sequence(500, seed=1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "packages" / "igv_reports"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "report.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    write_fasta(tmp_path / "r.fa", {"1": LETTERS, "2": LETTERS[::-1], "3": LETTERS})
    return tmp_path


def scored(folder: Path, *infos: str, header: str = HEADER) -> Path:
    rows = [
        f"{1 + place % 2}\t{10 + place}\t.\tA\tC{',G' if ',' in info else ''}\t.\t.\t{info}\n"
        for place, info in enumerate(infos)
    ]
    path = folder / "s.vcf"
    path.write_text(header + "".join(rows))
    return path


def test_the_least_likely_come_first_and_stand_in_the_files_order(folder: Path) -> None:
    infos = [f"GENOSSM_LLR={text};GENOSSM_STATUS=OK" for text in ("-1", "2,-9", ".", "-3,.", "5")]
    path = scored(folder, *infos)
    assert write_igv_page(path, str(folder / "r.fa"), folder / "p.html", top=2) == 2
    asked = json.loads((folder / "p.html").read_text())
    lines = [line.split("\t") for line in asked["sites"].splitlines() if not line.startswith("#")]
    assert [line[7].split(";")[0] for line in lines] == ["GENOSSM_LLR=2,-9", "GENOSSM_LLR=-3,."]
    assert asked["sites"].startswith(HEADER)
    assert asked["columns"] == ["GENOSSM_LLR", "GENOSSM_Q"]
    # Only the contigs that are shown, whole.
    assert asked["fasta"] == f">2\n{LETTERS[::-1].decode()}\n"


def test_a_page_without_a_network_says_so_or_brings_the_browser(folder: Path) -> None:
    path = scored(folder, "GENOSSM_LLR=1")
    write_igv_page(path, str(folder / "r.fa"), folder / "p.html")
    asked = json.loads((folder / "p.html").read_text())
    assert not asked["standalone"]
    # The table is drawn by what comes after the browser, so something answers in the browser's place.
    assert 'typeof igv === "undefined"' in asked["note"]
    assert "createBrowser: () => Promise.resolve(" in asked["note"]
    assert "could not be fetched" in asked["note"]
    write_igv_page(path, str(folder / "r.fa"), folder / "q.html", standalone=True)
    asked = json.loads((folder / "q.html").read_text())
    assert (asked["standalone"], asked["note"]) == (True, "")
    failing = scored(folder, "GENOSSM_LLR=1;FAIL")
    with pytest.raises(InputFileError, match="leave --report-standalone out"):
        write_igv_page(failing, str(folder / "r.fa"), folder / "s.html", standalone=True)


def test_other_fields_rank_by_their_size_and_tags_have_their_own_name(folder: Path) -> None:
    header = HEADER.replace("GENOSSM_LLR", "MINE_EMB_L2").replace("GENOSSM", "MINE")
    path = scored(folder, "MINE_EMB_L2=1", "MINE_EMB_L2=3", "MINE_EMB_L2=2", header=header)
    assert write_igv_page(path, str(folder / "r.fa"), folder / "p.html", top=1, tag="MINE") == 1
    assert "MINE_EMB_L2=3" in json.loads((folder / "p.html").read_text())["sites"]
    with pytest.raises(InputFileError, match=r"holds no scores \(INFO/GENOSSM_…\)"):
        write_igv_page(path, str(folder / "r.fa"), folder / "q.html")


def test_what_cannot_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = str(folder / "r.fa")
    nothing = scored(folder, "GENOSSM_LLR=.")
    with pytest.raises(InputFileError, match="no record with a GENOSSM_LLR"):
        write_igv_page(nothing, reference, folder / "p.html")
    failing = scored(folder, "GENOSSM_LLR=1;FAIL")
    with pytest.raises(InputFileError, match="it says: it failed"):
        write_igv_page(failing, reference, folder / "p.html")
    assert not (folder / "p.html").exists()
    with pytest.raises(UsageError, match="standard output"):
        refuse_igv_page("-", folder / "p.html", force=False)
    with pytest.raises(UsageError, match="Two outputs"):
        refuse_igv_page(str(folder / "p.html"), folder / "p.html", force=False)
    with pytest.raises(OutputExistsError):
        refuse_igv_page("o.vcf", failing, force=False)
    monkeypatch.setattr(igv_page.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'genossm\[report\]'"):
        refuse_igv_page("o.vcf", folder / "p.html", force=False)


def test_the_command(
    folder: Path, model_dir: Path, human_store: Path, human_vcf: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sys.path[0].endswith("packages")
    with pytest.raises(SystemExit) as stop:
        run(["score", str(human_vcf), "-r", "20:1,000,000-1,010,000", "-f", str(human_store), "-m", str(model_dir),
             "--context", "64", "-o", str(folder / "o.vcf"), "--report", str(folder / "p.html")])  # fmt: skip
    assert not stop.value.code
    assert "p.html shows " in capfd.readouterr().err
    asked = json.loads((folder / "p.html").read_text())
    assert asked["columns"] == ["GENOSSM_LLR"]
    assert len(asked["fasta"]) > 4_000_000

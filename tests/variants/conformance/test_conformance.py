"""genossm keeps its own conformance suite, with either kind of model; and the suite notices a tool that does not.

The suite itself is shipped: `genossm/testing/conformance/README.md`.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from genossm.cli.main import run
from genossm.core.errors import ConfigError
from genossm.testing.conformance import Adapter, Workplace, expectations, findings, load_adapter
from genossm.testing.conformance.adapter import tiny_model
from genossm.testing.conformance.cases import CASES, MALFORMED, header_and_records, value
from genossm.testing.conformance.laws import allele_law, file_laws, scores_of
from genossm.variants import Status


class InProcess(Workplace):
    """The command without a new interpreter each time."""

    def execute(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        stderr, code = io.StringIO(), 0
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            try:
                run(words[1:])
            except SystemExit as stop:
                code = int(stop.code or 0)
        return subprocess.CompletedProcess(words, code, "", stderr.getvalue())


@pytest.fixture(scope="module", params=["causal", "masked"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp(request.param)
    return InProcess(load_adapter(), folder, str(tiny_model(folder / "model", request.param)))


def test_everything_is_kept(place: Workplace) -> None:
    found = list(findings(place))
    assert [one for one in found if one.verdict != "kept"] == []
    assert len(found) == len(expectations()) + 4 + len(MALFORMED)


def test_the_table_speaks_of_every_allele_of_the_file() -> None:
    _, records = header_and_records(CASES.read_bytes())
    alleles = []
    for record in records:
        alts = record.split(b"\t")[4]
        numbers = [0] if alts == b"." else range(1, alts.count(b",") + 2)
        alleles += [f"{value(record, 'CASE')}/{number}" for number in numbers]
    table = expectations()
    assert [one.name for one in table] == alleles
    assert len(set(alleles)) == len(alleles)
    of_haplotypes = {"NOT_CARRIED", "UNPHASED"}
    assert {one.status for one in table} == {str(status) for status in Status} - of_haplotypes
    targets = {one.score.removeprefix("same:") for one in table if one.score.startswith("same:")}
    # What others are compared with is a number that says something.
    assert targets <= {one.name for one in table if one.score not in ("none", "zero")}
    assert all((one.score == "none") == (one.status != "OK") and one.reason for one in table)


def test_every_pair_of_reasons_that_can_meet_is_there() -> None:
    """By the names of the cases: first-WINNER-over-LOSER."""
    pairs = {tuple(one.case.removeprefix("first-").split("-over-")) for one in expectations() if "-over-" in one.case}
    written = ("no-alt", "symbolic", "breakend", "star", "non-acgt")
    assert pairs >= {(winner, place) for winner in written for place in ("unknown", "out", "mismatch")}
    assert pairs >= {("n-ref", place) for place in ("unknown", "out", "mismatch")}
    assert pairs >= {(winner, "n-ref") for winner in written[:-1]}
    losers = ("non-acgt", "unknown", "out", "mismatch")
    assert pairs >= {(winner, "too-long") for winner in losers} | {("out", "mismatch")}


def faithful() -> bytes:
    """An output that a tool without any capability could have written: every status right, every score 1 or 0."""
    header, records = header_and_records(CASES.read_bytes())
    table = {one.name: one for one in expectations()}
    lines = []
    for record in records:
        columns = record.split(b"\t")
        case, alts = value(record, "CASE"), columns[4]
        names = [f"{case}/0"] if alts == b"." else [f"{case}/{n}" for n in range(1, alts.count(b",") + 2)]
        scores = ["." if table[n].score == "none" else "0" if table[n].score == "zero" else "1" for n in names]
        said = f";GENOSSM_LLR={','.join(scores)};GENOSSM_STATUS={','.join(table[n].status for n in names)}"
        lines.append(b"\t".join([*columns[:7], columns[7] + said.encode(), *columns[8:]]))
    return b"\n".join([*header[:-1], b"##tool=1", header[-1], *lines]) + b"\n"


def broken(output: bytes) -> list[str]:
    adapter = load_adapter()
    found = [*file_laws(CASES.read_bytes(), output, adapter)]
    scored = scores_of(output, adapter)
    found += [allele_law(one, scored, adapter) for one in expectations()]
    return [one.name for one in found if one.verdict == "broken"]


@pytest.mark.parametrize(
    ("old", "new", "noticed"),
    [
        (b"", b"", []),
        (b"\tCASE=mnv;GENOSSM_LLR=1;", b"\tCASE=mnv;GENOSSM_LLR=.;", ["mnv/1"]),
        (b"\tCASE=mnv;GENOSSM_LLR=1;", b"\tCASE=mnv;GENOSSM_LLR=0;", ["mnv/1"]),
        (b"\tCASE=mnv;GENOSSM_LLR=1;", b"\tCASE=mnv;GENOSSM_LLR=nan;", ["mnv/1"]),
        (b"\tCASE=mnv;GENOSSM_LLR=1;", b"\tCASE=mnv;", ["mnv/1"]),
        (b"CASE=lower-case;GENOSSM_LLR=1;", b"CASE=lower-case;GENOSSM_LLR=1.01;", ["lower-case/1"]),
        (b"STATUS=REF_MISMATCH\t", b"STATUS=OK\t", "mismatch"),
        (b"CASE=star;GENOSSM_LLR=.", b"CASE=star;GENOSSM_LLR=1", ["star/1"]),
        (b"\t0030\t", b"\t30\t", ["file:fields"]),
        (b"FLAG;EMPTY=;EQ=a=b", b"FLAG;EQ=a=b", ["file:fields"]),
        (b"\t0|1:17\t", b"\t0|1\t", ["file:fields"]),
        (b"##odd=text; ", b"##odd=text;", ["file:header"]),
        (b"CASE=alt-is-ref;GENOSSM_LLR=0", b"CASE=alt-is-ref;GENOSSM_LLR=0.1", ["alt-is-ref/1"]),
    ],
)
def test_the_suite_notices(old: bytes, new: bytes, noticed: list[str] | str) -> None:
    output = faithful()
    assert old in output
    found = broken(output.replace(old, new))
    if isinstance(noticed, str):
        assert found
        assert all(noticed in name or "iupac" in name or "base-at-n" in name or "first" in name for name in found)
    else:
        assert found == noticed


def test_a_lost_and_a_moved_record_are_noticed() -> None:
    lines = faithful().splitlines(keepends=True)
    lost = b"".join(line for line in lines if b"CASE=complex;" not in line)
    assert set(broken(lost)) >= {"file:records", "complex/1"}
    moved = b"".join([*lines[:20], lines[21], lines[20], *lines[22:]])
    assert "file:records" in broken(moved)


def test_a_tool_is_asked_for_what_it_has_alone(tmp_path: Path) -> None:
    """A tool that copies its input, and refuses nothing, loses no record and scores none."""
    adapter = Adapter("copy", f"{sys.executable} -S -c '{COPY}' {{input}} {{output}}", score="NONE")
    found = {one.name: one for one in findings(Workplace(adapter, tmp_path))}
    assert [name for name in found if name.startswith("file:") and found[name].verdict != "kept"] == []
    assert found["malformed:position"].verdict == "left out"
    for one in expectations():
        verdict = "left out" if one.needs else "kept" if one.score == "none" else "broken"
        assert found[one.name].verdict == verdict, one


COPY = "import shutil, sys; shutil.copy(*sys.argv[1:])"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\ncommand: tool {input}\nscore: S\n", "has no {output}"),
        ("name: x\ncommand: tool {input} {output}\nscore: S\nhas: [circles]\n", "'circles' is no capability"),
        ("name: x\ncommand: tool {input} {output}\nscor: S\n", "score"),
        ("name: x\ncommand: no-such-tool-here {input} {output}\nscore: S\n", "cannot be run"),
    ],
)
def test_adapters_that_cannot_be(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "tool.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        list(findings(Workplace(load_adapter(tmp_path / "tool.yaml"), tmp_path)))


def test_it_is_collected_from_the_installed_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--pyargs", "genossm.testing.conformance", "--collect-only", "-q"]
    done = subprocess.run([*command, "-p", "no:randomly"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "test_suite.py::test_case[first-each-its-own/4]" in done.stdout

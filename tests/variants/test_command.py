"""`genossm score` as installed: what it prints, and one clear line for everything that can be wrong."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
from pathlib import Path

import pysam
import pysam.bcftools
import pytest

Arguments = list[object]
SMALL = ["--context", 64, "--horizon", 8]


@pytest.fixture
def vcf(human_vcf: Path, tmp_path: Path) -> Path:
    """26 records of the example file."""
    path = tmp_path / "in.vcf"
    text = gzip.decompress(human_vcf.read_bytes()).decode().splitlines(keepends=True)
    path.write_text("".join(text[:35]))
    return path


@pytest.fixture
def usual(human_fasta: Path, model_dir: Path) -> Arguments:
    return ["-f", human_fasta, "-m", model_dir, *SMALL]


def others(folder: Path, *kept: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path not in kept)


def test_file_in_file_out(run_score, usual: Arguments, vcf: Path, tmp_path: Path) -> None:
    done = run_score(*usual, "in.vcf", "-o", "out.vcf.gz", "--summary", "summary.json", "--both-strands")
    assert (done.returncode, done.stdout) == (0, "")
    # No bar where stderr is no terminal: one line, the summary.
    assert done.stderr.splitlines()[-1].startswith("genossm score: 26 records, 26 alleles: 26 scored, 0 not; ")
    assert others(tmp_path, vcf) == ["out.vcf.gz", "out.vcf.gz.tbi", "summary.json"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["records"], summary["scored"], summary["skipped"]) == (26, 26, {})
    assert summary["options"] == {"methods": ["llr"], "context": 64, "horizon": 8, "both_strands": True}
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
        header = str(file.header)
        assert len([record.info["GENOSSM_LLR"][0] for record in file]) == 26
    assert "##genossm_strands=+,-\n" in header
    assert "--both-strands --check-ref w in.vcf\n" in header
    assert "summary" not in header


def test_pipes(run_score, usual: Arguments, vcf: Path, tmp_path: Path) -> None:
    """VCF and BCF through standard input and output are the same bytes as through files."""
    plain = run_score(*usual, "-", stdin=vcf.read_bytes())
    assert plain.stdout.startswith("##fileformat=VCF")
    assert run_score(*usual, "-", "-o", "out.bcf", stdin=vcf.read_bytes()).returncode == 0
    printed = pysam.bcftools.view("--no-version", str(tmp_path / "out.bcf"))
    assert printed.splitlines() == plain.stdout.splitlines()
    again = run_score(*usual, "--force", "-", stdin=(tmp_path / "out.bcf").read_bytes())
    assert again.stdout == plain.stdout


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_a_pipe_with_a_name(run_score, usual: Arguments, vcf: Path, tmp_path: Path, suffix: str) -> None:
    """What a shell's <(…) gives: a path that can be opened, and read once."""
    packed = tmp_path / f"packed{suffix}"
    kind = {".vcf": "v", ".vcf.gz": "z", ".bcf": "b"}[suffix]
    pysam.bcftools.view("--no-version", "-O", kind, "-o", str(packed), str(vcf), catch_stdout=False)
    assert run_score(*usual, packed.name, "-o", "whole.vcf").returncode == 0
    done = run_score(*usual, "/dev/stdin", "-o", "out.vcf", stdin=packed.read_bytes())
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    whole, found = ((tmp_path / name).read_text().splitlines() for name in ("whole.vcf", "out.vcf"))
    # The command, which names the input, is another.
    assert [line for one, line in zip(whole, found, strict=True) if one != line] == [
        line for line in found if line.startswith("##genossm_command=")
    ]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--resume"], "--resume needs a file to read again"),
        (["--shard", "1/2"], "--shard counts the records"),
        (["--haplotypes", "HG00096"], "--haplotypes reads the file twice"),
    ],
)
def test_what_reads_twice_takes_no_pipe(
    run_score, usual: Arguments, vcf: Path, tmp_path: Path, option: list[str], said: str
) -> None:
    done = run_score(*usual, *option, "/dev/stdin", "-o", "out.vcf", stdin=vcf.read_bytes())
    assert done.returncode == 2
    assert said in done.stderr
    assert others(tmp_path, vcf) == []


def test_force_follows_a_link_with_its_index(run_score, usual: Arguments, vcf: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "real.vcf.gz").write_text("old")
    (tmp_path / "store" / "real.vcf.gz.csi").write_text("of the old")
    (tmp_path / "out.vcf.gz").symlink_to("store/real.vcf.gz")
    assert run_score(*usual, vcf, "-o", "out.vcf.gz", "--force").returncode == 0
    assert (tmp_path / "out.vcf.gz").is_symlink()
    assert others(tmp_path / "store") == ["real.vcf.gz", "real.vcf.gz.tbi"]
    for path in (tmp_path / "out.vcf.gz", tmp_path / "store" / "real.vcf.gz"):
        with pysam.VariantFile(str(path)) as file:
            assert len(list(file.fetch("20"))) == 26


def test_single_variants(run_score, usual: Arguments) -> None:
    done = run_score(*usual, "--variant", "20:1000226:A>T", "--variant", "chr20-1000226-A-T", "--variant", "20:5:A>C")
    assert done.returncode == 0
    head, first, second, third = (line.split("\t") for line in done.stdout.splitlines())
    assert head == ["variant", "GENOSSM_LLR", "GENOSSM_STATUS"]
    assert first[0] == "20:1000226:A>T"
    assert float(first[1]) == float(second[1])
    assert first[2] == second[2] == "OK"
    assert third == ["20:5:A>C", ".", "REF_MISMATCH"]


def test_header_only(run_score, usual: Arguments, vcf: Path, tmp_path: Path) -> None:
    vcf.write_text("".join(line for line in vcf.read_text().splitlines(keepends=True) if line.startswith("#")))
    done = run_score(*usual, "in.vcf", "-o", "out.vcf")
    assert done.returncode == 0
    assert "0 records" in done.stderr
    lines = (tmp_path / "out.vcf").read_text().splitlines()
    assert [line for line in lines if not line.startswith("##")] == [lines[-1]]


def shifted(text: str) -> str:
    """The same records 12 bases further on, as in another assembly."""
    lines = [line.split("\t") for line in text.splitlines()]
    return "".join(
        "\t".join(columns if columns[0].startswith("#") else [columns[0], str(int(columns[1]) + 12), *columns[2:]])
        + "\n"
        for columns in lines
    )


def test_another_assembly(run_score, usual: Arguments, vcf: Path, tmp_path: Path) -> None:
    vcf.write_text(shifted(vcf.read_text()))
    done = run_score(*usual, "in.vcf", "-o", "out.vcf.gz")
    assert done.returncode == 3
    assert_one_line(done.stderr, "another assembly")
    assert others(tmp_path, vcf) == []
    to_pipe = run_score(*usual, "in.vcf")
    assert (to_pipe.returncode, to_pipe.stdout) == (3, "")


def assert_one_line(stderr: str, said: str) -> None:
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("genossm: error: ")
    assert said in lines[0]


def break_vcf(vcf: Path, how: str) -> Path:
    data = vcf.read_bytes()
    if how == "missing":
        return vcf.with_name("absent.vcf")
    if how == "empty":
        vcf.write_bytes(b"")
    elif how == "not a vcf":
        vcf.write_bytes(b">20\nACGT\n")
    elif how == "malformed":
        vcf.write_bytes(data.replace(b"\t1000716\t", b"\t10007l6\t"))
    elif how == "unknown contig":
        vcf.write_bytes(data.replace(b"\n20\t", b"\nchrUn_7\t"))
    elif how == "truncated":
        with pysam.BGZFile(str(vcf), "wb", index=None) as file:
            file.write(data)
        vcf.write_bytes(vcf.read_bytes()[:-40])
    return vcf


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "No file at"),
        ("empty", "is empty"),
        ("not a vcf", "neither VCF nor BCF"),
        ("malformed", "line 12 is malformed: POS is '10007l6'"),
        ("unknown contig", "chrUn_7"),
        ("truncated", "truncated"),
    ],
)
def test_bad_variants(how: str, said: str, run_score, usual: Arguments, vcf: Path, tmp_path: Path) -> None:
    source = break_vcf(vcf, how)
    done = run_score(*usual, source, "-o", "out.vcf.gz")
    assert done.returncode == 1
    assert_one_line(done.stderr, said)
    assert others(tmp_path, vcf) == []


@pytest.mark.parametrize("how", ["missing", "not a fasta", "truncated"])
def test_bad_reference(how: str, run_score, human_fasta: Path, model_dir: Path, vcf: Path, tmp_path: Path) -> None:
    reference = tmp_path / "ref.fa.gz"
    if how == "not a fasta":
        reference.write_text("no sequence here\n")
    elif how == "truncated":
        reference.write_bytes(human_fasta.read_bytes()[:-30])
    done = run_score("-f", reference, "-m", model_dir, *SMALL, vcf, "-o", "out.vcf")
    assert done.returncode == 1
    assert_one_line(done.stderr, "ref.fa.gz")
    assert others(tmp_path, vcf, reference) == []


@pytest.mark.parametrize("absent", ["model.safetensors", "config.json", "provenance.json"])
def test_model_directory_half_written(
    absent: str, run_score, human_fasta: Path, model_dir: Path, vcf: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(model_dir, tmp_path / "model"))
    (broken / absent).unlink()
    done = run_score("-f", human_fasta, "-m", broken, *SMALL, vcf, "-o", "out.vcf")
    assert done.returncode == 1
    assert_one_line(done.stderr, "model")
    assert others(tmp_path, vcf, broken) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["in.vcf", "-o", "taken.vcf"], 1, "exists already"),
        (["in.vcf", "-o", "out.vcf", "--summary", "taken.vcf"], 1, "exists already"),
        (["in.vcf", "-o", "nowhere/out.vcf"], 1, "does not exist"),
        (["in.vcf", "-o", "taken.vcf/out.vcf"], 1, "the folder taken.vcf does not exist"),
        (["in.vcf", "-o", "taken.vcf/out.vcf", "--resume"], 1, "the folder taken.vcf does not exist"),
        (["in.vcf", "-o", "taken.vcf/further/out.vcf"], 1, "does not exist"),
        (["in.vcf", "-o", f"{'x' * 260}.vcf"], 1, "File name too long"),
        (["in.vcf", "-o", f"{'x' * 260}.vcf", "--resume"], 1, "File name too long"),
        (["in.vcf", "-o", f"{'x' * 260}/out.vcf"], 1, "does not exist"),
        (["in.vcf", "--tsv", f"{'x' * 260}.tsv"], 1, "File name too long"),
        (["in.vcf", "-o", "/proc/out.vcf"], 1, "Cannot write /proc/out.vcf"),
        (["in.vcf", "-o", "in.vcf", "--force"], 2, "Input and output"),
        (["in.vcf", "-o", "out.txt"], 2, "Cannot tell the format"),
        (["in.vcf", "-o", "out.vcf", "--context", "63"], 2, "multiple of 4"),
        (["in.vcf", "-o", "out.vcf", "--max-skip-frac", "1.5"], 2, "0 to 1"),
        (["in.vcf", "-o", "out.vcf", "-W"], 2, "-W indexes files of bgzip and BCF"),
        (["in.vcf", "-O", "z", "-W"], 2, "-W indexes files of bgzip and BCF"),
        (["in.vcf", "-o", "out.vcf", "--report-standalone"], 2, "give both"),
        (["in.vcf", "-o", "out.vcf", "--device", "tpu0"], 2, "no device"),
        (["in.vcf", "-o", "out.vcf", "--batch-size", "many"], 2, "wanted a number of alternatives or `auto`"),
        (["in.vcf", "-o", "out.vcf", "--batch-size", "0"], 2, "wanted at least 1"),
        (["in.vcf", "-o", "out.vcf", "--batch-size", "auto", "--tag", "1"], 2, "--tag '1'"),
        (["in.vcf", "-o", "out.vcf", "--tsv", "out.vcf"], 2, "Two outputs are both"),
        (["in.vcf", "-o", "-", "--resume"], 2, "went to standard output is gone"),
        (["--variant", "20:12"], 1, "Cannot read variant"),
        (["--variant", "21:5:A>C", "--check-ref", "e"], 0, ""),
    ],
)
def test_bad_use(
    arguments: list[str], code: int, said: str, run_in_process, usual: Arguments, vcf: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken.vcf").write_text("precious")
    found, stderr = run_in_process(*usual, *arguments)
    assert found == code
    assert said in stderr
    assert "Traceback" not in stderr
    assert (tmp_path / "taken.vcf").read_text() == "precious"
    assert others(tmp_path, vcf, tmp_path / "taken.vcf") == []


def test_a_run_that_is_stopped_early_says_that_nothing_is_left(
    run_in_process, usual: Arguments, vcf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("genossm.variants.run.run_score_file", stop)
    code, said = run_in_process(*usual, vcf, "-o", "out.vcf")
    assert (code, said) == (
        130,
        "genossm score: stopped; no block of records was finished, so there is nothing to resume.\n",
    )


def test_a_run_with_too_few_scores_goes_on_under_another_limit(
    run_in_process, usual: Arguments, human_vcf: Path, tmp_path: Path
) -> None:
    lines = gzip.decompress(human_vcf.read_bytes()).decode().splitlines(keepends=True)
    header = [line for line in lines if line.startswith("#")]
    rows = [line.split("\t") for line in lines[len(header) : len(header) + 600]]
    for columns in rows[::9]:
        columns[3] = "N"
    (tmp_path / "in.vcf").write_text("".join(header + ["\t".join(columns) for columns in rows]))
    (tmp_path / "out.vcf").write_text("of before")
    arguments = [*usual, "in.vcf", "-o", "out.vcf", "--force"]
    code, said = run_in_process(*arguments, "--max-skip-frac", 0.05)
    assert code == 3
    assert "To go on with a larger --max-skip-frac: genossm score --resume" in said
    command = said.split("genossm score --resume ")[1].split("\n")[0].replace("0.05", "0.5")
    code, said = run_in_process("--resume", *shlex.split(command))
    assert (code, "512 records were finished before" in said) == (0, True), said
    run_in_process(*usual, "in.vcf", "-o", "again.vcf")
    assert (tmp_path / "out.vcf").read_bytes() == (tmp_path / "again.vcf").read_bytes()


def test_neither_or_both_inputs(run_in_process, usual: Arguments, vcf: Path) -> None:
    assert run_in_process(*usual)[0] == 2
    assert run_in_process(*usual, vcf, "--variant", "20:5:A>C")[0] == 2
    assert run_in_process(*usual, "--variant", "20:5:A>C", "-o", "out.vcf")[0] == 2


def test_window_that_does_not_fit_in_memory(
    run_in_process, usual: Arguments, vcf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genossm.models import memory

    monkeypatch.setattr(memory, "_SMALL", 0)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)  # noqa: ARG005
    code, stderr = run_in_process(*usual, vcf, "-o", "out.vcf")
    assert code == 1
    assert "GB" in stderr
    assert others(tmp_path, vcf) == []

"""What a run says of itself while it lasts: as far as it knows, and never more than there is."""

from __future__ import annotations

import gzip
import os
import pty
import subprocess
import sys
from pathlib import Path

import pysam
import pysam.bcftools
import pytest

import genossm.genome
from genossm.cli.scoring import progress_text
from genossm.models import SequenceModel
from genossm.variants import FilePolicy, ScoringOptions, files, score_file
from genossm.variants.job import Progress
from genossm.variants.totals import count_records


@pytest.mark.parametrize(
    ("done", "total", "before", "seconds", "said"),
    [
        (0, None, 0, 0.0, "0 records"),
        (1500, None, 0, 10.0, "1,500 records, 150/s"),
        (1500, 24_990, 0, 10.0, "1,500 of 24,990 records, 150/s, 0:02:37 left"),
        # What was done before says nothing of the speed.
        (1500, 3000, 1400, 10.0, "1,500 of 3,000 records, 10/s, 0:02:30 left"),
        (1400, 3000, 1400, 10.0, "1,400 of 3,000 records"),
        (3, 4, 0, 60.0, "3 of 4 records, 0.05/s, 0:00:20 left"),
    ],
)
def test_rate_and_time_left(done: float, total: int | None, before: int, seconds: float, said: str) -> None:
    assert progress_text("records", done, total, before, seconds) == said


def test_records_are_counted_where_that_is_cheap(human_vcf: Path, tmp_path: Path) -> None:
    assert count_records(human_vcf) == 24_990
    text = gzip.decompress(human_vcf.read_bytes())
    plain = tmp_path / "plain.vcf"
    plain.write_bytes(b"".join(text.splitlines(keepends=True)[:100]))
    expected = 100 - sum(line.startswith(b"#") for line in text.splitlines()[:100])
    assert count_records(plain) == expected > 80
    without_end = tmp_path / "without_end.vcf"
    without_end.write_bytes(plain.read_bytes().rstrip(b"\n"))
    assert count_records(without_end) == expected
    packed, bcf = tmp_path / "packed.vcf.gz", tmp_path / "x.bcf"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert count_records(packed) == expected
    pysam.bcftools.view("--no-version", "-Ob", "-o", str(bcf), str(plain), catch_stdout=False)
    assert count_records(bcf) is None
    pysam.bcftools.index(str(bcf))
    assert count_records(bcf) == expected
    header = tmp_path / "header.vcf"
    header.write_bytes(b"".join(line for line in plain.read_bytes().splitlines(keepends=True) if line[:1] == b"#"))
    assert count_records(header) == 0


def test_what_cannot_be_counted_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "cut.vcf.gz").write_bytes(gzip.compress(b"##fileformat=VCFv4.2\n" + os.urandom(5000))[:2000])
    (tmp_path / "empty.vcf").write_bytes(b"")
    (tmp_path / "wrong.vcf.gz").write_bytes(b"\x1f\x8bnothing")
    (tmp_path / "wrong.vcf.gz.tbi").write_bytes(b"nothing")
    for name in ("cut.vcf.gz", "empty.vcf", "wrong.vcf.gz", "absent.vcf", "-"):
        assert count_records(name if name == "-" else tmp_path / name) is None


def test_progress_grows_to_the_number_of_records(
    model: SequenceModel, human_fasta: Path, human_vcf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "block_records", lambda *_: 16)
    source = tmp_path / "in.vcf"
    source.write_bytes(b"".join(gzip.decompress(human_vcf.read_bytes()).splitlines(keepends=True)[:100]))
    seen: list[Progress] = []
    with genossm.genome.open(human_fasta) as genome:
        options = ScoringOptions(context=64, horizon=8)
        summary = score_file(
            model, genome, source, tmp_path / "out.vcf", options, FilePolicy(), command="", progress=seen.append
        )
    done = [one.records for one in seen]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == summary.records == seen[-1].total
    assert all(one.records <= summary.records for one in seen)


def test_a_bar_on_a_terminal(human_fasta: Path, human_vcf: Path, model_dir: Path, tmp_path: Path) -> None:
    """That there is none elsewhere, tests of the command show, which read one line."""
    ours, theirs = pty.openpty()
    arguments = ["-f", human_fasta, "-m", model_dir, "--context", 64, "--horizon", 8, human_vcf, "-o", "out.vcf"]
    arguments += ["--shard", "1/90"]
    program = Path(sys.executable).with_name("genossm")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [program, "score", *map(str, arguments)], cwd=tmp_path, stderr=theirs, stdout=subprocess.PIPE, env=environment
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 1 << 16):
                said += piece
        except OSError:
            # How a terminal ends.
            pass
        os.close(ours)
        assert process.stdout
        assert process.stdout.read() == b""
    assert process.returncode == 0, said
    assert b" of 256 records" in said
    assert b"genossm score: 256 records, " in said

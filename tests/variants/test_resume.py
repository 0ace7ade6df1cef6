"""A run that was stopped, at whatever moment, goes on to the very files of a run that nothing stopped."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import genossm.genome
from genossm.core.errors import GenossmError, InputFileError, OutputError, OutputExistsError, ResumeError, UsageError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.variants import FilePolicy, ScoringOptions, Summary, files, score_file
from genossm.variants.job import Progress
from genossm.variants.journal import journal_path, read_journal
from genossm.variants.scorer import Scorer
from genossm.variants.shards import Shard

OPTIONS = ScoringOptions(context=64, horizon=8)
BLOCK = 16
# More by hand: GENOSSM_KILLS=50 pytest tests/variants/test_resume.py
KILLS = int(os.environ.get("GENOSSM_KILLS", "3"))


@pytest.fixture(scope="module")
def chromosome(human_fasta: Path) -> Iterator[Genome]:
    with genossm.genome.open(human_fasta) as opened:
        yield opened


@pytest.fixture
def vcf(human_vcf: Path, tmp_path: Path) -> Path:
    """112 records of the example file, one in seven with a REF that differs from the reference."""
    lines = gzip.decompress(human_vcf.read_bytes()).decode().splitlines(keepends=True)
    header = [line for line in lines if line.startswith("#")]
    records = [line.split("\t") for line in lines[len(header) : len(header) + 7 * BLOCK]]
    for columns in records[3::7]:
        columns[3], columns[4] = ("A", "C") if columns[3][0] != "A" else ("G", "T")
    path = tmp_path / "in.vcf"
    path.write_text("".join(header + ["\t".join(columns) for columns in records]))
    return path


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "block_records", lambda *_: BLOCK)


class Stopped(Exception):  # noqa: N818
    """What ends a run."""


def run(
    model: SequenceModel,
    genome: Genome,
    vcf: Path,
    target: Path,
    *,
    stop_after: float | None = None,
    options: ScoringOptions = OPTIONS,
    **policy: object,
) -> Summary:
    """Score; after so many records, if it is said how many, the run is stopped from outside."""

    def progress(now: Progress) -> None:
        if stop_after is not None and now.records > stop_after:
            raise Stopped

    chosen = FilePolicy(**policy)  # type: ignore[arg-type]
    return score_file(model, genome, vcf, target, options, chosen, command="genossm score", progress=progress)


def stop(model: SequenceModel, genome: Genome, vcf: Path, target: Path, after: float, **policy: object) -> None:
    with pytest.raises(Stopped):
        run(model, genome, vcf, target, stop_after=after, **policy)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_every_file_is_that_of_an_undisturbed_run(
    model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    for folder in (whole, again):
        folder.mkdir()
    policies = [
        {
            "check_ref": "x",
            "skipped": folder / f"skipped{suffix}",
            "summary": folder / "summary.json",
            "tsv": folder / "out.tsv.gz",
            "parquet": folder / "out.parquet",
        }
        for folder in (whole, again)
    ]
    undisturbed = run(model, chromosome, vcf, whole / f"out{suffix}", **policies[0])
    asked = count_calls(monkeypatch)
    for number, after in enumerate((40, 40, 90)):
        stop(model, chromosome, vcf, again / f"out{suffix}", after, resume=number > 0, **policies[1])
        assert [path.name for path in again.iterdir()] == [f"out{suffix}.journal"]
    resumed = run(model, chromosome, vcf, again / f"out{suffix}", resume=True, **policies[1])
    # Blocks 0 to 6: each finished once; blocks 2, 2 and 5 were begun and lost.
    assert asked == [0, 1, 2, 2, 2, 3, 4, 5, 5, 6]
    assert (resumed.resumed, undisturbed.resumed) == (5 * BLOCK, 0)
    assert resumed.statuses == undisturbed.statuses
    assert resumed.moved == undisturbed.moved == BLOCK
    expected, found = contents(whole), contents(again)
    for one in (expected, found):
        summary = json.loads(one.pop("summary.json"))
        assert summary["records"] == 7 * BLOCK
    assert found == expected
    assert len(found) == (4 if suffix == ".vcf" else 6)


def test_what_is_measured_on_haplotypes_does_not_depend_on_interruptions(
    model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path
) -> None:
    whole = run(model, chromosome, vcf, tmp_path / "whole.vcf", haplotypes="HG00096")
    for number, after in enumerate((20, 60)):
        stop(model, chromosome, vcf, tmp_path / "again.vcf", after, resume=number > 0, haplotypes="HG00096")
    again = run(model, chromosome, vcf, tmp_path / "again.vcf", resume=True, haplotypes="HG00096")
    assert whole.measured["llr"]["alleles"] > 5
    assert again.measured == whole.measured
    assert (tmp_path / "again.vcf").read_bytes() == (tmp_path / "whole.vcf").read_bytes()


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the blocks that are scored, as they are begun."""
    asked: list[int] = []
    real, first = Scorer.score, {}

    def score(self: Scorer, located, progress=None):  # type: ignore[no-untyped-def]
        first.setdefault(str(located[0].variant), len(first))
        asked.append(first[str(located[0].variant)])
        return real(self, located, progress)

    monkeypatch.setattr(Scorer, "score", score)
    return asked


def test_pieces_are_resumed_on_their_own(model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path) -> None:
    piece = Shard(2, 2)
    run(model, chromosome, vcf, tmp_path / "whole.vcf", shard=piece)
    stop(model, chromosome, vcf, tmp_path / "again.vcf", 30, shard=piece)
    with pytest.raises(ResumeError, match="shard was 2/2, is 1/2"):
        run(model, chromosome, vcf, tmp_path / "again.vcf", shard=Shard(1, 2), resume=True)
    run(model, chromosome, vcf, tmp_path / "again.vcf", shard=piece, resume=True)
    assert (tmp_path / "again.vcf").read_bytes() == (tmp_path / "whole.vcf").read_bytes()


def changed_record(vcf: Path, number: int) -> None:
    lines = vcf.read_text().splitlines(keepends=True)
    first = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    columns = lines[first + number].split("\t")
    columns[5] = "77"
    lines[first + number] = "\t".join(columns)
    vcf.write_text("".join(lines))


def test_another_input_is_refused_where_scores_depend_on_it(
    model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.vcf"
    stop(model, chromosome, vcf, target, 40)
    text = vcf.read_text()
    changed_record(vcf, 20)
    with pytest.raises(ResumeError, match="block 2 of the input"):
        run(model, chromosome, vcf, target, resume=True)
    vcf.write_text("".join(text.splitlines(keepends=True)[: -6 * BLOCK]))
    with pytest.raises(ResumeError, match="become shorter"):
        run(model, chromosome, vcf, target, resume=True)
    vcf.write_text(text.replace("#CHROM", "##note=1\n#CHROM"))
    with pytest.raises(ResumeError, match="header of the input was"):
        run(model, chromosome, vcf, target, resume=True)
    # What was not scored yet may be mended.
    vcf.write_text(text)
    changed_record(vcf, 70)
    run(model, chromosome, vcf, target, resume=True)
    run(model, chromosome, vcf, tmp_path / "whole.vcf")
    assert target.read_bytes() == (tmp_path / "whole.vcf").read_bytes()


def test_a_malformed_line_far_down_loses_nothing(
    model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path
) -> None:
    target, text = tmp_path / "out.vcf", vcf.read_text()
    lines = text.splitlines(keepends=True)
    lines[-3] = lines[-3].replace("\t", " ", 1)
    vcf.write_text("".join(lines))
    with pytest.raises(InputFileError, match=f"line {len(lines) - 2} is malformed"):
        run(model, chromosome, vcf, target)
    vcf.write_text(text)
    assert run(model, chromosome, vcf, target, resume=True).resumed == 6 * BLOCK


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": ScoringOptions(context=128, horizon=8)}, "context was 64, is 128"),
        ({"options": ScoringOptions(context=64, horizon=9)}, "horizon was 8, is 9"),
        ({"options": ScoringOptions(context=64, horizon=8, both_strands=True)}, "strands was"),
        ({"options": ScoringOptions(context=64, horizon=8, methods=("llr", "embedding"))}, "method was llr"),
    ],
)
def test_other_options_are_refused(
    model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path, changes: dict[str, ScoringOptions], said: str
) -> None:
    stop(model, chromosome, vcf, tmp_path / "out.vcf", 40)
    with pytest.raises(ResumeError, match=said):
        run(model, chromosome, vcf, tmp_path / "out.vcf", resume=True, **changes)  # type: ignore[arg-type]


def test_another_model_is_refused(
    model: SequenceModel, model_without_bos: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path
) -> None:
    stop(model, chromosome, vcf, tmp_path / "out.vcf", 40)
    with pytest.raises(ResumeError, match="model was sha256:"):
        run(model_without_bos, chromosome, vcf, tmp_path / "out.vcf", resume=True)


def test_a_limit_that_was_too_strict_can_be_loosened(
    model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path
) -> None:
    """Scores do not depend on it, so that nothing is scored again."""
    with pytest.raises(GenossmError, match="max-skip-frac"):
        run(model, chromosome, vcf, tmp_path / "out.vcf", max_skip_frac=0.0)
    summary = run(model, chromosome, vcf, tmp_path / "out.vcf", max_skip_frac=0.5, resume=True)
    assert summary.resumed == summary.records


def test_nothing_to_go_on_from_is_a_beginning(
    model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path
) -> None:
    run(model, chromosome, vcf, tmp_path / "whole.vcf")
    summary = run(model, chromosome, vcf, tmp_path / "out.vcf", resume=True)
    assert summary.resumed == 0
    assert (tmp_path / "out.vcf").read_bytes() == (tmp_path / "whole.vcf").read_bytes()


def test_streams_cannot_be_resumed(model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path) -> None:
    for source, target in ((Path("-"), tmp_path / "out.vcf"), (vcf, Path("-"))):
        with pytest.raises(UsageError, match="standard input can be read once"):
            run(model, chromosome, vcf if source == vcf else source, target, resume=True)


@pytest.mark.parametrize(("sample", "kills"), [("-", KILLS), ("HG00096", 1 + KILLS // 3)])
def test_processes_killed_at_any_moment(
    sample: str, kills: int, vcf: Path, human_fasta: Path, model_dir: Path, tmp_path: Path
) -> None:
    """Each is killed at a call that changes a file, or at a time; resumed and killed again; resumed to the end."""
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    suffix = rng.choice([".vcf", ".vcf.gz", ".bcf"])
    calls = [f"call:{rng.uniform(0, 1):.3f}" for _ in range(kills)]
    times = [f"time:{rng.uniform(0.02, 1):.3f}" for _ in range(kills)]
    home = tmp_path / "runs"
    home.mkdir()
    program = Path(__file__).with_name("kill_runs.py")
    command = [sys.executable, program, home, human_fasta, model_dir, vcf, suffix, sample, *calls, *times]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=one_thread())
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["moment"] for one in found] == [*calls, *times]
    for one in found:
        # 3: all files were in place already, and the journal gone.
        assert one["codes"][-1] in (0, 3), f"seed {seed}, {suffix}: {one}\n{done.stderr}"
        assert one["differing"] == [], f"seed {seed}, {suffix}: {one}"
    assert all(one["codes"][0] == -signal.SIGKILL for one in found if one["moment"] in calls)


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_resumable_state_and_says_how_to_go_on(
    number: signal.Signals, code: int, human_vcf: Path, human_fasta: Path, model_dir: Path, tmp_path: Path
) -> None:
    program = str(Path(sys.executable).with_name("genossm"))
    arguments = ["-f", human_fasta, "-m", model_dir, "--context", 64, human_vcf, "-o", "my out.vcf"]
    if number == signal.SIGTERM:
        arguments.append("--force")
    with subprocess.Popen(
        [program, "score", *map(str, arguments)],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=one_thread(),
        # A shell starts what runs in the background with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:  # fmt: skip
        target = tmp_path / "my out.vcf"
        while process.poll() is None and not ((left := read_journal(target)) and left.blocks):
            time.sleep(0.05)
        process.send_signal(number)
        assert process.stderr
        said = process.stderr.read().splitlines()
    assert process.returncode == code
    assert [path.name for path in tmp_path.iterdir()] == ["my out.vcf.journal"]
    left = read_journal(target)
    assert left is not None
    command = [line for line in said if "records are finished" in line]
    assert len(command) == 1, said
    assert command[0].startswith(
        f"genossm score: {left.records:,} records are finished. To go on: genossm score --resume "
    )
    words = shlex.split(command[0].split("To go on: ")[1])
    assert words == ["genossm", "score", "--resume", *map(str, arguments)]
    assert journal_path(target).stat().st_size > 100 * 8


def test_an_unfinished_run_is_not_overwritten(
    run_in_process: Callable[..., tuple[int, str]],
    model: SequenceModel,
    chromosome: Genome,
    vcf: Path,
    tmp_path: Path,
    human_fasta: Path,
    model_dir: Path,
) -> None:
    stop(model, chromosome, vcf, tmp_path / "out.vcf", 40)
    arguments = ["-f", human_fasta, "-m", model_dir, "--context", 64, "--horizon", 8, "in.vcf", "-o", "out.vcf"]
    code, said = run_in_process(*arguments)
    assert code == 1
    assert "32 finished records of an interrupted run. Pass --resume to go on, or --force to start anew." in said
    with pytest.raises(OutputExistsError):
        run(model, chromosome, vcf, tmp_path / "out.vcf")
    assert run_in_process(*arguments, "--force")[0] == 0
    assert not journal_path(tmp_path / "out.vcf").exists()


def test_a_command_that_is_refused_is_not_said_to_go_on(
    run_in_process: Callable[..., tuple[int, str]],
    model: SequenceModel,
    chromosome: Genome,
    vcf: Path,
    tmp_path: Path,
    human_fasta: Path,
    model_dir: Path,
) -> None:
    """Only a run that another try may bring further is told how to."""
    stop(model, chromosome, vcf, tmp_path / "out.vcf", 40)
    usual = ["-f", human_fasta, "-m", model_dir, "--horizon", 8, "in.vcf", "-o", "out.vcf"]
    (tmp_path / "taken.tsv").write_text("mine")
    with open(journal_path(tmp_path / "out.vcf"), "rb") as held:
        for arguments, said in (
            (["--context", 128, "--resume"], "is of another run"),
            (["--context", 64], "finished records of an interrupted run"),
            (["--context", 64, "--resume", "--tsv", "taken.tsv"], "taken.tsv exists already"),
            (["--context", 64, "--resume", "--tsv", "out.vcf"], "Two outputs are both"),
            (["--context", 64, "--resume"], "is writing out.vcf"),
        ):
            if "is writing" in said:
                fcntl.flock(held, fcntl.LOCK_EX)
            code, stderr = run_in_process(*usual, *arguments)
            assert code > 0
            assert said in stderr
            assert "To go on" not in stderr


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_a_full_disk_is_said_and_nothing_is_lost(
    model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path, suffix: str
) -> None:
    """A limit on the size of a file stands for a disk that is full."""
    whole, target = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    run(model, chromosome, vcf, whole)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(4000, whole.stat().st_size // 2), hard))
    try:
        with pytest.raises(OutputError, match=r"Cannot write .*out.*: File too large"):
            run(model, chromosome, vcf, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    left = read_journal(target)
    assert left is not None
    assert left.blocks > 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp-") or path == target]
    run(model, chromosome, vcf, target, resume=True)
    assert target.read_bytes() == whole.read_bytes()

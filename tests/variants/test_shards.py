"""Pieces of a file, scored apart and joined, are the file scored whole, byte for byte."""

from __future__ import annotations

import gzip
import random
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

import genossm.genome
from genossm.core.errors import ContigNotFoundError, InputFileError, OutputExistsError, UsageError, WrongAssemblyError
from genossm.genome import Genome
from genossm.models import SequenceModel
from genossm.variants import FilePolicy, ScoringOptions, files, score_file
from genossm.variants.regions import Regions
from genossm.variants.shards import Shard, merge

Run = Callable[..., subprocess.CompletedProcess[str]]
OPTIONS = ScoringOptions(context=64, horizon=8)


@pytest.fixture(scope="module")
def chromosome(human_fasta: Path) -> Iterator[Genome]:
    with genossm.genome.open(human_fasta) as opened:
        yield opened


@pytest.fixture
def vcf(human_vcf: Path, tmp_path: Path) -> Path:
    """Some hundred records of the example file."""
    path = tmp_path / "in.vcf"
    path.write_text("".join(gzip.decompress(human_vcf.read_bytes()).decode().splitlines(keepends=True)[:140]))
    return path


def run(model: SequenceModel, genome: Genome, vcf: Path, target: Path, **policy: object) -> None:
    chosen = FilePolicy(**policy)  # type: ignore[arg-type]
    regions = Regions(genome, chosen.regions) if chosen.regions else None
    score_file(model, genome, vcf, target, OPTIONS, chosen, command="genossm score", regions=regions)


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_joined_pieces_are_the_whole_file(
    model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    count: int, suffix: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(files, "block_records", lambda *_: 16)
    regions = ("20:1,000,001-1,012,000",) if count == 3 else ()
    run(model, chromosome, vcf, tmp_path / f"whole{suffix}", regions=regions)
    pieces = [tmp_path / f"piece{number}{suffix}" for number in range(1, count + 1)]
    for number, piece in enumerate(pieces, start=1):
        run(model, chromosome, vcf, piece, shard=Shard(number, count), regions=regions)
    random.Random(count).shuffle(pieces)
    joined = tmp_path / f"joined{suffix}"
    records = merge(pieces, joined)
    assert joined.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    with pysam.VariantFile(str(joined)) as file:
        assert len(list(file)) == records > 60


@given(total=st.integers(0, 100_000), count=st.integers(1, 50), block=st.sampled_from([1, 256, 8192]))
def test_every_record_is_in_one_piece(total: int, count: int, block: int) -> None:
    edges = [Shard(number, count).records(total, block) for number in range(1, count + 1)]
    assert edges[0][0] == 0
    assert edges[-1][1] == total
    assert all(before[1] == after[0] for before, after in pairwise(edges))


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1-3", "a/b", "", "1/2/3", "-1/3"])
def test_pieces_that_do_not_exist(text: str) -> None:
    with pytest.raises(UsageError, match="wanted I/N"):
        Shard.parse(text)


def pieces_of(model: SequenceModel, chromosome: Genome, vcf: Path, folder: Path, count: int = 3) -> list[Path]:
    pieces = [folder / f"{number}.vcf" for number in range(1, count + 1)]
    for number, piece in enumerate(pieces, start=1):
        run(model, chromosome, vcf, piece, shard=Shard(number, count))
    return pieces


def test_what_does_not_belong_together(model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path) -> None:
    pieces = pieces_of(model, chromosome, vcf, tmp_path)
    out = tmp_path / "out.vcf"
    with pytest.raises(InputFileError, match=r"Piece 2 of 3 is missing"):
        merge([pieces[0], pieces[2]], out)
    with pytest.raises(InputFileError, match="are both piece 1/3"):
        merge([*pieces, pieces[0]], out)
    with pytest.raises(InputFileError, match=r"in\.vcf is no piece"):
        merge([*pieces[:2], vcf], out)
    changed = tmp_path / "changed.vcf"
    changed.write_text(pieces[2].read_text().replace("##genossm_context=64", "##genossm_context=128"))
    with pytest.raises(InputFileError, match="different headers"):
        merge([*pieces[:2], changed], out)
    other = tmp_path / "other.vcf"
    other.write_text(pieces[2].read_text().replace("shard=3/3", "shard=3/4"))
    with pytest.raises(InputFileError, match="cut into 3 and 4"):
        merge([*pieces[:2], other], out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("target", "tables", "message"),
    [
        ("1.vcf", {}, "Input and output are both"),
        ("out.vcf", {"tsv": "2.vcf"}, "Input and output are both"),
        ("-", {"parquet": "2.vcf"}, "Input and output are both"),
        ("out.vcf", {"tsv": "out.vcf"}, "Two outputs are both"),
        ("-", {"tsv": "out.table", "parquet": "out.table"}, "Two outputs are both"),
    ],
)
def test_no_piece_is_written_over(
    model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path,
    target: str, tables: dict[str, str], message: str,
) -> None:  # fmt: skip
    pieces = pieces_of(model, chromosome, vcf, tmp_path, count=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    place = target if target == "-" else tmp_path / target
    with pytest.raises(UsageError, match=message):
        merge(pieces, place, force=True, **{name: tmp_path / path for name, path in tables.items()})  # type: ignore[arg-type]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_every_output_of_a_merge_is_refused_before_it_begins(
    model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path
) -> None:
    pieces = pieces_of(model, chromosome, vcf, tmp_path, count=2)
    (tmp_path / "out.tsv").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"out\.tsv exists already"):
        merge(pieces, tmp_path / "out.vcf", tsv=tmp_path / "out.tsv")
    assert not (tmp_path / "out.vcf").exists()
    assert (tmp_path / "out.tsv").read_text() == "mine"


def test_every_piece_judges_the_whole_file(model: SequenceModel, chromosome: Genome, vcf: Path, tmp_path: Path) -> None:
    """An empty piece of a file that stands on another assembly is no success."""
    lines = [line.split("\t") for line in vcf.read_text().splitlines()]
    moved = [line if line[0].startswith("#") else [line[0], str(int(line[1]) + 12), *line[2:]] for line in lines]
    vcf.write_text("\n".join("\t".join(line) for line in moved) + "\n")
    with pytest.raises(WrongAssemblyError):
        run(model, chromosome, vcf, tmp_path / "out.vcf", shard=Shard(1, 5))
    elsewhere = [line if line[0].startswith("#") else ["7", *line[1:]] for line in lines]
    vcf.write_text("\n".join("\t".join(line) for line in elsewhere) + "\n")
    with pytest.raises(ContigNotFoundError, match="which has 20"):
        run(model, chromosome, vcf, tmp_path / "out.vcf", shard=Shard(1, 5))
    assert not (tmp_path / "out.vcf").exists()


def test_the_commands(run_score: Run, human_fasta: Path, model_dir: Path, vcf: Path) -> None:
    usual = ["-f", human_fasta, "-m", model_dir, "--context", 64, "--horizon", 8]
    whole = run_score(*usual, "in.vcf")
    for number in (1, 2):
        assert run_score(*usual, "--shard", f"{number}/2", "in.vcf", "-o", f"{number}.vcf.gz").returncode == 0
    done = run_score("merge", "2.vcf.gz", "1.vcf.gz")
    assert done.stdout == whole.stdout
    assert done.stderr.startswith("genossm score merge: ")
    for arguments, message in (
        (["--shard", "3/2", "in.vcf"], "does not exist"),
        (["--shard", "1/2", "-"], "Pass a file"),
        (["--shard", "1/2", "--variant", "20:5:A>C"], "go with a VCF"),
    ):
        refused = run_score(*usual, *arguments, stdin=vcf.read_bytes())
        assert (refused.returncode, refused.stdout) == (2, "")
        assert message in refused.stderr
    assert run_score("merge").returncode == 2

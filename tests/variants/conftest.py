"""Small models with life in them, genomes in memory, and the command as a user calls it."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pysam
import pytest
import torch

import genossm
from genossm.genome import Genome
from genossm.models import SequenceModel, StackConfig
from genossm.sequence import NucleotideTokenizer, Variant
from genossm.testing.models import enliven

MakeGenome = Callable[..., Genome]
RunScore = Callable[..., subprocess.CompletedProcess[str]]
SLICE_START, SLICE_LENGTH = 1_200_000, 100_000


class MemorySource:
    """Contigs in memory, for genomes that a test makes up by the hundred."""

    kind = "memory"
    path = Path("memory.fa")
    aliases: Mapping[str, str] = {}
    circular: frozenset[str] = frozenset()

    def __init__(self, contigs: Mapping[str, bytes]) -> None:
        self._contigs = dict(contigs)

    @property
    def lengths(self) -> Mapping[str, int]:
        return {name: len(letters) for name, letters in self._contigs.items()}

    def read_into(self, contig: str, start: int, end: int, table: bytes, out: npt.NDArray[np.uint8]) -> None:
        out[:] = np.frombuffer(self._contigs[contig][start:end].translate(table), dtype=np.uint8)

    def digest(self, contig: str) -> str:
        return contig

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and wait for it where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build_model(*, bos: bool) -> SequenceModel:
    torch.manual_seed(3)
    tokenizer = NucleotideTokenizer(special_tokens="bos" if bos else "sep")
    return enliven(SequenceModel(StackConfig(d_model=8, n_layer=2), tokenizer)).eval()


def build_masked_model(*, equivariant: bool) -> SequenceModel:
    torch.manual_seed(3)
    config = StackConfig(
        d_model=16 if equivariant else 8,
        n_layer=2,
        direction="bidirectional",
        objective="masked",
        reverse_complement="equivariant" if equivariant else "none",
    )
    return enliven(SequenceModel(config)).eval()


@pytest.fixture(scope="session")
def model() -> SequenceModel:
    return build_model(bos=True)


@pytest.fixture(scope="session")
def model_without_bos() -> SequenceModel:
    return build_model(bos=False)


@pytest.fixture(scope="session")
def masked_model() -> SequenceModel:
    """Reads both ways, and the two strands differently."""
    return build_masked_model(equivariant=False)


@pytest.fixture(scope="session")
def equivariant_model() -> SequenceModel:
    return build_masked_model(equivariant=True)


@pytest.fixture(scope="session", params=["caduceus_ph", "caduceus_ps", "caduceus_ps_fused"])
def caduceus(request: pytest.FixtureRequest) -> SequenceModel:
    """Other authors' weights, tiny but real."""
    return genossm.load(Path(__file__).parents[1] / "fixtures" / "golden" / request.param)


@pytest.fixture(scope="session")
def make_genome() -> MakeGenome:
    def make(contigs: Mapping[str, bytes | str], circular: Collection[str] = ()) -> Genome:
        encoded = {name: s.encode() if isinstance(s, str) else s for name, s in contigs.items()}
        return Genome(MemorySource(encoded), circular=circular)

    return make


@pytest.fixture(scope="session")
def human_genome(human_slice: bytes, make_genome: MakeGenome) -> Genome:
    """100,000 bases of human sequence as contig "20"; its base 1 is base 1,200,001 of the chromosome."""
    return make_genome({"20": human_slice})


@pytest.fixture(scope="session")
def human_variants(human_vcf: Path) -> tuple[list[Variant], list[Variant]]:
    """Substitutions of one base, and all other changes, of the example file that lie in `human_genome`."""
    with pysam.VariantFile(str(human_vcf)) as file:
        records = file.fetch("20", SLICE_START, SLICE_START + SLICE_LENGTH - 100)
        found = [Variant("20", r.pos - SLICE_START, r.ref or "", alt) for r in records for alt in r.alts or ()]
    return [one for one in found if one.is_snv], [one for one in found if not one.is_snv]


@pytest.fixture(scope="session")
def real_haplotypes(human_vcf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 Genomes on the first 60,000 bases of `human_genome`, with the genotypes of four samples."""
    path = tmp_path_factory.mktemp("real") / "in.vcf"
    lines = []
    for line in gzip.decompress(human_vcf.read_bytes()).decode().splitlines(keepends=True):
        if line.startswith("#"):
            lines.append(line)
            continue
        columns = line.split("\t")
        columns[1] = str(int(columns[1]) - SLICE_START)
        if 0 < int(columns[1]) <= 60_000 - 100:
            lines.append("\t".join(columns))
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="session")
def model_dir(model: SequenceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save_pretrained(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def equivariant_dir(equivariant_model: SequenceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return equivariant_model.save_pretrained(tmp_path_factory.mktemp("models") / "equivariant")


@pytest.fixture
def run_score(tmp_path: Path) -> RunScore:
    """`genossm score` as installed beside this interpreter, in an empty folder."""

    def run(*arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("genossm")
        command = [program, "score", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, input=stdin, cwd=tmp_path, env=environment)
        # Bytes in, text out: a VCF on standard output is ASCII here.
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def run_in_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """`genossm score` in this process: exit code and stderr. Quicker, where the installed command adds nothing."""
    from genossm.cli.main import run

    monkeypatch.chdir(tmp_path)

    def score(*arguments: object) -> tuple[int, str]:
        try:
            run(["score", *map(str, arguments)])
        except SystemExit as stop:
            return int(stop.code or 0), capfd.readouterr().err
        return 0, capfd.readouterr().err

    return score

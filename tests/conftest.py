"""What all tests share: no network, a cache of their own, the shipped example data."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pysam
import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

# Two shared cores make single examples slow now and then, which is no failure of the code. More examples by hand, as in
# GENOSSM_EXAMPLES=500 pytest tests/sequence: every run here draws others, so that many runs see many.
EXAMPLES = int(os.environ.get("GENOSSM_EXAMPLES", "30"))
settings.register_profile("genossm", deadline=None, max_examples=EXAMPLES, print_blob=True)
settings.load_profile("genossm")

DATA = Path(__file__).parent.parent / "data"
_LOCAL = ("127.", "::1", "localhost")
_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex


class NetworkUseError(RuntimeError):
    """A test that reached for the network; no OSError, which libraries would catch and hide."""


class _GuardedSocket(socket.socket):
    def connect(self, address: object) -> None:
        self._require_local(address)
        return _connect(self, address)

    def connect_ex(self, address: object) -> int:
        self._require_local(address)
        return _connect_ex(self, address)

    def _require_local(self, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if self.family != getattr(socket, "AF_UNIX", None) and not str(host).startswith(_LOCAL):
            self.close()
            raise NetworkUseError(f"A test tried to reach {address}. Tests use no network: ship a fixture instead.")


def pytest_configure() -> None:
    """Guard every socket, and keep indexes of FASTA files out of the user's own cache (subprocesses inherit it)."""
    socket.socket = _GuardedSocket  # type: ignore[misc]
    if "PYTEST_XDIST_WORKER" not in os.environ or "GENOSSM_CACHE" not in os.environ:
        cache = tempfile.TemporaryDirectory(prefix="genossm-tests-")
        os.environ["GENOSSM_CACHE"] = cache.name
        pytest_configure.cache = cache  # type: ignore[attr-defined]


def pytest_unconfigure() -> None:
    cache = getattr(pytest_configure, "cache", None)
    if cache is not None:
        cache.cleanup()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of shipped example data."""
    return DATA


@pytest.fixture(scope="session")
def human_fasta() -> Path:
    """GRCh37 chr20:1,000,001-4,000,000 as contig "20", true positions, the first megabase N; bgzip, no index."""
    return DATA / "chr20_1-4Mb.fa.gz"


@pytest.fixture(scope="session")
def human_vcf() -> Path:
    """24,990 variants of 1000 Genomes on `human_fasta`; bgzip, with .tbi."""
    return DATA / "1000g_chr20_1-4Mb.vcf.gz"


@pytest.fixture(scope="session")
def human_store(human_fasta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The genome store of `human_fasta`, built once a session. Do not write to it."""
    from genossm.genome import build

    return build(human_fasta, tmp_path_factory.mktemp("store") / "human.zarr").path


@pytest.fixture(scope="session")
def human_reference(human_fasta: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pysam.FastaFile]:
    """`human_fasta` as an outsider reads it: pysam, with indexes made by samtools."""
    folder = tmp_path_factory.mktemp("samtools-index")
    fai, gzi = str(folder / "x.fai"), str(folder / "x.gzi")
    pysam.faidx("--fai-idx", fai, "--gzi-idx", gzi, str(human_fasta))
    with pysam.FastaFile(str(human_fasta), filepath_index=fai, filepath_index_compressed=gzi) as file:
        yield file


@pytest.fixture(scope="session")
def human_slice(human_reference: pysam.FastaFile) -> bytes:
    """Bases 1,200,001-1,300,000 of `human_fasta`, upper case ACGT."""
    return human_reference.fetch("20", 1_200_000, 1_300_000).encode("ascii")

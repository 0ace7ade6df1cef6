"""The wheel as a stranger gets it: built, installed in an empty environment, used from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "data" / "chr20_1-4Mb.fa.gz"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its core requirements alone; returns its folder of programs."""
    folder = tmp_path_factory.mktemp("empty") / "env"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    programs = folder / "bin"
    install = [programs / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return programs


def run(environment: Path, *arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "HF_HUB_OFFLINE": "1"}
    variables.pop("PYTHONPATH", None)
    command = [str(environment / "genossm"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=variables)


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"genossm", "genossm_kernels"}
    assert "genossm/py.typed" in names
    suite = ("README.md", "aliases.tsv", "cases.vcf", "expected.tsv", "genossm.yaml", "reference.fa")
    assert {f"genossm/testing/conformance/{name}" for name in suite} <= set(names)
    assert "genossm_kernels/selective_scan/__init__.py" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_pretrained_models_come_along(wheel: Path, environment: Path, tmp_path: Path) -> None:
    folder = ROOT / "genossm" / "models" / "pretrained"
    files = {str(path.relative_to(ROOT)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    packed = {info.filename: info.file_size for info in zipfile.ZipFile(wheel).infolist()}
    assert {name: size for name, size in packed.items() if "/pretrained/" in name} == files
    assert sum(files.values()) < 9_000_000
    listed = run(environment, "models", folder=tmp_path)
    assert listed.returncode == 0, listed.stderr
    names = [line.split("\t")[0] for line in listed.stdout.splitlines()]
    assert names == sorted(path.name for path in folder.glob("*"))


def test_extras_are_not_needed(environment: Path) -> None:
    wanted = ("lightning", "matplotlib", "transformers")
    code = f"import importlib.util as u; print([n for n in {wanted} if u.find_spec(n)])"
    done = subprocess.run([environment / "python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_answers_in_under_a_second(environment: Path, tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = run(environment, "--help", folder=tmp_path)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0
    assert min(seconds) < 1.0


def test_one_real_score(environment: Path, tmp_path: Path) -> None:
    """The installed wheel gives the number that this checkout gives."""
    import torch

    from genossm.genome import open as open_genome
    from genossm.models import SequenceModel, StackConfig
    from genossm.sequence import Variant
    from genossm.variants import score

    torch.manual_seed(5)
    model = SequenceModel(StackConfig(d_model=32, n_layer=2)).eval()
    model.save_pretrained(tmp_path / "model")
    with open_genome(REFERENCE) as genome:
        (expected,) = score(model, genome, [Variant.parse("20:1000226:A>T")], context=2048)

    done = run(
        environment, "score", "-f", REFERENCE, "-m", "model", "--variant", "20:1000226:A>T", "--context", "2048",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    header, row = (line.split("\t") for line in done.stdout.splitlines())
    found = dict(zip(header, row, strict=True))
    assert found["GENOSSM_STATUS"] == "OK"
    assert expected.llr is not None
    assert float(found["GENOSSM_LLR"]) == pytest.approx(expected.llr, abs=1e-3)


def test_a_missing_extra_is_named(environment: Path, tmp_path: Path) -> None:
    config = ("--config", ROOT / "configs/train/demo.yaml", "--set", f"genome.path={REFERENCE}")
    done = run(environment, "train", *config, folder=tmp_path)
    assert done.returncode == 1
    assert "pip install 'genossm[train]'" in done.stderr
    assert "Traceback" not in done.stderr

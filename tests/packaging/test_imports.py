"""What importing the package costs, and that heavy libraries stay out until they are needed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = ("torch", "lightning", "transformers", "matplotlib", "pandas", "numba", "zarr", "sklearn")


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import genossm", "import genossm.cli.main", "import genossm.sequence", "import genossm.core.strict"],
)
def test_light_imports_load_nothing_heavy(statement: str) -> None:
    assert loaded_after(statement) == set()


def test_lazy_name_loads_torch_only_on_use() -> None:
    assert "torch" in loaded_after("import genossm; genossm.load")


def test_unknown_attribute_is_an_attribute_error() -> None:
    import genossm

    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = genossm.lod


def test_help_answers_in_under_a_second() -> None:
    program = Path(sys.executable).with_name("genossm")
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert "score" in done.stdout
    assert min(seconds) < 1.0


@pytest.mark.parametrize("room", ["genome"])
def test_genome_room_needs_no_torch(room: str) -> None:
    assert "torch" not in loaded_after(f"import genossm.{room}")

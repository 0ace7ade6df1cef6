"""The suite under pytest, one test an allele: `pytest --pyargs genossm.testing.conformance`.

GENOSSM_CONFORMANCE_ADAPTER names the adapter of another tool, GENOSSM_CONFORMANCE_MODEL what its `{model}` stands for.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from genossm.testing.conformance.adapter import Workplace, load_adapter
from genossm.testing.conformance.cases import MALFORMED, expectations
from genossm.testing.conformance.laws import Finding, findings

_FILE = ("file:header", "file:records", "file:fields", "file:company")
NAMES = (*(one.name for one in expectations()), *_FILE, *(f"malformed:{one.name}" for one in MALFORMED))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    """Everything that one run of the tool shows, by name."""
    named = os.environ.get("GENOSSM_CONFORMANCE_ADAPTER")
    model = os.environ.get("GENOSSM_CONFORMANCE_MODEL")
    place = Workplace(load_adapter(Path(named) if named else None), tmp_path_factory.mktemp("conformance"), model)
    return {one.name: one for one in findings(place)}


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, found: dict[str, Finding]) -> None:
    if "file:output" in found:
        pytest.fail(found["file:output"].got)
    one = found[name]
    if one.verdict == "left out":
        pytest.skip(one.got)
    assert one.verdict == "kept", f"wanted {one.wanted}, got {one.got}: {one.reason}"

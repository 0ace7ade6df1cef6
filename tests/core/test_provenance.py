from __future__ import annotations

import hashlib
import json
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from genossm.core.provenance import Provenance, command_line, file_sha256


def test_the_command_is_quoted_and_hides_where_the_program_is(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["/home/somebody/bin/genossm", "score", "my file.vcf", "-o", "a;b"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert shlex.split(command_line()) == ["genossm", *arguments[1:]]


def test_as_dict_is_json_without_empty_entries() -> None:
    written = Provenance(seed=0, reference_digest="ab", extra={"steps": 3}).as_dict()
    assert json.loads(json.dumps(written)) == written
    assert set(written) == {"command", "genossm_version", "created", "seed", "reference_digest", "extra"}
    assert written["seed"] == 0
    assert written["genossm_version"] == version("genossm")
    age = datetime.now(UTC) - datetime.fromisoformat(written["created"])
    assert 0 <= age.total_seconds() < 60


def test_file_sha256(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"ACGT" * 100_000)
    assert file_sha256(path) == hashlib.sha256(b"ACGT" * 100_000).hexdigest()

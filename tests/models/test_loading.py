"""Finding models: local paths win, and the Hub is never waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import genossm
from genossm.core.errors import InputFileError, UsageError
from genossm.models import SequenceModel

Make = Callable[..., SequenceModel]


def test_offline_and_not_cached_is_a_quick_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    start = time.perf_counter()
    with pytest.raises(InputFileError, match="no directory somebody/model, and the Hub cannot be reached"):
        genossm.load("somebody/model")
    assert time.perf_counter() - start < 20


def test_a_local_directory_wins_over_the_hub(make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("asked the Hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somebody").mkdir()
    model = make_model()
    model.save_pretrained("somebody/model")
    assert genossm.load("somebody/model").digest() == model.digest()


def test_a_hub_id_is_downloaded_without_pickles(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    cached = model.save_pretrained(tmp_path / "snapshot")
    asked = {}

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked[name] = allow_patterns
        return str(cached)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert genossm.load("somebody/model").digest() == model.digest()
    (patterns,) = asked.values()
    assert "*.safetensors" in patterns
    assert not any("bin" in pattern or "pt" in pattern for pattern in patterns)


@pytest.mark.parametrize("name", ["nothing/here/at/all", "./absent", "absent", "/absent/model", "a b/c"])
def test_a_wrong_path_is_named(name: str) -> None:
    with pytest.raises(InputFileError, match="no model directory at"):
        genossm.load(name)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputFileError, match="is a file; wanted a model directory"):
        genossm.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "'gpu' is no device; wanted cpu, cuda or cuda:N"),
        ("cuda", "cuda was asked for; this machine has 0 CUDA devices"),
        (torch.device("cuda:1"), "cuda:1 was asked for; this machine has 0 CUDA devices"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, device: str | torch.device, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match=message):
        genossm.load("human-causal-2m", device=device)

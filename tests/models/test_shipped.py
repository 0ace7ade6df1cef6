"""Models that come with the package: found by name, checked, and never confused with a directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import genossm
from genossm.cli.main import main
from genossm.core.errors import InputFileError, ModelFormatError
from genossm.core.provenance import Provenance
from genossm.models import SequenceModel, shipped, shipped_model, shipped_models
from genossm.models.directory import cast_weights

Make = Callable[..., SequenceModel]
EXTRA = {"parameters": 1, "summary": "A toy."}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation's folder of shipped models, empty, and an empty current folder."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "pretrained")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "pretrained"


def put(model: SequenceModel, folder: Path, name: str) -> SequenceModel:
    cast_weights(model, torch.bfloat16)
    folder.mkdir(exist_ok=True)
    extra = {**EXTRA, "parameters": model.num_parameters()}
    model.save_pretrained(folder / name, provenance=Provenance(extra=extra), card="# Toy\n")
    return model


def test_a_name_loads_as_float32_what_is_stored_as_bfloat16(make_model: Make, folder: Path) -> None:
    stored = put(make_model(), folder, "toy-2m")
    loaded = genossm.load("toy-2m")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for name, tensor in stored.tensors().items():
        assert torch.equal(loaded.tensors()[name], tensor.float())
    assert genossm.load("toy-2m", dtype=torch.bfloat16).digest() == stored.digest()


def test_a_directory_of_that_name_is_an_error_that_says_how_to_mean_either(make_model: Make, folder: Path) -> None:
    put(make_model(), folder, "toy-2m")
    other = make_model(d_model=8)
    other.save_pretrained("toy-2m")
    with pytest.raises(InputFileError, match=r"Write \./toy-2m"):
        genossm.load("toy-2m")
    assert genossm.load("./toy-2m").digest() == other.digest()
    assert genossm.load(Path("toy-2m").resolve()).digest() == other.digest()


def test_a_changed_weight_is_found(make_model: Make, folder: Path) -> None:
    put(make_model(), folder, "toy-2m")
    weights = folder / "toy-2m" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelFormatError, match="contradicts itself"):
        genossm.load("toy-2m")


def test_a_misspelt_name_is_corrected(make_model: Make, folder: Path) -> None:
    put(make_model(), folder, "human-toy-2m")
    with pytest.raises(InputFileError, match="Did you mean the shipped model 'human-toy-2m'"):
        genossm.load("human-toy2m")
    with pytest.raises(InputFileError, match="Did you mean 'human-toy-2m'"):
        shipped_model("human-toy")


def test_the_command_lists_names_and_prints_cards(make_model: Make, folder: Path) -> None:
    one = put(make_model(), folder, "b-model")
    put(make_model(direction="bidirectional", objective="masked"), folder, "a-model")
    listed = CliRunner().invoke(main, ["models"]).stdout.splitlines()
    assert [line.split("\t")[:2] for line in listed] == [["a-model", "masked"], ["b-model", "causal"]]
    assert listed[1].split("\t")[2] == str(one.num_parameters())
    assert CliRunner().invoke(main, ["models", "card", "b-model"]).stdout == "# Toy\n"
    assert shipped_models()[1].digest == one.digest()


def test_a_directory_without_its_record_is_named(make_model: Make, folder: Path) -> None:
    put(make_model(), folder, "toy")
    record = folder / "toy" / "provenance.json"
    content = json.loads(record.read_text())
    del content["extra"]["summary"]
    record.write_text(json.dumps(content))
    with pytest.raises(ModelFormatError, match="toy is damaged"):
        shipped_model("toy")


@pytest.mark.parametrize("name", shipped.shipped_names())
def test_what_ships_is_whole(name: str) -> None:
    entry = shipped_model(name)
    model = genossm.load(name)
    assert model.num_parameters() == entry.parameters
    assert model.objective == entry.objective
    assert f'genossm.load("{name}")' in entry.card

"""Caduceus' files: both kinds, tied and untied, their traps, and the way back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import genossm
from genossm.core.errors import ConfigError, GenossmError, ModelFormatError, OutputExistsError
from genossm.models import SequenceModel, StackConfig, convert, export_checkpoint
from genossm.testing.models import enliven

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
FIXTURES = ["caduceus_ph", "caduceus_ph_fused", "caduceus_ps", "caduceus_ps_fused"]
Source = Callable[[str], Path]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    def copy(name: str) -> Path:
        target = tmp_path / name
        target.mkdir()
        for file in ("config.json", "model.safetensors"):
            shutil.copy(GOLDEN / name / file, target / file)
        return target

    return copy


def edit_config(directory: Path, **changes: object) -> Path:
    content = json.loads((directory / "config.json").read_text())
    content.update(changes)
    (directory / "config.json").write_text(json.dumps(content))
    return directory


def edit_weights(directory: Path, change: Callable[[dict], object]) -> Path:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    return directory


def logits(directory: Path, name: str) -> torch.Tensor:
    with torch.no_grad():
        return genossm.load(directory)(load_file(GOLDEN / name / "io.safetensors")["input_ids"]).logits


@pytest.mark.parametrize("name", FIXTURES)
def test_what_the_configuration_becomes(name: str) -> None:
    model = genossm.load(GOLDEN / name)
    shared = "_ps" in name
    assert model.objective == "masked"
    assert model.config.direction == "bidirectional"
    assert model.config.d_model == (64 if shared else 32)
    assert model.config.strand_exchange == (name == "caduceus_ps_fused")
    assert not model.begins_with_bos
    assert not model.config.residual_in_fp32


@pytest.mark.parametrize("name", FIXTURES)
def test_export_back_is_bit_equal(tmp_path: Path, name: str) -> None:
    model = convert(GOLDEN / name, tmp_path / "ours")
    export_checkpoint(genossm.load(tmp_path / "ours"), tmp_path / "theirs")
    ours, theirs = load_file(tmp_path / "theirs" / "model.safetensors"), load_file(GOLDEN / name / "model.safetensors")
    copies = ("mamba_rev.in_proj.weight", "mamba_rev.out_proj.weight", "lm_head.weight")
    tied = {key for key in theirs if key.endswith(copies)}
    assert set(ours) == set(theirs) - tied
    assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours)
    again = genossm.load(tmp_path / "theirs")
    assert again.digest() == model.digest()
    written = json.loads((tmp_path / "theirs" / "config.json").read_text())
    original = json.loads((GOLDEN / name / "config.json").read_text())
    read_differently = {"torch_dtype", "transformers_version", "complement_map", "ssm_cfg"}
    if "_ph" in name:  # without strand sharing both norms are the same function
        read_differently.add("fused_add_norm")
    for key in set(original) - read_differently:
        assert written[key] == original[key], key
    assert written["ssm_cfg"] == original["ssm_cfg"]
    assert {int(k): v for k, v in written["complement_map"].items()} == {
        int(k): v for k, v in original["complement_map"].items()
    }


@pytest.mark.parametrize("choices", [{"tie_directions": False}, {"tie_embeddings": False, "norm": "layer"},
                                     {"proj_bias": True, "conv_bias": False}])  # fmt: skip
@pytest.mark.parametrize("equivariant", [False, True])
def test_forms_without_a_fixture_survive_the_round_trip(tmp_path: Path, choices: dict, equivariant: bool) -> None:
    strands = "equivariant" if equivariant else "none"
    config = StackConfig(12, 2, direction="bidirectional", objective="masked", reverse_complement=strands, **choices)
    model = enliven(SequenceModel(config), 3).eval()
    export_checkpoint(model, tmp_path / "theirs")
    assert genossm.load(tmp_path / "theirs").digest() == model.digest()


@pytest.mark.parametrize("name", FIXTURES)
def test_tied_tensors_may_stand_in_the_file_or_not(source: Source, name: str) -> None:
    directory = source(name)
    expected = logits(directory, name)

    def change(tensors: dict, factor: float) -> None:
        for key in [key for key in tensors if ".mamba_fwd.in_proj." in key or ".mamba_fwd.out_proj." in key]:
            tensors[key.replace("mamba_fwd", "mamba_rev")] = tensors[key] * factor
        embedding = next(tensor for key, tensor in tensors.items() if "word_embeddings" in key and "weight" in key)
        tensors["lm_head.lm_head.weight" if "_ps" in name else "lm_head.weight"] = embedding.clone()

    edit_weights(directory, lambda tensors: change(tensors, 1.0))
    assert torch.equal(logits(directory, name), expected)
    edit_weights(directory, lambda tensors: change(tensors, 1.01))
    with pytest.raises(ModelFormatError, match="holds two that differ"):
        genossm.load(directory)
    # The same file is whole and different, once the configuration says that the directions are untied.
    edit_config(directory, bidirectional_weight_tie=False)
    assert (logits(directory, name) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("fused", [True, False])
def test_a_norm_of_the_other_kind_is_a_contradiction(source: Source, fused: bool) -> None:
    name = "caduceus_ps_fused" if fused else "caduceus_ps"
    directory = edit_config(source(name), fused_add_norm=not fused)
    with pytest.raises(ModelFormatError, match="norm_f") as caught:
        genossm.load(directory)
    assert "missing backbone.norm_f.weight" in str(caught.value)
    assert ("submodule" in str(caught.value).split("unknown caduceus.backbone.norm_f.")[1][:12]) == (not fused)


def test_complement_map_is_read_by_number_not_by_place(source: Source) -> None:
    name = "caduceus_ps"
    directory, expected = source(name), logits(GOLDEN / name, name)
    content = json.loads((directory / "config.json").read_text())["complement_map"]
    edit_config(directory, complement_map=dict(sorted(content.items())))
    assert torch.equal(logits(directory, name), expected)
    # Values that were sorted as text along with their keys, and numbered anew: wrong, and noticed.
    by_text = [content[key] for key in sorted(content)]
    edit_config(directory, complement_map={str(place): value for place, value in enumerate(by_text)})
    with pytest.raises(ModelFormatError, match="sort them by number"):
        genossm.load(directory)
    edit_config(directory, complement_map={"A": 10})
    with pytest.raises(ModelFormatError, match="no token id"):
        genossm.load(directory)
    edit_config(directory, complement_map=None)
    with pytest.raises(ModelFormatError, match="it sends 0 to None, wanted 0"):
        genossm.load(directory)


def test_complement_of_the_file_is_checked(source: Source) -> None:
    directory = source("caduceus_ps")
    key = "caduceus.backbone.embeddings.word_embeddings.complement_map"
    edit_weights(directory, lambda tensors: tensors[key].__setitem__(7, 8))
    with pytest.raises(ModelFormatError, match="sends 7 to 8, wanted 10"):
        genossm.load(directory)


@pytest.mark.parametrize("said", [True, "true,", "True", "true"])
def test_bidirectional_may_be_text(source: Source, said: object) -> None:
    directory = edit_config(source("caduceus_ph"), bidirectional=said)
    assert torch.equal(logits(directory, "caduceus_ph"), logits(GOLDEN / "caduceus_ph", "caduceus_ph"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bidirectional": False}, "bidirectional is False"),
        ({"bidirectional": "false,"}, "bidirectional is 'false,'"),
        ({"bidirectional_strategy": "ew_multiply"}, "bidirectional_strategy: got 'ew_multiply'"),
        ({"d_model": 64}, r"the configuration wants \(16, 64\)"),
        ({"rcps": True}, "missing backbone.embedding.weight"),
        ({"vocab_size": 4096}, "4,096 tokens"),
        ({"n_layers": 3}, "Did you mean 'n_layer'"),
        ({"ssm_cfg": {"d_state": 8}}, r"A_log has shape \(64, 16\), the configuration wants \(64, 8\)"),
        ({"initializer_cfg": {"range": 1.0}}, "initializer_cfg.range"),
    ],
)
def test_configurations_that_do_not_fit(source: Source, tmp_path: Path, changes: dict, message: str) -> None:
    directory = edit_config(source("caduceus_ph"), **changes)
    with pytest.raises(GenossmError, match=message):
        convert(directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this one is causal"):
        export_checkpoint(SequenceModel(StackConfig(8, 1)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    model = genossm.load(GOLDEN / "caduceus_ph")
    export_checkpoint(model, tmp_path / "out")
    with pytest.raises(OutputExistsError):
        export_checkpoint(model, tmp_path / "out")

"""Other authors' checkpoints that do not fit: every disagreement named, nothing unpickled unasked."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import genossm
from genossm.core.errors import ConfigError, GenossmError, ModelFormatError, OutputExistsError
from genossm.models import convert
from genossm.models.importers import import_checkpoint, read_checkpoint

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
HF, SSM = "hf_mamba", "mamba_ssm_mamba1"
Source = Callable[[str], Path]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A copy of a fixture without the outputs, to be damaged."""

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


def as_pickle(directory: Path, name: str = "pytorch_model.bin") -> Path:
    torch.save(load_file(directory / "model.safetensors"), directory / name)
    (directory / "model.safetensors").unlink()
    return directory


def logits(directory: Path, name: str) -> torch.Tensor:
    with torch.no_grad():
        return genossm.load(directory)(load_file(GOLDEN / name / "io.safetensors")["input_ids"]).logits


@pytest.mark.parametrize("name", [HF, SSM])
def test_convert_writes_a_directory_that_computes_the_same(source: Source, tmp_path: Path, name: str) -> None:
    directory = source(name)
    model = convert(directory, tmp_path / "out")
    assert torch.equal(logits(tmp_path / "out", name), logits(directory, name))
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["model_digest"] == model.digest()
    assert record["extra"]["layout"] == {HF: "transformers", SSM: "mamba-ssm"}[name]
    assert record["extra"]["source_config"] == json.loads((directory / "config.json").read_text())
    assert set(record["extra"]["source_sha256"]) == {"model.safetensors"}


@pytest.mark.parametrize("name", [HF, SSM])
def test_missing_and_unknown_keys_are_listed(source: Source, tmp_path: Path, name: str) -> None:
    def change(tensors: dict) -> None:
        tensors["backbone.layers.1.mixer.D2"] = tensors.pop("backbone.layers.1.mixer.D")
        del tensors["backbone.norm_f.weight"]

    edit_weights(source(name), change)
    with pytest.raises(ModelFormatError, match="3 tensors do not fit") as caught:
        convert(tmp_path / name, tmp_path / "out")
    for part in (
        "missing backbone.layers.1.mixer.D;",
        "unknown backbone.layers.1.mixer.D2",
        "missing backbone.norm_f.w",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (HF, {"state_size": 8}, r"A_log has shape \(64, 16\), the configuration wants \(64, 8\)"),
        (HF, {"num_hidden_layers": 4}, r"missing backbone\.layers\.3"),
        (HF, {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        (HF, {"intermediate_size": 96}, "contradicts itself"),
        (HF, {"use_bias": True}, r"missing backbone\.layers\.0\.mixer\.in_proj\.bias"),
        (HF, {"tie_word_embeddings": False}, r"missing head\.weight"),
        (HF, {"use_rotary": True, "gate": 3}, "gate, use_rotary"),
        (HF, {"vocab_size": 50280}, "50,280 tokens"),
        (HF, {"model_type": "falcon_mamba"}, "model_type 'falcon_mamba'"),
        (HF, {"hidden_size": "wide"}, r"config\.json\.d_model"),
        (SSM, {"vocab_size": 50277}, "50,277 tokens"),
        (SSM, {"pad_vocab_size_multiple": 1}, r"\(16, 32\), the configuration wants \(12, 32\)"),
        (SSM, {"ssm_cfg": {"layer": "Mamba2"}}, "layers 'Mamba2'"),
        (SSM, {"attn_layer_idx": [1]}, r"attention at \[1\]"),
        (SSM, {"d_intermediate": 64}, "MLP of width 64"),
        (SSM, {"ssm_cfg": {"d_stat": 8}}, "Did you mean 'd_state'"),
        (SSM, {"rms_nrom": True}, "Did you mean 'rms_norm'"),
        (SSM, {"rms_norm": False}, r"missing backbone\.layers\.0\.norm\.bias"),
    ],
)
def test_configurations_that_do_not_fit(source: Source, tmp_path: Path, name: str, changes: dict, message: str) -> None:
    directory = edit_config(source(name), **changes)
    with pytest.raises(GenossmError, match=message):
        convert(directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [HF, SSM])
def test_a_tied_head_may_stand_in_the_file_or_not_but_must_not_differ(source: Source, name: str) -> None:
    directory = source(name)
    embedding = {HF: "backbone.embeddings.weight", SSM: "backbone.embedding.weight"}[name]
    expected = logits(directory, name)
    edit_weights(directory, lambda tensors: tensors.update({"lm_head.weight": tensors[embedding].clone()}))
    assert torch.equal(logits(directory, name), expected)
    edit_weights(directory, lambda tensors: tensors.pop("lm_head.weight"))
    assert torch.equal(logits(directory, name), expected)
    edit_weights(directory, lambda tensors: tensors.update({"lm_head.weight": tensors[embedding] * 1.01}))
    with pytest.raises(ModelFormatError, match="holds two that differ"):
        genossm.load(directory)


def test_an_untied_head_is_read(source: Source) -> None:
    directory = edit_config(source(SSM), tie_embeddings=False)
    tied = logits(source(HF), HF)
    edit_weights(directory, lambda tensors: tensors["lm_head.weight"].mul_(2))
    assert logits(directory, SSM).shape == tied.shape
    torch.testing.assert_close(logits(directory, SSM), 2 * load_file(GOLDEN / SSM / "io.safetensors")["logits"],
                               atol=2e-4, rtol=0)  # fmt: skip


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_refused_unless_asked_for(source: Source, tmp_path: Path, name: str) -> None:
    expected = logits(source(HF), HF)
    directory = as_pickle(tmp_path / HF, name)
    with pytest.raises(ModelFormatError, match="is a pickle, which can run code"):
        convert(directory, tmp_path / "out")
    with pytest.raises(ModelFormatError, match="is a pickle"):
        genossm.load(directory)
    convert(directory, tmp_path / "out", allow_pickle=True)
    assert torch.equal(logits(tmp_path / "out", HF), expected)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize("content", [{"a": Bomb()}, Bomb()])
def test_an_allowed_pickle_still_runs_no_code(source: Source, tmp_path: Path, content: object) -> None:
    directory = source(HF)
    (directory / "model.safetensors").unlink()
    torch.save(content, directory / "pytorch_model.bin")
    with pytest.raises(ModelFormatError, match="cannot be read as tensors"):
        convert(directory, tmp_path / "out", allow_pickle=True)


@pytest.mark.parametrize("content", [pickle.dumps([1]), b"", b"junk"])
def test_a_damaged_pickle_is_named(source: Source, tmp_path: Path, content: bytes) -> None:
    directory = source(HF)
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"pytorch_model\.bin"):
        convert(directory, tmp_path / "out", allow_pickle=True)


def test_a_pickle_of_a_training_run_is_refused(source: Source, tmp_path: Path) -> None:
    directory = source(HF)
    torch.save({"state_dict": load_file(directory / "model.safetensors"), "step": 3}, directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelFormatError, match="more than named tensors"):
        convert(directory, tmp_path / "out", allow_pickle=True)


def test_safetensors_win_over_a_pickle_beside_them(source: Source) -> None:
    expected = logits(source(HF), HF)
    directory = GOLDEN.parent / HF
    directory = read_checkpoint(GOLDEN / HF).directory
    assert torch.equal(logits(directory, HF), expected)


def test_shards_are_read_together(source: Source) -> None:
    expected = logits(source(SSM), SSM)
    directory = edit_config(source(HF))
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in names if weight_map[name] == file}, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    torch.testing.assert_close(
        logits(directory, HF), load_file(GOLDEN / HF / "io.safetensors")["logits"], atol=1e-4, rtol=0
    )
    assert expected.shape == (2, 200, 16)
    (directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelFormatError, match=r"model-00002-of-00002\.safetensors is missing"):
        genossm.load(directory)


@pytest.mark.parametrize(("vocabulary", "fits"), [({}, True), ({"A": 5, "T": 6}, False)])
def test_the_sources_tokenizer_is_checked(source: Source, vocabulary: dict, fits: bool) -> None:
    directory = source(HF)
    plain = {"A": 7, "C": 8, "G": 9, "T": 10, "N": 11}
    (directory / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {**plain, **vocabulary}}}))
    if fits:
        assert not genossm.load(directory).begins_with_bos
        (directory / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
        assert genossm.load(directory).begins_with_bos
    else:
        with pytest.raises(ModelFormatError, match="A is 5, wanted 7, T is 6, wanted 10"):
            genossm.load(directory)


def test_layout_by_name_and_by_looks(source: Source, tmp_path: Path) -> None:
    directory = source(SSM)
    _, layout = import_checkpoint(read_checkpoint(directory), layout="mamba-ssm")
    assert layout == "mamba-ssm"
    with pytest.raises(ModelFormatError, match="keys that this importer does not know"):
        import_checkpoint(read_checkpoint(directory), layout="transformers")
    with pytest.raises(ConfigError, match="no layout 'jax'"):
        import_checkpoint(read_checkpoint(directory), layout="jax")
    (directory / "config.json").write_text("{}")
    with pytest.raises(ModelFormatError, match="no model_type and no ssm_cfg"):
        convert(directory, tmp_path / "out")


def test_own_directories_and_taken_outputs_are_refused(source: Source, tmp_path: Path) -> None:
    directory = source(HF)
    convert(directory, tmp_path / "out")
    with pytest.raises(ModelFormatError, match="already"):
        convert(tmp_path / "out", tmp_path / "again")
    with pytest.raises(OutputExistsError):
        convert(directory, tmp_path / "out")
    convert(directory, tmp_path / "out", force=True)


def test_no_weights_at_all(source: Source, tmp_path: Path) -> None:
    directory = source(HF)
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelFormatError, match="holds no weights"):
        convert(directory, tmp_path / "out")

"""Model directories: written whole, read back bit for bit, and every contradiction named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import genossm
from genossm.core.errors import ModelFormatError, OutputExistsError
from genossm.core.provenance import Provenance
from genossm.models import SequenceModel, StackConfig
from genossm.models.directory import REQUIRED
from genossm.sequence import NucleotideTokenizer

Make = Callable[..., SequenceModel]
IDS = torch.tensor([[2, 7, 8, 9, 10, 11, 7, 7]])


@pytest.fixture
def saved(make_model: Make, tmp_path: Path) -> Path:
    return make_model().save_pretrained(tmp_path / "model")


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"tie_embeddings": False, "norm": "layer", "proj_bias": True, "conv_bias": False},
        {"tokenizer": NucleotideTokenizer(uppercase=False, special_tokens="sep"), "d_state": 4, "vocab_size": 12},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_is_bit_for_bit(make_model: Make, tmp_path: Path, choices: dict, dtype: torch.dtype) -> None:
    model = make_model(**choices).to(dtype)
    model.save_pretrained(tmp_path / "model")
    loaded = genossm.load(tmp_path / "model")
    assert loaded.config == model.config
    assert loaded.tokenizer == model.tokenizer
    assert loaded.begins_with_bos == model.begins_with_bos
    assert loaded.digest() == model.digest()
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert loaded.head.weight is loaded.backbone.embedding.weight or not loaded.config.tie_embeddings


def test_the_five_files_and_the_card(make_model: Make, tmp_path: Path) -> None:
    provenance = Provenance(command="genossm train", seed=11, extra={"name": "demo"})
    figures = {"bits per base": 1.93211, "judged on": "20:3,200,001-4,000,000"}
    make_model().save_pretrained(tmp_path / "m", provenance=provenance, figures=figures)
    assert {file.name for file in (tmp_path / "m").iterdir()} == {*REQUIRED, "README.md"}
    card = (tmp_path / "m" / "README.md").read_text()
    assert "| bits per base | 1.932 |" in card
    assert "| judged on | 20:3,200,001-4,000,000 |" in card
    assert "| seed | 11 |" in card
    assert "# demo\n" in card
    written = json.loads((tmp_path / "m" / "provenance.json").read_text())
    assert written["model_digest"] == genossm.load(tmp_path / "m").digest()
    assert written["command"] == "genossm train"


def test_who_may_read_the_record_may_read_the_weights(saved: Path) -> None:
    assert len({file.stat().st_mode for file in saved.iterdir()}) == 1


def test_nothing_is_overwritten_unasked(saved: Path, make_model: Make) -> None:
    before = (saved / "provenance.json").read_text()
    other = make_model(d_model=8)
    with pytest.raises(OutputExistsError):
        other.save_pretrained(saved)
    assert (saved / "provenance.json").read_text() == before
    other.save_pretrained(saved, force=True)
    assert genossm.load(saved).config.d_model == 8
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_failed_write_leaves_nothing(make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        make_model().save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ModelFormatError, match=name.replace(".", r"\.")):
        genossm.load(saved)


def test_all_missing_files_are_named_at_once(saved: Path) -> None:
    (saved / "tokenizer.json").unlink()
    (saved / "model.safetensors").unlink()
    with pytest.raises(ModelFormatError, match=r"lacks model\.safetensors, tokenizer\.json: it is incomplete"):
        genossm.load(saved)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_file_cut_short_is_named(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFormatError, match=name.replace(".", r"\.")):
        genossm.load(saved)


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["stack"].update(d_modle=1), "Did you mean 'd_model'"),
        (lambda c: c["stack"].update(mixer="mamba9"), "mixer: got 'mamba9'"),
        (lambda c: c.update(format_version=99), "Install a newer genossm"),
        (lambda c: c.update(speed=1), "unknown keys speed"),
        (lambda c: c["stack"].pop("d_model"), "d_model is missing"),
        (lambda c: c["stack"].update(vocab_size=8), "tokenizer has 12 tokens"),
        (lambda c: c["stack"].update(n_layer=3), r"missing backbone\.layers\.2\.mixer\.A_log; missing"),
        (lambda c: c["stack"].update(d_state=8), r"A_log has shape \(32, 16\), the configuration wants \(32, 8\)"),
        (lambda c: c["stack"].update(tie_embeddings=False), r"missing head\.weight"),
        (lambda c: c["stack"].update(norm_eps=1e-6), "contradicts itself: provenance.json says digest"),
    ],
)
def test_a_configuration_that_contradicts_the_weights(saved: Path, change: Callable, message: str) -> None:
    edit_json(saved / "config.json", change)
    with pytest.raises(ModelFormatError, match=message):
        genossm.load(saved)


def edit_weights(saved: Path, change: Callable[[dict], object]) -> None:
    tensors = load_file(saved / "model.safetensors")
    change(tensors)
    save_file(tensors, saved / "model.safetensors")


def test_missing_and_unknown_tensors_are_listed_all(saved: Path) -> None:
    def change(tensors: dict) -> None:
        tensors["backbone.layers.0.mixer.a_log"] = tensors.pop("backbone.layers.0.mixer.A_log")
        tensors["extra"] = torch.ones(1)
        tensors["backbone.norm_f.weight"] = torch.ones(5)

    edit_weights(saved, change)
    with pytest.raises(ModelFormatError, match="4 tensors do not fit") as caught:
        genossm.load(saved)
    for part in (
        "missing backbone.layers.0.mixer.A_log",
        "unknown backbone.layers.0.mixer.a_log",
        "unknown extra",
        "backbone.norm_f.weight has shape (5,), the configuration wants (16,)",
    ):
        assert part in str(caught.value)


def test_changed_weights_are_noticed(saved: Path) -> None:
    edit_weights(saved, lambda tensors: tensors["backbone.norm_f.weight"].add_(1e-6))
    with pytest.raises(ModelFormatError, match="contradicts itself"):
        genossm.load(saved)


def test_integer_weights_are_refused(saved: Path) -> None:
    edit_weights(saved, lambda tensors: tensors.update({"backbone.norm_f.weight": torch.ones(16, dtype=torch.int32)}))
    with pytest.raises(ModelFormatError, match=r"norm_f\.weight has dtype torch\.int32"):
        genossm.load(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"type": "bytes"}, "'bytes' is not known"),
        ({"type": "nucleotide", "x": 1}, "x"),
        ({"type": "kmer", "k": 3}, "type 'kmer', wanted 'nucleotide'"),
    ],
)
def test_another_tokenizer_is_refused(saved: Path, content: dict, message: str) -> None:
    (saved / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelFormatError, match=message):
        genossm.load(saved)


def test_dtype_on_request_keeps_time_scales_wide(saved: Path) -> None:
    model = genossm.load(saved, dtype=torch.bfloat16, device="cpu")
    wide = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.float32}
    assert {name.split("mixer.")[-1] for name in wide} == {"A_log", "D", "dt_proj.bias"}
    exact = genossm.load(saved)
    with torch.no_grad():
        difference = (model(IDS).logits.float() - exact(IDS).logits).norm() / exact(IDS).logits.norm()
    assert 0 < difference < 0.03
    assert not model.training


def test_force_does_not_replace_a_folder_that_is_no_model(tmp_path: Path) -> None:
    keepsake = tmp_path / "papers" / "thesis.txt"
    keepsake.parent.mkdir()
    keepsake.write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"config\.json"):
        SequenceModel(StackConfig(d_model=16, n_layer=1)).save_pretrained(keepsake.parent, force=True)
    assert keepsake.read_text() == "years of work"

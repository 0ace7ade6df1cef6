"""The authors' own code on the same weights and tokens: the proof that the model is right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import genossm
from genossm.models import SequenceModel
from genossm.models.importers import import_checkpoint, read_checkpoint

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
CAUSAL = ["mamba_ssm_mamba1", "hf_mamba"]
STRAND_SHARING = ["caduceus_ps", "caduceus_ps_fused"]
FIXTURES = [*CAUSAL, "caduceus_ph", "caduceus_ph_fused", *STRAND_SHARING]
TOLERANCE = 1e-4


def load_with(fixture: str, backend: str) -> SequenceModel:
    checkpoint = read_checkpoint(GOLDEN / fixture)
    model, _ = import_checkpoint(checkpoint)
    for block in model.backbone.layers.modules():
        if hasattr(block, "backend"):
            block.backend = backend
    return model.eval()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("fixture", FIXTURES)
@torch.no_grad()
def test_matches_the_authors_outputs(
    fixture: str, backend: str, record_property: Callable[[str, object], None]
) -> None:
    expected = load_file(GOLDEN / fixture / "io.safetensors")
    found = load_with(fixture, backend)(expected["input_ids"], return_hidden_states=True)
    assert found.hidden_states is not None
    logits = (found.logits - expected["logits"]).abs().max().item()
    hidden = (found.hidden_states[-1] - expected["last_hidden_state"]).abs().max().item()
    record_property("max_difference", {"logits": logits, "hidden": hidden})
    assert logits < TOLERANCE
    assert hidden < TOLERANCE


@pytest.mark.parametrize("fixture", FIXTURES)
@torch.no_grad()
def test_every_tensor_counts(fixture: str) -> None:
    """A tensor that is read wrongly, or not at all, cannot pass: 5 % of any moves the output tenfold the tolerance."""
    expected = load_file(GOLDEN / fixture / "io.safetensors")
    model = load_with(fixture, "cpu")
    for name, weight in model.named_parameters():
        kept = weight.detach().clone()
        weight.mul_(1.05)
        moved = (model(expected["input_ids"]).logits - expected["logits"]).abs().max().item()
        weight.copy_(kept)
        assert moved > 10 * TOLERANCE, name


@pytest.mark.parametrize("fixture", CAUSAL)
@torch.no_grad()
def test_token_by_token_matches_too(fixture: str) -> None:
    expected = load_file(GOLDEN / fixture / "io.safetensors")
    model = load_with(fixture, "cpu")
    state = None
    for t in range(25):
        output = model(expected["input_ids"][:, t : t + 1], state=state, return_state=True)
        state = output.state
        assert (output.logits[:, 0] - expected["logits"][:, t]).abs().max() < TOLERANCE


@pytest.mark.parametrize("fixture", FIXTURES)
def test_loads_directly_and_follows_its_tokenizer(fixture: str) -> None:
    model = genossm.load(GOLDEN / fixture)
    assert not model.begins_with_bos
    assert model.tokenizer.encode("ACGTn", add_special_tokens=True).tolist() == [7, 8, 9, 10, 11, 1]
    assert model.config.vocab_size == 16


@pytest.mark.parametrize("fixture", STRAND_SHARING)
@torch.no_grad()
def test_reverse_complement_matches_the_authors_too(fixture: str) -> None:
    expected = load_file(GOLDEN / fixture / "io.safetensors")
    found = load_with(fixture, "cpu")(expected["rc_input_ids"]).logits
    assert (found - expected["rc_logits"]).abs().max() < TOLERANCE


@torch.no_grad()
def test_fused_and_unfused_strand_sharing_are_different_functions() -> None:
    model = load_with("caduceus_ps", "cpu")
    other = SequenceModel(dataclasses.replace(model.config, strand_exchange=True), model.tokenizer).eval()
    other.load_state_dict(model.state_dict())
    ids = load_file(GOLDEN / "caduceus_ps" / "io.safetensors")["input_ids"]
    assert (other(ids).logits - model(ids).logits).abs().max() > 1

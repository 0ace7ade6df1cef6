"""SequenceModel: what it returns, how it encodes, what its digest depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import genossm
from genossm.core.errors import ConfigError, UsageError
from genossm.models import PRESETS, SequenceModel, StackConfig, preset
from genossm.sequence import NucleotideTokenizer

Make = Callable[..., SequenceModel]


@torch.no_grad()
def test_output_holds_what_was_asked_for(make_model: Make) -> None:
    model = make_model()
    ids = model.encode("ACGTNACG")
    plain = model(ids)
    assert plain.state is None
    assert plain.hidden_states is None
    full = model(ids, return_state=True, return_hidden_states=True)
    assert torch.equal(full.logits, plain.logits)
    assert full.state.position == 8
    assert len(full.hidden_states) == 3
    assert torch.equal(model.backbone(ids), full.hidden_states[-1])
    assert torch.equal(model.head(full.hidden_states[-1]), plain.logits)
    assert torch.equal(model(ids[:, 5:], state=model(ids[:, :5], return_state=True).state).logits.argmax(-1),
                       plain.logits[:, 5:].argmax(-1))  # fmt: skip


def test_encode_and_bos(make_model: Make) -> None:
    model = make_model()
    assert model.begins_with_bos
    assert model.encode("ACgtN").tolist() == [[7, 8, 9, 10, 11]]
    assert model.encode(b"AC", add_bos=True).tolist() == [[2, 7, 8]]
    # IUPAC codes, U, gaps and spaces.
    assert model.encode("ARU- nG").tolist() == [[7, 6, 6, 6, 6, 11, 9]]
    ids = torch.tensor([[7], [8]], dtype=torch.uint8)
    assert model.prepend_bos(ids).tolist() == [[2, 7], [2, 8]]
    assert model.prepend_bos(ids).dtype == torch.uint8
    assert not make_model(NucleotideTokenizer()).begins_with_bos


def test_digest_changes_with_what_the_model_computes_and_nothing_else(make_model: Make) -> None:
    model = make_model()
    digest = model.digest()
    assert digest == make_model().digest()
    assert len(digest) == 64
    assert make_model(backend="torch").digest() == digest
    others = [make_model(NucleotideTokenizer()), make_model(norm_eps=1e-6), make_model().to(torch.float64)]
    with torch.no_grad():
        others.append(make_model())
        others[-1].backbone.layers[1].mixer.D[3] += 1e-6
    digests = {digest, *(other.digest() for other in others)}
    assert len(digests) == 5


def test_digest_of_a_known_model_stays_what_it_is() -> None:
    """A later version must give old directories the digest that stands in them."""
    model = SequenceModel(StackConfig(d_model=8, n_layer=1, norm_eps=1e-6))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    assert model.digest() == "75dd104e495a1b604c75497a7382daf9c10689be0c67afb68acfd7ca4d59ed98"


def test_number_of_weights_counts_shared_ones_once(make_model: Make) -> None:
    tied, untied = make_model(), make_model(tie_embeddings=False)
    assert untied.num_parameters() - tied.num_parameters() == 16 * 16
    # in_proj, conv and its bias, x_proj, dt_proj and its bias, A_log, D, out_proj, norm
    block = 64 * 16 + 32 * 4 + 32 + 33 * 32 + 32 + 32 + 32 * 16 + 32 + 16 * 32 + 16
    assert tied.num_parameters() == 16 * 16 + 2 * block + 16


def test_too_few_rows_for_the_tokenizer() -> None:
    with pytest.raises(ConfigError, match="vocab_size is 11 and the tokenizer has 12 tokens"):
        SequenceModel(StackConfig(8, 1, vocab_size=11))


@torch.no_grad()
def test_training_lowers_the_loss(make_model: Make) -> None:
    """The parts learn together: a repeated motif becomes predictable."""
    model = make_model(backend="auto").train()
    ids = model.encode("ACGGT" * 12, add_bos=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    losses = []
    with torch.enable_grad():
        for _ in range(30):
            logits = model(ids).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_presets_are_valid_and_named() -> None:
    assert preset("tiny") is PRESETS["tiny"]
    assert replace(preset("small"), n_layer=1).d_model == PRESETS["small"].d_model
    sizes = [config.d_model**2 * config.n_layer for config in PRESETS.values()]
    assert sizes == sorted(sizes)
    with pytest.raises(ConfigError, match="Did you mean 'small'"):
        preset("smal")


def test_top_level_name_is_the_loader() -> None:
    assert genossm.load is genossm.models.load


def test_letters_and_lists_in_the_wrong_place_are_refused(make_model: Make) -> None:
    model = make_model()
    with pytest.raises(UsageError, match=r"token ids \(batch, length\); got str.*model.encode"):
        model("ACGT")
    with pytest.raises(UsageError, match="encode takes one sequence; got a list of 2"):
        model.encode(["ACGT", "ACG"])

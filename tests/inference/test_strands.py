"""The mean over both strands."""

from __future__ import annotations

import pytest
import torch

from genossm.core.errors import MethodError
from genossm.inference import both_strand_log_probabilities, log_probabilities
from genossm.models import SequenceModel, StackConfig
from genossm.sequence import NucleotideTokenizer
from genossm.testing.models import enliven


def masked_model(**choices: object) -> SequenceModel:
    torch.manual_seed(0)
    config = StackConfig(12, 2, direction="bidirectional", objective="masked", **choices)  # type: ignore[arg-type]
    return enliven(SequenceModel(config), 1).eval()


def test_is_the_mean_of_the_two_strands_probabilities() -> None:
    model, tokenizer = masked_model(), NucleotideTokenizer()
    letters, opposite = "ACGTTGCANAC", "GTNTGCAACGT"
    found = both_strand_log_probabilities(model, model.encode(letters)).exp()[0]
    with torch.no_grad():
        plus = log_probabilities(model(model.encode(letters)).logits, dtype=torch.float64).exp()[0]
        minus = log_probabilities(model(model.encode(opposite)).logits, dtype=torch.float64).exp()[0]
    assert tokenizer.decode(model.encode(opposite)[0].tolist()) == opposite
    for place in range(11):
        for base, complement in enumerate((3, 2, 1, 0)):
            expected = (plus[place, base] + minus[10 - place, complement]) / 2
            torch.testing.assert_close(found[place, base], expected, atol=1e-12, rtol=0)


def test_the_result_turns_with_the_input() -> None:
    model = masked_model()
    ids = torch.randint(7, 12, (2, 40), dtype=torch.uint8)
    turned = torch.from_numpy(NucleotideTokenizer().reverse_complement(ids.numpy()))
    found = both_strand_log_probabilities(model, turned)
    torch.testing.assert_close(found.flip(1, 2), both_strand_log_probabilities(model, ids), atol=1e-6, rtol=0)


def test_an_equivariant_model_needs_no_mean() -> None:
    model = masked_model(reverse_complement="equivariant")
    ids = torch.randint(7, 12, (2, 40))
    with torch.no_grad():
        alone = log_probabilities(model(ids).logits, dtype=torch.float64)
    torch.testing.assert_close(both_strand_log_probabilities(model, ids), alone, atol=1e-5, rtol=0)


def test_a_causal_model_has_no_mean_position_by_position(model: SequenceModel) -> None:
    with pytest.raises(MethodError, match="from what precedes it"):
        both_strand_log_probabilities(model, torch.tensor([[7, 8]]))

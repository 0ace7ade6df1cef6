"""Probabilities of bases, against arithmetic in plain Python."""

from __future__ import annotations

import math

import torch

from genossm.inference import log_probabilities, token_log_probabilities


def test_softmax_is_over_the_four_bases_alone() -> None:
    logits = torch.full((1, 2, 16), 50.0)
    logits[0, 0, 7:11] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    logits[0, 1, 7:11] = torch.tensor([-1000.0, 0.0, 0.0, 0.0])
    found = log_probabilities(logits, dtype=torch.float64)
    total = sum(math.exp(x) for x in (1, 2, 3, 4))
    expected = [math.log(math.exp(x) / total) for x in (1, 2, 3, 4)]
    torch.testing.assert_close(found[0, 0], torch.tensor(expected, dtype=torch.float64), atol=1e-14, rtol=0)
    torch.testing.assert_close(found[0, 1, 0].item(), -1000 - math.log(3), atol=1e-9, rtol=0)


def test_dtype_and_other_ids() -> None:
    logits = torch.randn(2, 3, 16, dtype=torch.bfloat16)
    assert log_probabilities(logits).dtype == torch.float32
    wide = log_probabilities(logits, dtype=torch.float64)
    torch.testing.assert_close(wide.exp().sum(-1), torch.ones(2, 3, dtype=torch.float64), atol=1e-14, rtol=0)
    swapped = log_probabilities(logits, base_ids=(10, 9, 8, 7), dtype=torch.float64)
    torch.testing.assert_close(swapped, wide.flip(-1), atol=1e-14, rtol=0)


def test_only_bases_with_a_condition_count() -> None:
    log_probs = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4]])).expand(7, 4).clone()
    log_probs[0] = torch.nan
    targets = torch.tensor([7, 7, 10, 11, 4, 9, 3], dtype=torch.uint8)
    values, counts = token_log_probabilities(log_probs, targets)
    assert counts.tolist() == [False, True, True, False, False, True, False]
    torch.testing.assert_close(values.exp(), torch.tensor([1.0, 0.1, 0.4, 1.0, 1.0, 0.3, 1.0]))


def test_gradient_reaches_the_logits() -> None:
    logits = torch.randn(1, 2, 16, requires_grad=True)
    values, _ = token_log_probabilities(log_probabilities(logits), torch.tensor([[8, 11]]))
    values.sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[0, 1], torch.zeros(16))
    assert logits.grad[0, 0, 8] > 0
    assert torch.equal(logits.grad[0, 0, :7], torch.zeros(7))

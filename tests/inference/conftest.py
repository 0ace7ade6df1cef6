"""Causal models with life in them: with [BOS] as ours, and without as imported ones."""

from __future__ import annotations

import pytest
import torch

from genossm.models import SequenceModel, StackConfig
from genossm.sequence import NucleotideTokenizer
from genossm.testing.models import enliven


def build(special_tokens: str) -> SequenceModel:
    torch.manual_seed(0)
    tokenizer = NucleotideTokenizer(special_tokens=special_tokens)  # type: ignore[arg-type]
    return enliven(SequenceModel(StackConfig(16, 2), tokenizer), 1).eval()


@pytest.fixture(scope="session")
def model() -> SequenceModel:
    return build("bos")


@pytest.fixture(scope="session")
def model_without_bos() -> SequenceModel:
    return build("sep")

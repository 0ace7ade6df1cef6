"""A small model whose every weight matters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from genossm.models import SequenceModel, StackConfig
from genossm.testing.models import enliven


@pytest.fixture
def make_model() -> Callable[..., SequenceModel]:
    def make(tokenizer: object = None, **choices: object) -> SequenceModel:
        torch.manual_seed(0)
        config = StackConfig(**{"d_model": 16, "n_layer": 2, "backend": "reference", **choices})  # type: ignore[arg-type]
        return enliven(SequenceModel(config, tokenizer), 1).eval()  # type: ignore[arg-type]

    return make

"""What is left to later steps without gradients, on a GPU: as accurate as the separate steps, twice the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genossm.nn import Stack, StackConfig, fused, later, norm
from genossm.testing.models import enliven
from genossm_kernels.look_up import take_rows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
BOTH: dict[str, Any] = {"direction": "bidirectional", "objective": "masked"}
CONFIGS: dict[str, dict[str, Any]] = {
    "causal": {},
    "both": BOTH,
    "strands": BOTH | {"reverse_complement": "equivariant"},
}
LENGTH = 40_001


@pytest.mark.parametrize("name", CONFIGS)
def test_it_errs_no_more_than_the_separate_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = StackConfig(d_model=256, n_layer=2, **CONFIGS[name])
    stack = enliven(Stack(config, torch.arange(16).flip(0) if config.equivariant else None), 1).cuda()
    ids = torch.randint(0, 16, (1, LENGTH), device="cuda")
    kept, run = [], norm.forward_leaving

    def counted(*arguments: Any, keep: bool) -> Any:
        kept.append(keep)
        return run(*arguments, keep=keep)

    monkeypatch.setattr(norm, "forward_leaving", counted)

    def infer(*, narrow: bool) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=narrow):
            return stack(ids)

    found = infer(narrow=True)
    assert kept == [True, False]
    assert torch.equal(found, infer(narrow=True))
    monkeypatch.setattr(later, "DEVICES", frozenset())
    monkeypatch.setattr(fused, "widens", lambda _: False)
    separate, exact = infer(narrow=True), infer(narrow=False)
    assert len(kept) == 4
    assert (found - exact).norm() <= 1.1 * (separate - exact).norm()


def test_rows_of_a_table() -> None:
    table = torch.randn((16, 256), device="cuda")
    ids = torch.randint(0, 16, (3, LENGTH), device="cuda")
    assert torch.equal(take_rows(table, ids), table[ids])

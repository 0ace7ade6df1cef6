"""Two scans from either end whose outputs are added, in one launch: what two launches give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from genossm_kernels.selective_scan import both, cuda_plan, cuda_turns
from genossm_kernels.selective_scan import cuda as backend
from genossm_kernels.selective_scan.contract import ScanArguments

# Channels, warps, cluster and steps of turns; batch, length, channels, d_state.
CASES = {
    "several_tiles_and_sequences": ((16, 2, 1, 8), (2, 203, 40, 16), torch.float32),
    "clusters": ((16, 2, 2, 8), (1, 200, 32, 16), torch.bfloat16),
    "odd_everything": ((8, 3, 2, 16), (1, 1000, 17, 5), torch.float32),
    "one_chunk": ((16, 2, 2, 16), (1, 20, 16, 16), torch.float32),
    "one_step": ((16, 2, 1, 8), (1, 1, 16, 4), torch.float32),
    "a_warp_a_block": ((16, 1, 4, 8), (1, 64, 16, 8), torch.float16),
}


def two_scans(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, reverse: bool
) -> tuple[ScanArguments, ScanArguments]:
    batch, length, channels, states = shape
    g = torch.Generator().manual_seed(0)

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=g)

    z = random(batch, length, channels).to(device, dtype)

    def one(reverse: bool) -> ScanArguments:
        u, delta = random(batch, length, channels), random(batch, length, channels) - 2
        B, C = random(batch, length, 1, states), random(batch, length, 1, states)
        A, D, bias = -random(channels, states).exp(), random(channels), 0.1 * random(channels)
        rows = [tensor.to(device, dtype) for tensor in (u, delta, B, C)]
        A, D, bias, state = (tensor.to(device) for tensor in (A, D, bias, random(batch, channels, states)))
        return ScanArguments(rows[0], rows[1], A, rows[2], rows[3], D, z, bias, True, (reverse,), state, None)

    return one(reverse), one(not reverse)


@pytest.mark.parametrize("reverse", [False, True], ids=["from_the_beginning", "from_the_end"])
@pytest.mark.parametrize("name", CASES)
def test_one_launch_gives_what_two_do(
    name: str, reverse: bool, device: torch.device, in_turns: Callable[[cuda_turns.Turns], list[bool]]
) -> None:
    turns, shape, dtype = CASES[name]
    planned = in_turns(cuda_turns.Turns(turns[0], turns[1], turns[2], turns[3]))
    first, second = two_scans(shape, dtype, device, reverse)
    y = torch.empty(shape[:3], dtype=dtype, device=device)
    after = both.forward_both(backend, first, second, y, need_backward=True)  # type: ignore[arg-type]
    assert planned == [True]
    alone = [backend.forward(a, need_backward=True) for a in (first, second)]
    for (state, kept), (_, state_alone, kept_alone) in zip(after, alone, strict=True):
        assert kept is not None
        assert kept_alone is not None
        assert torch.equal(state, state_alone)
        real = shape[3]
        assert torch.equal(kept[..., :real], kept_alone[..., :real])
    # The outputs that come first are rounded before the others are added.
    expected = alone[0][0].float() + alone[1][0].float()
    one_rounding = torch.finfo(dtype).eps * (alone[0][0].float().abs() + alone[1][0].float().abs())
    assert ((y.float() - expected).abs() <= one_rounding).all()


def test_scans_that_are_not_alike_take_two_launches(
    device: torch.device, in_turns: Callable[[cuda_turns.Turns], list[bool]]
) -> None:
    """And give the same sum: one of other sizes, one without a state, and two from the same end."""
    planned = in_turns(cuda_turns.Turns(16, 2, 1, 8))
    first, second = two_scans((1, 60, 16, 8), torch.float32, device, False)
    y = torch.empty((1, 60, 16), device=device)
    for other in (replace(second, initial_state=None), replace(second, reverse=(False,))):
        both.forward_both(backend, first, other, y, need_backward=False)  # type: ignore[arg-type]
        alone = [backend.forward(a, need_backward=False)[0] for a in (first, other)]
        torch.testing.assert_close(y, alone[0] + alone[1])
    assert True not in planned


def test_both_directions_share_a_launch_where_that_is_faster() -> None:
    """As measured on an H100: 512 channels of a megabase, and short sequences; not 256 of a megabase."""
    device = SimpleNamespace(multiprocessors=132, shared_bytes_per_block=227 * 1024, clusters=True)
    options = {"softplus": True, "gate": True, "packed": False, "aligned": True, "aligned_maps": True}

    def taken(channels: int, length: int) -> bool:
        shape = cuda_plan.Shape(torch.bfloat16, 1, length, channels, 16, 1, 1, **options, backward=False, both=True)
        return cuda_plan.plan_for.__wrapped__(device, shape).chain is not None  # type: ignore[arg-type]

    assert taken(512, 2**20)
    assert taken(512, 2**17)
    assert taken(512, 2048)
    assert not taken(256, 2**20)

"""The CUDA kernels of the convolution against the definition in float64: on an emulated GPU here and on a real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from genossm_kernels.causal_conv1d import causal_conv1d, cuda, cuda_plan
from genossm_kernels.causal_conv1d.contract import ConvArguments

# Of two sums in different orders.
ROUNDING = {torch.float32: 2.0**-22, torch.bfloat16: 2.0**-7}


@dataclass(frozen=True)
class Convolution:
    """One call of causal_conv1d."""

    batch: int = 2
    length: int = 70
    channels: int = 24
    width: int = 4
    dtype: torch.dtype = torch.float32
    reverse: bool | tuple[bool, ...] = False
    bias: bool = True
    state: bool = True
    packed: bool = False
    activation: str | None = "silu"
    detached: bool = False  # the final state; else it has a gradient

    def tensors(self) -> dict[str, torch.Tensor | None]:
        g = torch.Generator().manual_seed(0)
        tail = (self.batch, self.width - 1, self.channels)
        return {
            "x": torch.randn((self.batch, self.length, self.channels), generator=g).to(self.dtype),
            "weight": torch.randn((self.channels, self.width), generator=g),
            "bias": torch.randn(self.channels, generator=g) if self.bias else None,
            "initial_state": torch.randn(tail, generator=g).to(self.dtype) if self.state else None,
        }

    def seq_idx(self) -> torch.Tensor | None:
        if not self.packed:
            return None
        g = torch.Generator().manual_seed(1)
        return (torch.rand((self.batch, self.length), generator=g) < 0.15).cumsum(1).int()

    def run(self, backend: str, tensors: dict[str, torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor]:
        seq_idx, x = self.seq_idx(), tensors["x"]
        assert x is not None
        y, final_state = causal_conv1d(
            **tensors,  # type: ignore[arg-type]
            activation=self.activation,  # type: ignore[arg-type]
            reverse=self.reverse,
            seq_idx=None if seq_idx is None else seq_idx.to(x.device),
            return_final_state=True,
            backend=backend,
        )
        return y, final_state.detach() if self.detached else final_state


CONVOLUTIONS = {
    "width_4": Convolution(),
    "both_directions_packed": Convolution(reverse=(True, False), packed=True),
    "reverse_packed_bfloat16": Convolution(reverse=True, packed=True, dtype=torch.bfloat16),
    "shorter_than_width": Convolution(length=2, channels=13, dtype=torch.float16),
    "one_step_no_activation": Convolution(length=1, width=3, bias=False, activation=None),
    "width_1": Convolution(width=1, state=False),
    "width_8_odd_channels": Convolution(length=40, width=8, channels=5, packed=True),
    "width_24": Convolution(length=130, width=24, channels=6, dtype=torch.bfloat16),
    "width_64_packed": Convolution(batch=1, length=90, width=64, channels=3, reverse=True, packed=True),
    "width_128_longer_than_the_sequence": Convolution(batch=1, length=50, width=128, channels=2),
}
# What cuda_wide.cu does: rows in pieces of 16 bytes, and backward no states.
MANY_TAPS = {
    "both_directions_bfloat16": Convolution(
        length=170, width=16, channels=144, dtype=torch.bfloat16, reverse=(True, False), state=False, detached=True
    ),
    "steps_of_three_widths": Convolution(length=100, width=5, state=False, detached=True),
    "no_activation": Convolution(
        length=90,
        width=20,
        channels=8,
        dtype=torch.float16,
        reverse=True,
        bias=False,
        activation=None,
        state=False,
        detached=True,
    ),
    "one_channel_a_lane": Convolution(batch=1, length=200, width=32, channels=36, state=False, detached=True),
    "shorter_than_the_taps": Convolution(
        length=3, width=16, channels=8, dtype=torch.bfloat16, state=False, detached=True
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_is_as_accurate_as_plain_float(name: str, as_accurate: Callable[..., None]) -> None:
    as_accurate(CONVOLUTIONS[name])


@pytest.mark.parametrize("name", MANY_TAPS)
def test_many_taps_are_as_accurate_as_plain_float(
    name: str, as_accurate: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cuda_plan, "_narrow")
    monkeypatch.setattr(cuda_plan, "_LONGEST_RUN", 40)  # so that there are several
    as_accurate(MANY_TAPS[name])


def test_many_taps_by_warps_and_by_threads(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that begin on 16 bytes go one way, others the other: forward from a state, backward adding."""
    g = torch.Generator().manual_seed(7)
    monkeypatch.setattr(cuda_plan, "_LONGEST_RUN", 40)
    width, channels, dtype = 12, 48, torch.bfloat16
    values = torch.randn((3, 2, 90, channels), generator=g).to(dtype)
    weight, bias = torch.randn((channels, width), generator=g).to(device), torch.randn(channels, generator=g).to(device)
    state = torch.randn((2, width - 1, channels), generator=g).to(dtype).to(device)
    found = []
    for before in (16, 1):
        rows = torch.zeros((4, 2, 90, channels + 24), dtype=dtype, device=device)
        x, grad_y, grad_x, y = rows[..., before : before + channels]
        for place, value in zip((x, grad_y, grad_x), values, strict=True):
            place.copy_(value)
        final_state = cuda.forward(ConvArguments(x, weight, bias, True, (True,), state, None), y=y)[1]
        arguments = ConvArguments(x, weight, bias, True, (True,), None, None)
        again = cuda.backward(arguments, grad_y, None, grad_x=grad_x, add=True)
        added = grad_x.clone()
        gradients = cuda.backward(arguments, grad_y, None, grad_x=grad_x)
        assert torch.equal(gradients.weight, again.weight)
        assert not torch.cat([rows[..., :before], rows[..., before + channels :]], dim=-1).any()
        found.append((y, final_state, added, grad_x, gradients.weight, gradients.bias))
    for by_warps, by_threads in zip(*found, strict=True):
        torch.testing.assert_close(by_warps, by_threads, rtol=ROUNDING[by_warps.dtype], atol=1e-5)

"""Inputs and error measures to test a back end with, ours or yours; the benchmarks check with them before they time.

The rule for accuracy: against float64 arithmetic on the same inputs, a fast path's error is at most twice that of the
plain path in float32.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from genossm_kernels.add_norm import add_norm
from genossm_kernels.causal_conv1d import causal_conv1d
from genossm_kernels.selective_scan import selective_scan

Regime = Literal["random", "trained", "extreme"]
# Arguments that stay in the state dtype whatever the activations are.
PARAMETERS = ("A", "D", "delta_bias", "initial_state", "weight", "bias")


def scan_inputs(
    regime: Regime = "random",
    *,
    batch: int = 1,
    length: int = 64,
    channels: int = 24,
    states: int = 16,
    groups: int = 1,
    initial_state: bool = True,
    packed: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Float64 tensors for `selective_scan(**inputs)`, all rounded to float32 so that narrower copies are the same.

    random: everything normal. trained: steps log-uniform in 1e-5 ... 1e-1 and the spectrum -1, -2, ..., so that many
    decays stay near one. extreme: steps from 1e-8 to 1e4, decay rates from 1e-8 to 1e4.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float32)

    def log_uniform(low: float, high: float, *shape: int) -> Tensor:
        spread = torch.rand(*shape, generator=generator, dtype=torch.float32)
        return torch.exp(math.log(low) + spread * math.log(high / low))

    inputs = {name: normal(batch, length, channels) for name in ("u", "delta", "z")}
    inputs |= {name: normal(batch, length, groups, states) for name in ("B", "C")}
    inputs["D"] = normal(channels)
    if regime == "random":
        inputs["A"] = -torch.exp(normal(channels, states))
        inputs["delta_bias"] = normal(channels)
    elif regime == "trained":
        inputs["A"] = -torch.arange(1, states + 1, dtype=torch.float32).repeat(channels, 1)
        inputs["delta_bias"] = torch.log(torch.expm1(log_uniform(1e-5, 1e-1, channels).double())).float()
        inputs["delta"] = 0.5 * inputs["delta"]
    else:
        inputs["A"] = -log_uniform(1e-8, 1e4, channels, states)
        inputs["delta_bias"] = torch.linspace(-18.0, 18.0, channels)
        inputs["delta"] = inputs["delta"] * torch.where(normal(channels) > 1, 600.0, 1.0)
    if initial_state:
        inputs["initial_state"] = normal(batch, channels, states)
    inputs = {name: tensor.double() for name, tensor in inputs.items()}
    if packed:
        inputs["seq_idx"] = packed_index(batch, length, generator)
    return inputs


def conv_inputs(
    *,
    batch: int = 1,
    length: int = 64,
    channels: int = 24,
    width: int = 4,
    initial_state: bool = True,
    packed: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Float64 tensors for `causal_conv1d(**inputs)`, rounded to float32."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"x": (batch, length, channels), "weight": (channels, width), "bias": (channels,)}
    if initial_state and width > 1:
        shapes["initial_state"] = (batch, width - 1, channels)
    inputs = {name: torch.randn(*shape, generator=generator).double() for name, shape in shapes.items()}
    if packed:
        inputs["seq_idx"] = packed_index(batch, length, generator)
    return inputs


def norm_inputs(
    *, rows: tuple[int, ...] = (2, 33), channels: int = 24, x: bool = True, bias: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    """Float64 tensors for `add_norm(**inputs)`, rounded to bfloat16 so that narrower copies are the same."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"x": (*rows, channels), "residual": (*rows, channels), "weight": (channels,), "bias": (channels,)}
    without = {name for name, there in (("x", x), ("bias", bias)) if not there}
    # A mean that is not small, or nothing shows whether it was taken off.
    return {
        name: (1.5 + torch.randn(shape, generator=generator)).bfloat16().double()
        for name, shape in shapes.items()
        if name not in without
    }


def norm_results(
    inputs: dict[str, Tensor], *, dtype: torch.dtype, used: tuple[str, ...] = ("y", "stream"), **options: Any
) -> dict[str, Tensor]:
    """Both outputs of `add_norm` and all gradients, under random weights for the outputs that are `used`."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    x = leaves.pop("x", None)
    # Not a leaf, as a stream inside a network is none.
    y, stream = add_norm(x, leaves["residual"] * 1, leaves["weight"], leaves.get("bias"), dtype=dtype, **options)
    found = {"y": y, "stream": stream}
    leaves = leaves if x is None else {"x": x, **leaves}
    generator = torch.Generator().manual_seed(1)
    weights = {name: torch.randn(out.shape, generator=generator).bfloat16().to(out) for name, out in found.items()}
    outputs = [found[name] for name in used]
    given = torch.autograd.grad(outputs, list(leaves.values()), [weights[name] for name in used], allow_unused=True)
    for (name, leaf), gradient in zip(leaves.items(), given, strict=True):
        found[f"grad {name}"] = torch.zeros_like(leaf) if gradient is None else gradient
    return {name: tensor.detach() for name, tensor in found.items()}


def packed_index(batch: int, length: int, generator: torch.Generator) -> Tensor:
    """Sequence numbers of packed sequences, about eight positions each."""
    return (torch.rand(batch, length, generator=generator) < 1 / 8).int().cumsum(1).int()


def cast(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The inputs in `dtype`, parameters and states in the state dtype that goes with it."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return {
        name: tensor.to(wide if name in PARAMETERS else dtype) if tensor.is_floating_point() else tensor
        for name, tensor in inputs.items()
    }


def results(operator: Any, inputs: dict[str, Tensor], *, gradients: bool = True, **options: Any) -> dict[str, Tensor]:
    """Output, final state and all gradients, under random weights for both outputs that are the same every time."""
    leaves = {
        name: tensor.detach().requires_grad_(gradients and tensor.is_floating_point())
        for name, tensor in inputs.items()
    }
    y, final_state = operator(**leaves, return_final_state=True, **options)
    found = {"y": y, "final_state": final_state}
    if gradients:
        generator = torch.Generator().manual_seed(1)
        # Rounded to bfloat16, so that every dtype gets the same weights. A state of no numbers has no gradient.
        outputs = [tensor for tensor in (y, final_state) if tensor.requires_grad]
        weights = [torch.randn(out.shape, generator=generator).bfloat16().to(out) for out in outputs]
        wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
        given = torch.autograd.grad(outputs, list(wanted.values()), weights, allow_unused=True)
        for (name, leaf), gradient in zip(wanted.items(), given, strict=True):
            found[f"grad {name}"] = torch.zeros_like(leaf) if gradient is None else gradient
    return {name: tensor.detach() for name, tensor in found.items()}


def scan_results(inputs: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """`results` of `selective_scan`."""
    return results(selective_scan, inputs, **options)


def conv_results(inputs: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """`results` of `causal_conv1d`."""
    return results(causal_conv1d, inputs, **options)


class Errors(NamedTuple):
    """Of one result, as shares of the root mean square of the truth."""

    typical: float  # root mean square
    large: float  # what 1 % of the elements exceed
    largest: float


def errors(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, Errors]:
    """The errors of every result."""
    table = {}
    for name, right in truth.items():
        if right.numel() == 0:
            continue
        error = (found[name].double() - right.double()).abs().flatten() / _scale(right)
        rank = max(1, round(0.99 * error.numel()))
        table[name] = Errors(
            error.square().mean().sqrt().item(), error.kthvalue(rank).values.item(), error.max().item()
        )
    return table


def excess(fast: dict[str, Tensor], plain: dict[str, Tensor], truth: dict[str, Tensor], *, rounding: float) -> str:
    """Empty if `fast` errs at most twice as much as `plain`, else what does not.

    The rule holds for typical and for large errors; a single largest one is a matter of luck (where terms cancel, which
    rounding was kind), and may be sixteen times the plain one. rounding: by what the output's dtype rounds (its
    eps); errors below that of the largest value pass.
    """
    complaints = []
    plain_errors = errors(plain, truth)
    for name, error in errors(fast, truth).items():
        other, right = plain_errors[name], truth[name].double()
        peak = rounding * right.abs().max().item() / _scale(right)
        allowed = Errors(2 * other.typical + rounding / 3, 2 * other.large + peak, 16 * other.largest + peak)
        if not all(mine <= bound for mine, bound in zip(error, allowed, strict=True)):
            complaints.append(f"{name}: {_figures(error)}, plain {_figures(other)}")
    return "; ".join(complaints)


def _scale(right: Tensor) -> float:
    return right.double().square().mean().sqrt().item() or 1.0


def _figures(error: Errors) -> str:
    return " / ".join(f"{share:.2g}" for share in error)

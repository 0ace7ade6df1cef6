"""Rows of `add_norm`, a bfloat16 x on a float32 stream: ours beside mamba-ssm's Triton kernel, and PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from timing import Call, Tensors, compare, without_gradient
from torch import Tensor

from genossm_kernels.add_norm import add_norm

LENGTH = 1_048_576
EPS = 1e-5
# Bytes an element: x and the stream in, both and y out; backward the stream, two gradients in, two out.
FORWARD_BYTES, BACKWARD_BYTES = 2 + 4 + 4 + 2, 4 + 2 + 4 + 4 + 2
AddNorm = Callable[..., tuple[Tensor, Tensor]]


def norm_rows(repeats: int, bytes_per_second: float) -> Iterator[dict[str, Any]]:
    for channels in (256, 512):
        tensors: Tensors = {
            "x": torch.randn(LENGTH, channels, device="cuda", dtype=torch.bfloat16),
            "residual": torch.randn(LENGTH, channels, device="cuda"),
            "weight": torch.randn(channels, device="cuda"),
        }
        point = {"operator": "add_norm", "length": LENGTH, "channels": channels}
        bytes_moved = {"forward": FORWARD_BYTES, "forward+backward": FORWARD_BYTES + BACKWARD_BYTES}
        floors = {what: 1e3 * each * LENGTH * channels / bytes_per_second for what, each in bytes_moved.items()}
        for backend in ("cuda", "torch"):
            ours = partial(add_norm, eps=EPS, dtype=torch.bfloat16, backend=backend)
            # Once: their tuner tries launches for seconds at each width.
            theirs = their_add_norm() if backend == "cuda" and channels == 256 else None
            for what, prepare in (("forward", forward), ("forward+backward", step)):
                row = point | {"what": what, "backend": backend, "floor_ms": floors[what]}
                peer = None if theirs is None else prepare(theirs, tensors)
                yield compare(row, prepare(ours, tensors), peer, repeats)


def forward(call: AddNorm, tensors: Tensors) -> Call:
    return without_gradient(lambda: call(**tensors))


def step(call: AddNorm, tensors: Tensors) -> Call:
    gradients = torch.randn_like(tensors["x"]), torch.randn_like(tensors["residual"])

    def run() -> None:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
        torch.autograd.backward(call(**leaves), gradients)

    return run


def their_add_norm() -> AddNorm | None:
    try:
        from mamba_ssm.ops.triton.layer_norm import layer_norm_fn  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None

    def call(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return layer_norm_fn(x, weight, None, residual=residual, eps=EPS, prenorm=True, is_rms_norm=True)

    return call

"""Rows of whole layers and stacks at d_model 256: ours beside mamba-ssm's own, under autocast in bfloat16.

Theirs: the `Mamba` layer on its fast path, between fused additions and norms; both directions as Caduceus has them, two
layers with tied projections and a flipped copy each way. A training step is forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from timing import Call, compare, without_gradient
from torch import Tensor, nn

from genossm.nn import Mamba1, Stack, StackConfig
from genossm.nn.recompute import recomputing

D_MODEL, LAYERS, VOCABULARY = 256, 8, 16
LENGTHS = (131_072, 1_048_576)


def network_rows(repeats: int, lengths: tuple[int, ...] = LENGTHS) -> Iterator[dict[str, Any]]:
    for length in lengths:
        yield from block_rows(length, repeats)
        for direction in ("causal", "bidirectional"):
            yield from stack_rows(length, direction, repeats)


def block_rows(length: int, repeats: int) -> Iterator[dict[str, Any]]:
    """One layer between its projections, without norm and addition; recomputing as a stack does, and as theirs does."""
    torch.manual_seed(0)
    ours = Mamba1(StackConfig(d_model=D_MODEL, n_layer=1, backend="cuda")).cuda()
    theirs = their_layer()

    def layer(hidden: Tensor) -> Tensor:
        with recomputing("cheap"):
            return ours(hidden)[0]

    hidden = torch.randn((1, length, D_MODEL), device="cuda", dtype=torch.bfloat16)
    yield from rows(
        {"operator": "mamba block", "d_model": D_MODEL, "length": length, "recompute": "cheap"},
        layer,
        theirs,
        hidden,
        repeats,
    )


def stack_rows(length: int, direction: str, repeats: int) -> Iterator[dict[str, Any]]:
    """Embedding, eight layers, final norm."""
    torch.manual_seed(0)
    choices: dict[str, Any] = {"direction": direction, "objective": "causal" if direction == "causal" else "masked"}
    ours = Stack(StackConfig(d_model=D_MODEL, n_layer=LAYERS, vocab_size=VOCABULARY, backend="cuda", **choices)).cuda()
    theirs = their_stack(direction == "bidirectional")
    ids = torch.randint(0, VOCABULARY, (1, length), device="cuda")
    point = {"operator": f"{direction} stack", "d_model": D_MODEL, "layers": LAYERS, "length": length}
    yield from rows(point | {"recompute": "cheap"}, ours, theirs, ids, repeats)
    for block in ours.layers:
        block.recompute = "projections"
    step = training_step(partial(under_autocast, ours), ids)
    yield compare(point | {"recompute": "projections", "what": "training step"}, step, None, repeats)


def rows(
    point: dict[str, Any],
    ours: Callable[[Tensor], Tensor],
    theirs: Callable[[Tensor], Tensor] | None,
    input: Tensor,
    repeats: int,
) -> Iterator[dict[str, Any]]:
    """Inference, then a training step; each side is timed alone and its memory given back in between."""
    both = [None if network is None else partial(under_autocast, network) for network in (ours, theirs)]
    plain = [None if call is None else without_gradient(partial(call, input)) for call in both]
    assert plain[0] is not None
    yield compare(point | {"what": "inference"}, plain[0], plain[1], repeats)
    steps = [None if call is None else training_step(call, input) for call in both]
    assert steps[0] is not None
    yield compare(point | {"what": "training step"}, steps[0], steps[1], repeats)


def under_autocast(network: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
    with torch.autocast("cuda", torch.bfloat16):
        return network(input)


def training_step(call: Callable[[Tensor], Tensor], input: Tensor) -> Call:
    """Forward and backward; gradients of parameters accumulate, as between two optimizer steps."""

    def run() -> None:
        leaf = input.detach().requires_grad_(input.is_floating_point())
        call(leaf).sum().backward()

    return run


def their_layer() -> nn.Module | None:
    try:
        import causal_conv1d  # pyright: ignore[reportMissingImports]  # noqa: F401  (without it theirs is slow)
        from mamba_ssm.modules.mamba_simple import Mamba  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return Mamba(D_MODEL).cuda()


class BothWays(nn.Module):
    """Two of their layers, one on flipped copies, with the projections of one."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards, self.backwards = their_layer(), their_layer()
        assert self.forwards is not None
        assert self.backwards is not None
        self.backwards.in_proj.weight = self.forwards.in_proj.weight
        self.backwards.out_proj.weight = self.forwards.out_proj.weight

    def forward(self, hidden: Tensor) -> Tensor:
        return self.forwards(hidden) + self.backwards(hidden.flip(1)).flip(1)


class TheirStack(nn.Module):
    """Embedding, layers behind their fused addition and norm, final norm."""

    def __init__(self, both_ways: bool) -> None:
        super().__init__()
        from mamba_ssm.ops.triton.layer_norm import RMSNorm, layer_norm_fn  # pyright: ignore[reportMissingImports]

        self.fused_add_norm = partial(layer_norm_fn, bias=None, is_rms_norm=True)
        self.embedding = nn.Embedding(VOCABULARY, D_MODEL)
        self.layers = nn.ModuleList((BothWays() if both_ways else their_layer()) for _ in range(LAYERS))
        self.norms = nn.ModuleList(RMSNorm(D_MODEL, eps=1e-5) for _ in range(LAYERS + 1))

    def forward(self, ids: Tensor) -> Tensor:
        hidden, residual = self.embedding(ids), None
        for layer, norm in zip(self.layers, self.norms):
            hidden, residual = self.fused_add_norm(
                hidden, norm.weight, eps=norm.eps, residual=residual, prenorm=True, residual_in_fp32=True
            )
            hidden = layer(hidden)
        last = self.norms[-1]
        return self.fused_add_norm(hidden, last.weight, eps=last.eps, residual=residual, residual_in_fp32=True)


def their_stack(both_ways: bool) -> nn.Module | None:
    return None if their_layer() is None else TheirStack(both_ways).cuda()

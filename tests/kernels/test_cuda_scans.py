"""The CUDA kernels of the scan against the definition in float64: on an emulated GPU here and on a real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from genossm_kernels._cuda import emulation, source
from genossm_kernels.selective_scan import cuda as scan_backend
from genossm_kernels.selective_scan import cuda_calls, cuda_plan, cuda_turns, selective_scan


@dataclass(frozen=True)
class Scan:
    """One call; the defaults are the tuned path (16 states) over three segments with a ragged end."""

    batch: int = 1
    length: int = 300
    channels: int = 40
    d_state: int = 16
    groups: int = 1
    dtype: torch.dtype = torch.float32
    reverse: bool | tuple[bool, ...] = False
    gate: bool = True
    skip: bool = True
    bias: bool = True
    softplus: bool = True
    state: bool = True
    packed: bool = False
    step_shift: float = -1.0

    def tensors(self) -> dict[str, torch.Tensor | None]:
        g = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=g)

        rows = (self.batch, self.length, self.channels)
        maps = (self.batch, self.length, self.groups, self.d_state)
        delta = normal(*rows) + self.step_shift if self.softplus else torch.rand(rows, generator=g)
        return {
            "u": normal(*rows).to(self.dtype),
            "delta": delta.to(self.dtype),
            "A": -4 * torch.rand((self.channels, self.d_state), generator=g) - 0.1,
            "B": normal(*maps).to(self.dtype),
            "C": normal(*maps).to(self.dtype),
            "D": normal(self.channels) if self.skip else None,
            "z": normal(*rows).to(self.dtype) if self.gate else None,
            "delta_bias": 0.5 * normal(self.channels) if self.bias else None,
            "initial_state": normal(self.batch, self.channels, self.d_state) if self.state else None,
        }

    def seq_idx(self) -> torch.Tensor | None:
        if not self.packed:
            return None
        g = torch.Generator().manual_seed(1)
        return (torch.rand((self.batch, self.length), generator=g) < 0.06).cumsum(1).int()

    def run(self, backend: str, tensors: dict[str, torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor]:
        seq_idx, u = self.seq_idx(), tensors["u"]
        assert u is not None
        return selective_scan(
            **tensors,  # type: ignore[arg-type]
            delta_softplus=self.softplus,
            reverse=self.reverse,
            seq_idx=None if seq_idx is None else seq_idx.to(u.device),
            return_final_state=True,
            backend=backend,
        )


SCANS = {
    "tuned": Scan(),
    "both_directions_packed": Scan(batch=2, channels=72, reverse=(True, False), packed=True),
    "groups_bfloat16": Scan(channels=48, groups=2, dtype=torch.bfloat16),
    "reverse_float16_odd": Scan(
        length=131, channels=33, d_state=5, reverse=True, dtype=torch.float16, state=False, gate=False, skip=False
    ),
    "one_step_wide_state": Scan(length=1, channels=8, d_state=64),
    "step_given": Scan(length=140, channels=24, d_state=30, softplus=False, bias=False),
    "small_state_many_channels": Scan(length=140, channels=140, d_state=4),
    "blocks_and_groups": Scan(length=150, channels=48, d_state=8, groups=3, reverse=(False, True), packed=True),
    "blocks_of_several_walks": Scan(length=400, channels=100),
    "steps_near_zero": Scan(step_shift=-9.0),
    "steps_huge": Scan(step_shift=12.0),
}


@pytest.fixture
def in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward pass never in one launch."""
    monkeypatch.setattr(cuda_plan, "_chain", lambda *_: None)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.usefixtures("in_segments")
def test_scan_is_as_accurate_as_plain_float(name: str, as_accurate: Callable[..., None]) -> None:
    as_accurate(SCANS[name])


# Every scan above in turns of two clusters of two blocks, and some in others: channels, warps, cluster, steps.
IN_TURNS = [
    *((name, (16, 2, 2, 8)) for name in SCANS if name != "blocks_of_several_walks"),
    ("tuned", (16, 2, 1, 16)),
    ("tuned", (8, 2, 3, 8)),
    ("both_directions_packed", (8, 2, 2, 16)),
    ("groups_bfloat16", (16, 3, 4, 16)),
    ("reverse_float16_odd", (4, 1, 4, 8)),
]


@pytest.mark.parametrize(("name", "turns"), IN_TURNS)
def test_scans_in_turns_are_as_accurate(
    name: str,
    turns: tuple[int, int, int, int],
    as_accurate: Callable[..., None],
    in_turns: Callable[[cuda_turns.Turns], list[bool]],
) -> None:
    """And leave for the backward pass what segments leave."""
    in_turns(cuda_turns.Turns(*turns))
    as_accurate(SCANS[name])


@pytest.mark.usefixtures("in_segments")
@pytest.mark.parametrize("name", ["tuned", "blocks_of_several_walks"])
def test_segments_of_long_sequences_are_as_accurate(
    name: str, as_accurate: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned as if there were work enough: states are kept half as often, and segments hold more of them."""
    for limit in ("_SHORT", "_SHORT_BACKWARD"):
        monkeypatch.setattr(cuda_plan, limit, 0)
    as_accurate(SCANS[name])


@pytest.mark.usefixtures("in_segments")
def test_states_are_carried_across_more_segments_than_a_block_takes_at_once(
    as_accurate: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward, in segments of one tile; the adjoints' carry is the same code."""

    def plan(launcher: Any, shape: cuda_plan.Shape) -> cuda_plan.Plan:
        return replace(cuda_plan.plan_for(launcher, shape), segment_length=16, segments=-(-shape.length // 16))

    monkeypatch.setattr(cuda_calls, "plan_for", plan)
    as_accurate(Scan(length=2200, channels=10, d_state=5, step_shift=-5.0), gradients=False)


@pytest.mark.parametrize("turns", [(16, 2, 1, 8), (8, 2, 2, 16), (16, 1, 4, 8)])
def test_turns_go_round(
    turns: tuple[int, int, int, int],
    as_accurate: Callable[..., None],
    in_turns: Callable[[cuda_turns.Turns], list[bool]],
) -> None:
    in_turns(cuda_turns.Turns(*turns))
    as_accurate(Scan(length=2200, channels=10, step_shift=-5.0, packed=turns[0] == 8), gradients=False)


def test_no_bits_of_a_state_are_taken_for_an_empty_hand(
    device: torch.device, in_turns: Callable[[cuda_turns.Turns], list[bool]]
) -> None:
    """A number that is none, in the very bits that warps wait on, comes out as one; other channels are as before."""
    in_turns(cuda_turns.Turns(16, 2, 2, 8))
    tensors = {
        name: None if tensor is None else tensor.to(device) for name, tensor in Scan(length=40).tensors().items()
    }
    state = tensors["initial_state"]
    assert state is not None
    with torch.no_grad():
        whole = selective_scan(**tensors, backend="cuda")  # type: ignore[arg-type]
        state[:, 3] = torch.full_like(state[:, 3], -1, dtype=torch.int32).view(torch.float32)
        y = selective_scan(**tensors, backend="cuda")  # type: ignore[arg-type]
    assert y[..., 3].isnan().all()
    y[..., 3] = whole[..., 3]
    assert torch.equal(y, whole)


def test_scan_reads_slices_of_a_projection_in_place(device: torch.device) -> None:
    """Slices that start on 16 bytes, slices that do not, and copies: the same bits."""
    channels, states = 32, 16
    g = torch.Generator().manual_seed(3)
    results = []
    for pad in (0, 1, None):
        torch_rows = 0 if pad is None else pad
        width = 3 * channels + 2 * states + torch_rows
        values = torch.randn((2, 150, 3 * channels + 2 * states), generator=g.manual_seed(3)).bfloat16()
        projection = torch.zeros((2, 150, width), dtype=torch.bfloat16)
        projection[..., torch_rows:] = values
        parts = projection.to(device)[..., torch_rows:].split([channels, channels, channels, states, states], dim=-1)
        if pad is None:
            parts = tuple(part.contiguous() for part in parts)
        u, delta, z, B, C = parts
        A = -torch.arange(1.0, states + 1, device=device).repeat(channels, 1)
        results.append(
            selective_scan(u, delta - 2, A, B.unsqueeze(2), C.unsqueeze(2), z=z, backend="cuda", reverse=True)
        )
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_state_alone_is_scanned_over_a_stretch_without_memory_for_inputs(device: torch.device) -> None:
    """Inputs that have strides of zero, stretches of longer rows, and copies of both: the same bits."""
    names, stretch = ("u", "delta", "B", "C", "z", "A", "delta_bias", "initial_state"), slice(40, 240)
    found = Scan(batch=2).tensors()
    u, delta, B, C, z, A, bias, state = (found[name].to(device) for name in names)  # type: ignore[union-attr]
    gate = torch.cat([u, z], dim=-1).chunk(2, dim=-1)[1]
    nothing, no_map = (torch.zeros_like(tensor[:1, :1]).expand_as(tensor[:, stretch]) for tensor in (u, B))
    views = [nothing, no_map, *(tensor[:, stretch] for tensor in (delta, C, gate))]

    def run(u: torch.Tensor, B: torch.Tensor, *rows: torch.Tensor) -> list[torch.Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in (*rows, A, bias, state)]
        delta, C, z, *others = leaves
        y = selective_scan(
            u, delta, others[0], B, C, None, z, others[1], initial_state=others[2], reverse=True, backend="cuda"
        )
        return [y, *torch.autograd.grad(y.square().sum(), leaves)]

    assert not any(tensor.is_contiguous() for tensor in views)
    for of_views, of_copies in zip(run(*views), run(*(tensor.contiguous() for tensor in views)), strict=True):
        assert torch.equal(of_views, of_copies)
        assert of_views.abs().sum() > 0


def test_packed_sequences_equal_separate_ones(device: torch.device) -> None:
    """Forward and backward: nothing passes a boundary, wherever it falls in a segment or tile."""
    lengths = (1, 130, 37, 96)
    tensors = Scan(length=sum(lengths), state=False).tensors()
    tensors = {name: None if tensor is None else tensor.to(device) for name, tensor in tensors.items()}
    seq_idx = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))[None].int().to(device)

    def run(rows: slice, index: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = {
            name: tensor[:, rows] if tensor is not None and tensor.dim() > 2 else tensor
            for name, tensor in tensors.items()
        }
        inputs["u"] = inputs["u"].clone().requires_grad_()  # type: ignore[union-attr]
        y = selective_scan(**inputs, seq_idx=index, backend="cuda")  # type: ignore[arg-type]
        y.square().sum().backward()
        assert inputs["u"].grad is not None
        return y.detach(), inputs["u"].grad

    packed, packed_gradient = run(slice(0, sum(lengths)), seq_idx)
    start = 0
    for length in lengths:
        rows = slice(start, start + length)
        y, gradient = run(rows, None)
        # Alone it is cut into other segments, and so rounded elsewhere: single elements, where large terms cancel, are
        # off by more than this, but what leaks across a boundary is a thousand times as much.
        for found, expected in ((packed[:, rows], y), (packed_gradient[:, rows], gradient)):
            assert (found - expected).norm() <= 2e-6 * expected.norm()
        start += length


BROKEN = {
    "in_segments": (
        "_FORWARD",
        "outputs(const ScanParams p)",
        ("await_copies<0>();", "y[g][i] = fmaf(h[i][s + j], c[j], y[g][i]);"),
    ),
    "in_turns": (
        "_CHAIN",
        "chain(const Params params)",
        (
            "await_copies<0>();",
            "if (segment > 0) state[j] = before;",
            "y[t] += product_of(h, c);",
            "state[j] *= a[t][j];",
        ),
    ),
}


@pytest.mark.parametrize("path", BROKEN)
def test_emulation_notices_a_broken_kernel(
    path: str, device: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A sum, a wait for copies or a carry left out, and the result is wrong: the emulation is a test, no formality."""
    if device.type != "cpu":
        pytest.skip("the emulation's own test")
    force = request.getfixturevalue(path)
    if force is not None:
        force(cuda_turns.Turns(16, 2, 1, 8))
    file, kernel, parts = BROKEN[path]
    tensors = Scan(length=40, channels=32).tensors()
    with torch.no_grad():
        whole = selective_scan(**tensors, backend="cuda")  # type: ignore[arg-type]
        monkeypatch.setattr(scan_backend, "launcher_for", lambda _: emulation.Emulator(tmp_path))
        text = source.read_source(getattr(cuda_plan, file))
        start = text.index(kernel)
        for part in parts:
            at = text.index(part, start)
            less = text[:at] + text[text.index(";", at) :]
            monkeypatch.setattr(emulation, "read_source", lambda _, less=less: less)
            broken = selective_scan(**tensors, backend="cuda")  # type: ignore[arg-type]
            assert not torch.allclose(broken, whole)

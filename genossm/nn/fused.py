"""The inside of mixers, from the projection in to the projection out, as one step of autograd over the back ends.

The same arithmetic as `Mamba1.mix` with fewer passes over memory: the second of two directions adds to what the first
wrote, the gradients of both halves of a projection are written where its backward pass reads them, and matrix products
add to gradients themselves. README.md counts the bytes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from genossm.nn.later import plain_linear
from genossm.nn.recompute import forgets
from genossm.nn.sized import SizedConvolution, SizedScan, sizing
from genossm.nn.state import LayerState
from genossm.nn.watching import notice_state
from genossm.nn.ways import Inputs, Step, Way, inputs_of, parts, with_state
from genossm_kernels.causal_conv1d.both import backward_both, forward_both
from genossm_kernels.causal_conv1d.contract import CompiledBackend as ConvBackend
from genossm_kernels.causal_conv1d.contract import ConvArguments, ConvCall, ConvGradients
from genossm_kernels.causal_conv1d.placing import backward_into as convolve_backward_into
from genossm_kernels.causal_conv1d.placing import forward_into as convolve_into
from genossm_kernels.causal_conv1d.projected import Projected, backward_projected
from genossm_kernels.causal_conv1d.projected import takes as takes_projected
from genossm_kernels.causal_conv1d.projecting import forward_projecting, projects, widens
from genossm_kernels.dispatch import choose_backend
from genossm_kernels.operators import autocast_dtype, intercepted
from genossm_kernels.selective_scan.both import forward_both as scan_both
from genossm_kernels.selective_scan.contract import CompiledBackend as ScanBackend
from genossm_kernels.selective_scan.contract import ScanArguments, ScanCall, ScanTargets
from genossm_kernels.selective_scan.placing import backward_into as scan_backward_into
from genossm_kernels.selective_scan.placing import forward_into as scan_into
from genossm_kernels.skinny import backward_skinny

# Elsewhere, and for fewer tokens, a pass over memory is not what takes the time.
DEVICES, FEWEST = frozenset({"cuda"}), 1 << 14


class _Options(NamedTuple):
    """remake: u and delta are made again in the backward pass.   spare: so is what `x_proj` gave, and one u at a time.

    own: nobody else has the gradient of what is put out.
    """

    remake: bool
    spare: bool
    own: bool


class _Kept(NamedTuple):
    """What the backward pass of a way has besides its inputs; what is None is made again."""

    low: Tensor | None
    scan: Tensor
    u: Tensor | None
    delta: Tensor | None


def fusable(rows: Tensor, ways: tuple[Way, ...]) -> bool:
    """Whether `mix_ways` may stand for `Mamba1.mix` of all ways, and no one would miss what happened in between.

    rows: what `in_proj` gives, or takes, which is of the same dtype.
    """
    if rows.device.type not in DEVICES or (
        intercepted(rows) and not _sizing()
    ):  # before sizes, which a compiler guards
        return False
    if rows.shape[0] * rows.shape[1] < FEWEST:
        return False
    if rows.stride(-1) != 1:
        return False
    narrow = autocast_dtype(rows)
    if narrow is not None and narrow != rows.dtype:
        return False
    for way in ways:
        weights = way.mixer.x_proj.weight, way.mixer.dt_proj.weight
        if narrow is None and any(weight.dtype != rows.dtype for weight in weights):
            return False
        if not way.mixer.untouched() or _steps((way,), rows) is None:
            return False
    return True


def _sizing() -> bool:
    return not torch.compiler.is_compiling() and sizing()


def _steps(ways: tuple[Way, ...], projected: Tensor) -> tuple[Step, ...] | None:
    """The ways with their kernels; None where one has no backward pass of its own."""
    found = []
    for way in ways:
        mixer, given = way.mixer, way.state is not None
        facts, reverse = (projected.device, projected.dtype), (way.reverse,)
        convolution = ConvCall(*facts, mixer.conv1d.kernel_size[0], reverse, given, False)
        convolve = choose_backend("causal_conv1d", mixer.backend, convolution)
        scan = choose_backend("selective_scan", mixer.backend, ScanCall(*facts, mixer.d_state, reverse, given, False))
        if hasattr(convolve, "run") or hasattr(scan, "run"):
            return None
        if _sizing():
            convolve, scan = SizedConvolution(), SizedScan(cast(ScanBackend, scan))
        found.append(Step(cast(ConvBackend, convolve), cast(ScanBackend, scan), way.reverse, way.rows, way.add))
    return tuple(found)


def mix_ways(
    projected: Float[Tensor, "batch length two_d_inner"], ways: tuple[Way, ...]
) -> tuple[Float[Tensor, "batch length d_inner"], list[LayerState]]:
    """What the ways put out together, and the state after each; for what `fusable` agrees to."""
    steps = _steps(ways, projected)
    assert steps is not None
    of_mixers: dict[nn.Module, Inputs] = {}
    inputs: list[Inputs] = []
    for way in ways:
        if way.mixer not in of_mixers:
            of_mixers[way.mixer] = inputs_of(way.mixer, projected.dtype)
        inputs.append(with_state(of_mixers[way.mixer], way.state, projected.dtype))
    tensors = [tensor for one in inputs for tensor in one]
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in (projected, *tensors)):
        options = _Options(forgets("cheap"), forgets("projections"), ways[0].mixer.leaves_plainly())
        y, *states = cast(tuple[Tensor, ...], _Inside.apply(steps, options, projected, *tensors))
    else:
        over = projected.is_contiguous() and not projected.requires_grad and plain_linear(ways[0].mixer.in_proj)
        y, states, _ = _run(steps, projected, inputs, None, over=over)
    after = [LayerState(tail, memory) for tail, memory in zip(states[::2], states[1::2], strict=True)]
    for way, state in zip(ways, after, strict=True):
        notice_state(way.mixer, state.scan)
    return y, after


def _run(
    steps: tuple[Step, ...], projected: Tensor, inputs: list[Inputs], options: _Options | None, *, over: bool = False
) -> tuple[Tensor, list[Tensor], list[_Kept]]:
    """Outputs, the two states after each way, and what its backward pass keeps, if there is one (`options`).

    over: outputs lie over what the convolutions read, which nobody reads again.
    """
    batch, length, width = projected.shape
    if over:
        y = projected[..., : width // 2]
    else:
        y = torch.empty((batch, length, width // 2), dtype=projected.dtype, device=projected.device)
    states, kept = [], []
    for passage in _passages(steps):
        rows = slice(passage.start, passage.stop)
        after, keeping = _mix_passage(steps[rows], projected, inputs[rows], y, options)
        states += after
        kept += keeping
    return y, states, kept


def _mix_passage(
    steps: tuple[Step, ...], projected: Tensor, inputs: list[Inputs], y: Tensor, options: _Options | None
) -> tuple[list[Tensor], list[_Kept]]:
    """`_run` of ways over the same rows. What they make besides goes when this returns, for the next ones to use."""
    x, z = steps[0].halves(projected)
    convolved = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in steps]
    calls = [step.convolution(x, one) for step, one in zip(steps, inputs, strict=True)]
    tails, lows, deltas = _convolve_and_project(steps[0], calls, convolved, inputs, calls, widen=options is None)
    deltas = deltas or [F.linear(parts(low, one)[0], one.step_weight) for low, one in zip(lows, inputs, strict=True)]
    made = zip(steps, convolved, deltas, lows, inputs, strict=True)
    scans = [step.scanned(u, delta, low, z, one) for step, u, delta, low, one in made]
    states, kept = [], []
    for tail, (memory, saved), low, scan in zip(tails, _scan(steps[0], scans, y, options), lows, scans, strict=True):
        states += [tail, memory]
        if saved is not None and options is not None:
            both = (None, None) if options.remake else (scan.u, scan.delta)
            kept.append(_Kept(None if options.spare else low, saved, *both))
    return states, kept


def _scan(
    step: Step, scans: list[ScanArguments], y: Tensor, options: _Options | None
) -> tuple[tuple[Tensor, Tensor | None], ...]:
    """The states after the scans of one passage, and what their backward passes want kept; the sum goes into `y`."""
    own, recorded = step.own(y), options is not None
    if len(scans) == 1:
        return (scan_into(step.scan, scans[0], own, add=False, need_backward=recorded),)
    return scan_both(step.scan, scans[0], scans[1], own, need_backward=recorded)


def _passages(steps: tuple[Step, ...]) -> list[range]:
    """Numbers of the ways over the same rows: one, or one and what adds to it."""
    starts = [number for number, step in enumerate(steps) if not step.add]
    return [range(*ends) for ends in pairwise([*starts, len(steps)])]


def _convolve_and_project(
    step: Step,
    calls: list[ConvArguments],
    outputs: list[Tensor],
    inputs: list[Inputs],
    passage: list[ConvArguments],
    *,
    widen: bool = False,
) -> tuple[tuple[Tensor, ...], list[Tensor], list[Tensor]]:
    """As `_convolve`, and what `x_proj` makes of it; for some of a passage by the kernels that all of it takes.

    widen: the last results are step sizes, where the kernel can make them too; there are none else.
    """
    weights, others = [one.x_weight for one in inputs], [one.step_weight for one in inputs]
    if projects(step.convolve, passage, weights[0]):
        wanted = others if widen and all(map(widens, others)) else None
        return forward_projecting(step.convolve, calls, weights, outputs, wanted)
    states = _convolve(step, calls, outputs)
    return states, [F.linear(u, weight) for u, weight in zip(outputs, weights, strict=True)], []


def _convolve(step: Step, calls: list[ConvArguments], outputs: list[Tensor]) -> tuple[Tensor, ...]:
    """The states after the convolutions of one passage; what they put out goes into `outputs`."""
    if len(calls) == 1:
        return (convolve_into(step.convolve, calls[0], outputs[0]),)
    return forward_both(step.convolve, calls[0], calls[1], (outputs[0], outputs[1]))


class _Inside(torch.autograd.Function):
    """Inputs: the ways, what is made again, what `in_proj` gave, then the `Inputs` of every way."""

    @staticmethod
    def forward(
        ctx: Any, steps: tuple[Step, ...], options: _Options, projected: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        inputs = _grouped(tensors, Inputs)
        with torch.autocast(projected.device.type, enabled=False):
            y, states, kept = _run(steps, projected, inputs, options)
        ctx.save_for_backward(projected, *tensors, *(tensor for one in kept for tensor in one))
        ctx.set_materialize_grads(False)
        ctx.steps, ctx.options = steps, options
        return (y, *states)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (once_differentiable hides the signature)
        ctx: Any, grad_y: Tensor | None, *grad_states: Tensor | None
    ) -> tuple[Any, ...]:
        projected, *saved = ctx.saved_tensors
        count = len(ctx.steps) * len(Inputs._fields)
        inputs, kept = _grouped(saved[:count], Inputs), _grouped(saved[count:], _Kept)
        del saved
        if grad_y is None:
            grad_y = torch.zeros_like(projected.chunk(2, dim=-1)[0], memory_format=torch.contiguous_format)
        wanted = _grouped(ctx.needs_input_grad[3:], Inputs)
        # Both halves of it are written by the kernels: `in_proj` differentiates one tensor.
        grad_projected = torch.empty(projected.shape, dtype=projected.dtype, device=projected.device)
        found: list[Tensor | None] = []
        with torch.autocast(projected.device.type, enabled=False):
            for passage in _passages(ctx.steps):
                rows = slice(passage.start, passage.stop)
                after = [(grad_y, *grad_states[2 * number : 2 * number + 2]) for number in passage]
                ways = zip(ctx.steps[rows], inputs[rows], kept[rows], after, wanted[rows], strict=True)
                of_ways = _differentiate(projected, grad_projected, list(ways), ctx.options)
                found += [one for way in of_ways for one in way]
        return (None, None, grad_projected, *found)


def _differentiate(
    projected: Tensor, grad_projected: Tensor, ways: list[tuple[Any, ...]], options: _Options
) -> list[Inputs]:
    """The gradients of the inputs of ways over the same rows; that of what they read goes into `grad_projected`."""
    step: Step = ways[0][0]
    (x, z), (grad_x, grad_z) = step.halves(projected), step.halves(grad_projected)
    calls = [step.convolution(x, inputs) for step, inputs, *_ in ways]
    convolved = _made_again(step, calls, grad_x, options) if options.remake else [kept.u for _, _, kept, *_ in ways]
    grad_tails = [None if after[1] is None else after[1].contiguous() for *_, after, _ in ways]
    together = not any(tail is not None for tail in grad_tails) and takes_projected(
        step.convolve, calls, ways[0][1].x_weight
    )
    found, projections = [], []
    for call, way in zip(calls, ways, strict=True):
        if options.spare:
            inputs, kept = way[1], way[2]
            _, lows, _ = _convolve_and_project(step, [call], [grad_x], [inputs], calls)
            way = (*way[:2], kept._replace(low=lows[0]), *way[3:])
        own, u = options.own and call is calls[-1], convolved.pop(0)
        grad_u, grad_low, of_way = _differentiate_scan(u, z, grad_z, own, *way)
        one = Projected(call, way[1].x_weight, grad_u, grad_low)
        found.append(of_way if together else of_way._replace(x_weight=_differentiate_projection(u, one, way[-1])))
        projections.append(one)
        del u, grad_u, grad_low
    if together:
        of_both = backward_projected(step.convolve, projections, grad_x)
        found = [
            one._replace(x_weight=x_weight if way[-1].x_weight else None)
            for one, way, (_, x_weight) in zip(found, ways, of_both, strict=True)
        ]
        of_convolution = [of for of, _ in of_both]
    else:
        of_convolution = _differentiate_convolutions(step, projections, grad_tails, grad_x)
    return [
        one._replace(taps=of.weight, tap_bias=of.bias, tail=of.initial_state)
        for one, of in zip(found, of_convolution, strict=True)
    ]


def _made_again(step: Step, calls: list[ConvArguments], grad_x: Tensor, options: _Options) -> list[Tensor]:
    """What convolutions put out; with `spare` only where each is to be made, in the same place one after the other."""
    # The last one lies where the gradient of x will, which no one writes before the scans are through with it.
    if options.spare:
        return [grad_x for _ in calls]
    x = calls[0].x
    convolved = [*(torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in calls[1:]), grad_x]
    _convolve(step, calls, convolved)
    return convolved


def _differentiate_projection(u: Tensor, one: Projected, wanted: Any) -> Tensor | None:
    """Adds to the gradient of u what comes through the projection; the gradient of its weight."""
    assert one.weight is not None
    assert one.grad_low is not None
    # The product adds to the scan's gradient where that lies.
    _flat(one.grad_u).addmm_(_flat(one.grad_low), one.weight)
    return _flat(one.grad_low).t() @ _flat(u) if wanted.x_weight else None


def _differentiate_convolutions(
    step: Step, ways: list[Projected], grad_tails: list[Tensor | None], grad_x: Tensor
) -> list[ConvGradients]:
    """The gradients of convolutions over the same rows, from the whole gradients of what they put out."""
    if len(ways) == 1:
        only = ways[0]
        return [convolve_backward_into(step.convolve, only.convolution, only.grad_u, grad_tails[0], grad_x, add=False)]
    (one, other), (tail, other_tail) = ways, grad_tails
    gradients = (one.grad_u, other.grad_u), (tail, other_tail)
    return list(backward_both(step.convolve, one.convolution, other.convolution, *gradients, grad_x))


def _differentiate_scan(
    u: Tensor,
    z: Tensor,
    grad_z: Tensor,
    own: bool,
    step: Step,
    inputs: Inputs,
    kept: _Kept,
    grad_outputs: tuple[Tensor | None, ...],
    wanted: Any,
) -> tuple[Tensor, Tensor, Any]:
    """The gradients of u but for what comes through `x_proj`, of what that gave, and of a way's inputs behind both."""
    grad_y, _, grad_memory = (None if tensor is None else tensor.contiguous() for tensor in grad_outputs)
    assert grad_y is not None
    low = kept.low
    assert low is not None
    small = parts(low, inputs)[0]
    delta = F.linear(small, inputs.step_weight) if kept.delta is None else kept.delta
    grad_low = torch.empty(low.shape, dtype=low.dtype, device=low.device)
    grad_small, grad_B, grad_C = parts(grad_low, inputs)
    # What no one reads any more makes room for gradients.
    grad_y = step.own(grad_y)
    of_u = grad_y if own else torch.empty(u.shape, dtype=u.dtype, device=u.device)
    of_delta = delta if kept.delta is None else torch.empty_like(delta)
    targets = ScanTargets(of_u, of_delta, grad_z, grad_B, grad_C, step.add)
    arguments = step.scanned(u, delta, low, z, inputs)
    found = scan_backward_into(step.scan, arguments, kept.scan, grad_y, grad_memory, targets)
    flat = map(_flat, (found.delta, small, inputs.step_weight, grad_small))
    step_weight = backward_skinny(step.scan, *flat)
    of_scan = {"A": found.A, "D": found.D, "step_bias": found.delta_bias, "memory": found.initial_state}
    none: Any = None
    of_products: Any = {"x_weight": none, "step_weight": step_weight if wanted.step_weight else none}
    return found.u, grad_low, Inputs(none, none, none, **of_products, **of_scan)  # type: ignore[arg-type]


def _flat(rows: Tensor) -> Tensor:
    """(batch, length, channels) as a matrix, without a copy."""
    return rows.view(-1, rows.shape[-1])


def _grouped(flat: Any, kind: Any) -> list[Any]:
    size = len(kind._fields)
    return [kind(*flat[start : start + size]) for start in range(0, len(flat), size)]

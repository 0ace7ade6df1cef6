"""The Mamba-1 mixer: projection, short convolution, selective scan, gate, projection."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genossm.core.errors import MethodError
from genossm.nn.config import StackConfig
from genossm.nn.fused import fusable, mix_ways
from genossm.nn.later import LookedUp
from genossm.nn.neighbours import Neighbours
from genossm.nn.norm import at_least_float32
from genossm.nn.recompute import forgettable
from genossm.nn.sized import sizing
from genossm.nn.state import LayerState
from genossm.nn.watching import notice_state, watched
from genossm.nn.ways import Way
from genossm_kernels import causal_conv1d, selective_scan


class StepProjection(nn.Linear):
    """A linear map whose bias waits: the scan adds it in float32, before softplus."""

    def forward(self, input: Float[Tensor, "*any rank"]) -> Float[Tensor, "*any d_inner"]:
        return F.linear(input, self.weight)


class Mamba1(nn.Module):
    """Selective state space with a gate. Parameters carry the names of the authors' code.

    in_proj, out_proj: modules to share with another mixer (tied directions); None makes new ones.
    neighbours: who reads the parts before and after, where a sequence is split over processes (`genossm.parallel`).
    Source: Gu & Dao 2023, "Mamba", figure 3 and algorithm 2.
    """

    neighbours: Neighbours | None = None

    def __init__(
        self, config: StackConfig, *, in_proj: nn.Linear | None = None, out_proj: nn.Linear | None = None
    ) -> None:
        super().__init__()
        d_inner, rank = config.d_inner, config.step_rank
        self.d_state, self.step_rank, self.backend = config.d_state, rank, config.backend
        self.in_proj = in_proj or nn.Linear(config.d_strand, 2 * d_inner, bias=config.proj_bias)
        self.conv1d = nn.Conv1d(d_inner, d_inner, config.d_conv, groups=d_inner, bias=config.conv_bias)
        self.x_proj = nn.Linear(d_inner, rank + 2 * config.d_state, bias=False)
        self.dt_proj = StepProjection(rank, d_inner)
        self.A_log = nn.Parameter(torch.empty(d_inner, config.d_state))
        self.D = nn.Parameter(torch.empty(d_inner))
        self.out_proj = out_proj or nn.Linear(d_inner, config.d_strand, bias=config.proj_bias)
        self._initialize_dynamics(config)

    def forward(
        self, hidden: Float[Tensor, "batch length d_model"], state: LayerState | None = None, *, reverse: bool = False
    ) -> tuple[Float[Tensor, "batch length d_model"], LayerState | None]:
        """Mix along `length`, and give the state after the last processed position; None from a part of a sequence.

        state: what came before the first processed position; None is the beginning of a sequence.
        reverse: run from the last position to the first.
        """
        y, after = self.gated(hidden, state, reverse=reverse)
        return self.out_proj(y), after

    @property
    def outer(self) -> Mamba1:
        """Whose projections lead in and out."""
        return self

    def gated(
        self, hidden: Tensor | LookedUp, state: LayerState | None = None, *, reverse: bool = False
    ) -> tuple[Float[Tensor, "batch length d_inner"], LayerState | None]:
        """`forward` without `out_proj`."""
        projected, ways = self.read(hidden), (Way(self, state, reverse),)
        if fusable(projected, ways):
            y, (after,) = mix_ways(projected, ways)
            return y, after
        x, z = projected.chunk(2, dim=-1)
        return self.mix(x, z, state, reverse=reverse)

    def project(self, hidden: Float[Tensor, "batch length d_model"]) -> tuple[Tensor, Tensor]:
        """`in_proj`: what the convolution reads, and the gate, each (batch, length, d_inner)."""
        x, z = self.read(hidden).chunk(2, dim=-1)
        return x, z

    def read(self, hidden: Tensor | LookedUp) -> Float[Tensor, "batch length two_d_inner"]:
        """Both of `project` in one tensor."""
        if isinstance(hidden, LookedUp):
            return hidden.through(self.in_proj).rows()
        projected = self.in_proj(hidden)
        if type(self.in_proj) is nn.Linear:  # what stands in for it may draw random numbers
            weights = given(self.in_proj.weight, self.in_proj.bias)
            projected = forgettable(projected, "projections", F.linear, hidden, *weights)
        return projected

    def untouched(self) -> bool:
        """Whether all between `in_proj` and `out_proj` is this class's own: nothing replaced, listened to or split."""
        kinds = ((self.conv1d, nn.Conv1d), (self.x_proj, nn.Linear), (self.dt_proj, StepProjection))
        for module, kind in kinds:
            if type(module) is not kind or not (type(module.weight) in (Tensor, nn.Parameter) or sizing()):
                return False
            if watched(module):
                return False
        own = type(self) is Mamba1 and self.x_proj.bias is None
        return own and self.neighbours is None

    def leaves_plainly(self) -> bool:
        """Whether `out_proj` is this class's own, so that its backward pass makes a new gradient for this one alone."""
        return type(self.out_proj) is nn.Linear and not watched(self.out_proj)

    def mix(
        self,
        x: Float[Tensor, "batch length d_inner"],
        z: Float[Tensor, "batch length d_inner"],
        state: LayerState | None = None,
        *,
        reverse: bool = False,
    ) -> tuple[Float[Tensor, "batch length d_inner"], LayerState | None]:
        """The part between `in_proj` and `out_proj`; mixers that share projections call it directly."""
        if self.neighbours is not None:
            return self._mix_part(self.neighbours, x, z, state, reverse=reverse), None
        u, tail = self.convolve(x, None if state is None else state.conv, reverse=reverse)
        delta, B, C = self.dynamics(u)
        y, memory = self.scan(u, delta, B, C, z, None if state is None else state.scan, reverse=reverse)
        notice_state(self, memory)
        return y, LayerState(tail, memory)

    def _mix_part(
        self, neighbours: Neighbours, x: Tensor, z: Tensor, state: LayerState | None, *, reverse: bool
    ) -> Tensor:
        """`mix` of a part of a sequence: what came before it is asked of its neighbours."""
        if state is not None:
            raise MethodError(
                "A model that reads parts of sequences (context parallelism) takes no state: it has it from the other "
                "processes. Leave the state out, or run the model outside genossm.parallel.context_parallel."
            )
        x, before = neighbours.entering_inputs(x, self.conv1d.kernel_size[0] - 1, reverse=reverse)
        u, _ = self.convolve(x, before, reverse=reverse)
        inputs = self._scanned(u, *self.dynamics(u), z)
        y, memory = neighbours.scan(*inputs, reverse=reverse, backend=self.backend)
        notice_state(self, memory)
        return y

    def dynamics(
        self, u: Float[Tensor, "batch length d_inner"]
    ) -> tuple[
        Float[Tensor, "batch length d_inner"],
        Float[Tensor, "batch length d_state"],
        Float[Tensor, "batch length d_state"],
    ]:
        """Step sizes before bias and softplus, and the maps into and out of the state, as the scan reads them."""
        step, B, C = self.x_proj(u).split([self.step_rank, self.d_state, self.d_state], dim=-1)
        delta = self.dt_proj(step)
        if type(self.dt_proj) is StepProjection:
            delta = forgettable(delta, "cheap", F.linear, step, self.dt_proj.weight)
        return delta, B, C

    def scan(
        self,
        u: Tensor,
        delta: Tensor,
        B: Tensor,
        C: Tensor,
        z: Tensor,
        initial_state: Tensor | None,
        *,
        reverse: bool,
    ) -> tuple[Tensor, Tensor]:
        """The selective scan with this layer's parameters: outputs, and the state after the last processed position."""
        return selective_scan(
            *self._scanned(u, delta, B, C, z),
            reverse=reverse,
            initial_state=initial_state,
            return_final_state=True,
            backend=self.backend,
        )

    def _scanned(self, u: Tensor, delta: Tensor, B: Tensor, C: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        """The arguments of the scan in its order."""
        A = -torch.exp(at_least_float32(self.A_log))
        return u, delta, A, B.unsqueeze(2), C.unsqueeze(2), self.D, z, self.dt_proj.bias

    def convolve(self, x: Tensor, tail: Tensor | None, *, reverse: bool) -> tuple[Tensor, Tensor]:
        """The short convolution, and the inputs that a continuation has to see again."""
        weight, bias = self.conv1d.weight.squeeze(1), self.conv1d.bias
        has_bias, options = bias is not None, {"reverse": reverse, "backend": self.backend}
        u, after = causal_conv1d(x, weight, bias, initial_state=tail, return_final_state=True, **options)

        def again(x: Tensor, weight: Tensor, *others: Tensor) -> Tensor:
            bias = others[0] if has_bias else None
            tail = others[-1] if len(others) > has_bias else None
            return causal_conv1d(x, weight, bias, initial_state=tail, **options)

        return forgettable(u, "cheap", again, x, weight, *given(bias, tail)), after

    @torch.no_grad()
    def _initialize_dynamics(self, config: StackConfig) -> None:
        bound = config.dt_scale * config.step_rank**-0.5
        self.dt_proj.weight.uniform_(-bound, bound)
        # softplus(bias) is log-uniform in [dt_min, dt_max]: channels start with memories of different lengths.
        low, high = math.log(config.dt_min), math.log(config.dt_max)
        step = torch.empty_like(self.D).uniform_(low, high).exp().clamp(min=config.dt_init_floor)
        self.dt_proj.bias.copy_(inverse_softplus(step))
        # The real S4D spectrum: -1, -2, ... -d_state in every channel.
        self.A_log.copy_(torch.arange(1, config.d_state + 1, dtype=torch.float32).log().expand_as(self.A_log))
        self.D.fill_(1.0)
        for parameter in (self.dt_proj.bias, self.A_log, self.D):
            # Decay would pull time scales towards one value, and narrow dtypes would round them.
            parameter._no_weight_decay = True  # type: ignore[attr-defined]
            parameter._keep_float32 = True  # type: ignore[attr-defined]


def given(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Those that are there."""
    return tuple(tensor for tensor in tensors if tensor is not None)


def inverse_softplus(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """y with softplus(y) = x, exact for small x: x + log(1 - exp(-x))."""
    return x + torch.log(-torch.expm1(-x))

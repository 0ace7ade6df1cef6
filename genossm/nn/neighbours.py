"""What a mixer asks for where other processes read the rest of its sequence."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float
from torch import Tensor


class Neighbours(Protocol):
    """The other parts of a sequence that is split over processes; `genossm.parallel` has the implementation.

    Both calls are collective: every process of the group makes them, in the same order.
    """

    def entering_inputs(
        self, x: Float[Tensor, "batch length d_inner"], count: int, *, reverse: bool
    ) -> tuple[Float[Tensor, "batch length d_inner"], Float[Tensor, "batch count d_inner"]]:
        """`x`, to be used from here on, and the `count` inputs before its first processed position, oldest first."""
        ...

    def scan(
        self, *inputs: Tensor, reverse: bool, backend: str
    ) -> tuple[Float[Tensor, "batch length d_inner"], Float[Tensor, "batch d_inner d_state"]]:
        """`selective_scan` from the state that the parts before this one leave; and, without a gradient, the state that
        this one leaves.

        inputs: u, delta, A, B, C, D, z, delta_bias, as for `selective_scan`.
        """
        ...

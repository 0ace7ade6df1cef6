"""What a causal stack remembers between two pieces of a sequence; its size does not depend on their length."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genossm.core.errors import InputFileError


@dataclass(frozen=True, eq=False, slots=True)
class LayerState:
    """conv: the last `width - 1` inputs of the convolution, oldest first.   scan: the recurrent state, float32."""

    conv: Float[Tensor, "batch tail d_inner"]
    scan: Float[Tensor, "batch d_inner d_state"]


@dataclass(frozen=True, eq=False, slots=True)
class StackState:
    """One `LayerState` a layer, and how many tokens each row has read.

    A state is never changed in place by a model, so that one prefix can be continued in many ways.
    `positions` stays on the CPU.
    """

    layers: tuple[LayerState, ...]
    positions: Int[Tensor, " batch"]

    @property
    def batch_size(self) -> int:
        return self.positions.shape[0]

    @property
    def position(self) -> int:
        """Tokens read so far, where all rows have read the same number.

        Raises: ValueError if rows differ; look at `positions` then.
        """
        first = int(self.positions[0])
        if not bool((self.positions == first).all()):
            raise ValueError(f"Rows stand at different positions {self.positions.tolist()}; read .positions instead.")
        return first

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        tensors = [self.positions, *(tensor for layer in self.layers for tensor in (layer.conv, layer.scan))]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def clone(self) -> StackState:
        return self._map(torch.Tensor.clone)

    def detach(self) -> StackState:
        """The same numbers, cut off from the graph that computed them (truncated back-propagation)."""
        return self._map(torch.Tensor.detach)

    def to(self, device: torch.device | str) -> StackState:
        """Move to `device`; dtypes stay, since the scan's state is float32 whatever the compute dtype."""
        layers = tuple(LayerState(layer.conv.to(device), layer.scan.to(device)) for layer in self.layers)
        return StackState(layers, self.positions)

    def select(self, rows: Int[Tensor, " chosen"] | Sequence[int]) -> StackState:
        """The states of `rows`, in that order; a row may be asked for more than once."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        return self._map(lambda tensor: tensor.index_select(0, index.to(tensor.device)))

    @staticmethod
    def cat(states: Sequence[StackState]) -> StackState:
        """One batch with the rows of all `states`; they may stand at different positions.

        Raises: ValueError for no states or for states of different models.
        """
        if not states:
            raise ValueError("StackState.cat got no states; it needs at least one.")
        depths = {len(state.layers) for state in states}
        if len(depths) > 1:
            raise ValueError(f"StackState.cat got states of {sorted(depths)} layers; they belong to different models.")
        layers = tuple(
            LayerState(torch.cat([layer.conv for layer in same]), torch.cat([layer.scan for layer in same]))
            for same in zip(*(state.layers for state in states))
        )
        return StackState(layers, torch.cat([state.positions for state in states]))

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write to one safetensors file, whole or not at all.

        Raises: OutputExistsError if `path` exists, without `force`.
        """
        from safetensors.torch import save_file

        from genossm.core.atomic import atomic_file

        tensors = {"positions": self.positions}
        for number, layer in enumerate(self.layers):
            # Copies, since layers may share memory (the initial state does), and a file cannot.
            tensors[f"layers.{number}.conv"] = layer.conv.detach().clone().contiguous()
            tensors[f"layers.{number}.scan"] = layer.scan.detach().clone().contiguous()
        with atomic_file(path, force=force) as temporary:
            save_file(tensors, temporary, metadata={"format": _FORMAT, "layers": str(len(self.layers))})

    @staticmethod
    def load(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> StackState:
        """Read what `save` wrote; the numbers are the same bit for bit.

        Raises: InputFileError if the file is missing, damaged or something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise InputFileError(f"{path} is no saved state (format {metadata.get('format')!r}).")
                layers = tuple(
                    LayerState(file.get_tensor(f"layers.{number}.conv"), file.get_tensor(f"layers.{number}.scan"))
                    for number in range(int(metadata["layers"]))
                )
                return StackState(layers, file.get_tensor("positions")).to(device)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputFileError(
                f"Cannot read the state {path}: {error}. Write it anew with StackState.save."
            ) from error

    def _map(self, change: Callable[[Tensor], Tensor]) -> StackState:
        layers = tuple(LayerState(change(layer.conv), change(layer.scan)) for layer in self.layers)
        return StackState(layers, change(self.positions))


_FORMAT = "genossm-stack-state-1"

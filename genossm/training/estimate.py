"""What a training step will need of memory, before anything runs: the step itself, on tensors without content.

The real model, loss and backward pass run under PyTorch's fake tensors, which have shapes and no memory; every storage
that an operator makes is counted from its birth to its end, and mixers that are fused on a GPU are followed there too.
So the estimate follows the code, whatever it becomes. It does not know of what a CUDA context takes, of what a kernel
of ours takes while it runs, or of what an allocator keeps after it is freed: of what was alive in a step of 98,304
bases on a CPU it was 0.5 % short, and glibc held 5 to 18 % more than that (nothing with MALLOC_MMAP_THRESHOLD_=65536
in the environment). On an H100 five steps of 16,384 to 262,144 bases in bfloat16 took 0.7 to 2.5 % more than
estimated, one of 8,192 took 6 %; on an H200, with earlier kernels, two of 1,048,576 took 1 %.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from genossm.models import SequenceModel
from genossm.models.memory import available_bytes
from genossm.nn import StackConfig
from genossm.nn.recompute import Recompute
from genossm.nn.sized import sizes_alone
from genossm.training.config import TrainConfig

# AdamW keeps two averages a weight, and works on all weights at once with a few temporary copies.
_OPTIMIZER_COPIES, _UPDATE_COPIES = 2, 2
_TARGET_BYTES = 8
# What PyTorch holds for matrix products from the first one on: 0.1 GB on an H200, in steps of any size.
_LIBRARY_BYTES = {"cuda": 3 << 25}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device.

    where: the stage of the run that takes most, as its configuration has it; `data` is the last one.
    activations: what the forward pass keeps for the backward pass.   peak: the most that lives at once in a step,
    everything included.   available: free now, None where nobody tells.
    window: bases.   together: devices that read each window together, so that each has a stretch of it.
    peak_of: the peak at another batch and window, and with so many devices together.   most_together: of these.
    name: "window", or "segment" where windows are read in segments.   waiting: ids and targets of whole windows then.
    library: what PyTorch holds, whatever the step.
    """

    device: str
    batch: int
    window: int
    parameters: int
    gradients: int
    optimizer: int
    activations: int
    peak: int
    available: int | None
    peak_of: Callable[[int, int, int], int] = field(repr=False, compare=False)
    most_together: int
    where: str = "data"
    together: int = 1
    name: str = "window"
    waiting: int = 0
    library: int = 0

    @property
    def fits(self) -> bool | None:
        """Whether the peak is free on the device; None if that is not known."""
        return None if self.available is None else self.peak <= self.available

    @property
    def window_that_fits(self) -> int | None:
        """About the longest window up to this one that fits at this batch; None if not known or none."""
        return self._largest(self.window, self.waiting, lambda size: self.peak_of(self.batch, size, self.together))

    @property
    def batch_that_fits(self) -> int | None:
        """About the largest batch up to this one that fits at this window; None if not known or none."""
        return self._largest(self.batch, 0, lambda size: self.peak_of(size, self.window, self.together))

    @property
    def devices_that_fit(self) -> int | None:
        """How many devices would have to read this window together (run.context_parallel); None as for the window.

        Measured, as layers that read parts of a sequence take more for a base, and so may those that read less.
        """
        if self.available is None or self.available <= self._least(0):
            return None
        together, peak = self.together, self.peak
        while peak > self.available:
            # Rounded down: stretches take as much for a base as longer ones, or more.
            together = max(together + 1, together * (peak - self._fixed) // (self.available - self._fixed))
            if together > self.most_together:
                return None
            peak = self.peak_of(self.batch, self.window, together)
        return together

    @property
    def _fixed(self) -> int:
        """Of a peak, what neither batch nor window changes."""
        return self.parameters + self.gradients + self.optimizer + self.library

    def _least(self, waiting: int) -> int:
        """What the shortest step takes, which updates all weights too."""
        return self._fixed + max(waiting, _UPDATE_COPIES * self.parameters)

    def _largest(self, size: int, waiting: int, peak_of: Callable[[int], int]) -> int | None:
        """The first size down from this one, each by what the last one took, that fits."""
        if self.available is None or self.available <= self._least(waiting):
            return None
        fixed, peak = self._fixed + waiting, self.peak
        while peak > self.available:
            size = size * (self.available - fixed) // (peak - fixed)
            if size < 1:
                return None
            peak = peak_of(size)
        return size

    def lines(self) -> list[str]:
        """A table, and what to change if the step does not fit."""
        rows = [
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations kept for the backward pass", self.activations),
            (f"peak of a step, {self.batch} x {self.window:,} bases{self._over()}", self.peak),
        ]
        if self.available is not None:
            rows.append((f"free on {self.device}", self.available))
        stage = [] if self.where == "data" else [f"The stage that takes most is {self.where}."]
        return [*(f"{name:<45}{size / 1e6:>12,.1f} MB" for name, size in rows), *stage, self._verdict()]

    def _over(self) -> str:
        return f" over {self.together} devices" if self.together > 1 else ""

    def _verdict(self) -> str:
        if self.fits is None:
            return f"Whether it fits is not known: {self.device} does not say what is free."
        return "It fits." if self.fits else f"It does NOT fit. {self.remedy}"

    @property
    def remedy(self) -> str:
        """What to change so that a step fits."""
        longest = self.window_that_fits
        if longest is None:
            return "Nothing fits beside parameters and optimizer: take a smaller model."
        ways = [f"At this batch a {self.name} of {longest:,} bases{self._over()} would ({self.where}.{self.name})"]
        fewer, devices = self.batch_that_fits, self.devices_that_fit
        if fewer is not None and fewer < self.batch:
            ways.append(f"at this {self.name} {fewer} at once ({self.where}.micro_batch)")
        if devices is not None:
            ways.append(f"or this step over {devices} devices that read together (run.context_parallel)")
        return f"{', '.join(ways)}."


def estimate(config: TrainConfig, device: torch.device | None = None) -> MemoryEstimate:
    """Memory of a training step of `config` on one of its devices, in the stage of `data.lengths` that takes most.

    device: where none is given, the one that the run would choose on this machine.
    """
    if device is None:
        gpu = config.run.accelerator != "cpu" and torch.cuda.is_available()
        device = torch.device("cuda" if gpu else "cpu")
    found = [
        _estimate(_Stage(config, device, whole_window), where, batch)
        for where, (batch, whole_window) in _steps(config).items()
    ]
    return max(found, key=lambda estimate: estimate.peak)


@dataclass(frozen=True)
class _Stage:
    """Steps of a run over windows of one length, or over their segments."""

    config: TrainConfig
    device: torch.device
    whole_window: int

    def step(self, batch: int, window: int, together: int) -> StepMemory:
        run = self.config.run
        bf16 = run.precision == "bf16" or (run.precision == "auto" and self.device.type == "cuda")
        # The longest stretch of a window that devices share; what they hand over is next to nothing.
        stretch = -(-window // together)
        return measure_step(
            self.config.stack_config(), batch, stretch, self.device, torch.bfloat16 if bf16 else None, run.recompute,
            # Layers that read parts of a sequence are not fused.
            fused=together == 1,
        )  # fmt: skip

    def waiting(self, batch: int, window: int) -> int:
        """Ids and targets of whole windows, which wait while their segments are read; a step has those of its own."""
        return batch * (1 + _TARGET_BYTES) * (self.whole_window - window if self.segmented else 0)

    @property
    def segmented(self) -> bool:
        segment = self.config.data.segment
        return segment is not None and segment < self.whole_window

    def peak(self, step: StepMemory, batch: int, window: int) -> int:
        optimizer, update = _OPTIMIZER_COPIES * step.parameters, (1 + _UPDATE_COPIES) * step.parameters
        whole = max(step.peak + self.waiting(batch, window), update)
        return step.parameters + optimizer + whole + _LIBRARY_BYTES.get(self.device.type, 0)


def _estimate(stage: _Stage, where: str, batch: int) -> MemoryEstimate:
    together, segment = stage.config.run.context_parallel, stage.config.data.segment
    window = stage.whole_window if segment is None else min(segment, stage.whole_window)
    step = stage.step(batch, window, together)
    return MemoryEstimate(
        str(stage.device),
        batch,
        window,
        parameters=step.parameters,
        gradients=step.parameters,
        optimizer=_OPTIMIZER_COPIES * step.parameters,
        activations=step.activations,
        peak=stage.peak(step, batch, window),
        available=available_bytes(stage.device),
        peak_of=lambda *size: stage.peak(stage.step(*size), *size[:2]),
        most_together=stage.config.most_together,
        where=where,
        together=together,
        name="segment" if stage.segmented else "window",
        waiting=stage.waiting(batch, 0),
        library=_LIBRARY_BYTES.get(stage.device.type, 0),
    )


def _steps(config: TrainConfig) -> dict[str, tuple[int, int]]:
    """Windows at once and their length, in every stage of a run that differs in them, the last stage first."""
    shapes: dict[tuple[int, int], str] = {}
    for where, stage in reversed(list(zip(config.data.stage_names(), config.lengths.stages))):
        share = max(1, stage.batch // config.run.readers)
        shapes.setdefault((min(share, stage.micro_batch or share), stage.window), where)
    return {where: shape for shape, where in shapes.items()}


@dataclass(frozen=True)
class StepMemory:
    """Bytes. activations: alive between forward and backward.   peak: the most alive at once, without parameters."""

    parameters: int
    activations: int
    peak: int


def measure_step(
    config: StackConfig,
    batch: int,
    window: int,
    device: torch.device,
    autocast: torch.dtype | None = None,
    recompute: Recompute | Literal["auto"] = "auto",
    *,
    fused: bool = True,
) -> StepMemory:
    """Run forward and backward of one batch without memory, counting what would live.

    autocast: the dtype of mixed precision, None for float32 throughout.   recompute: as in `run` of a configuration.
    fused: layers are fused where the device does that.
    """
    with FakeTensorMode(), sizes_alone() if fused else nullcontext():
        with device:
            model = SequenceModel(config)
        model.backbone.recompute(recompute)
        parameters = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        with _LiveStorages() as live:
            ids = torch.zeros(batch, window, dtype=torch.uint8, device=device)
            targets = torch.zeros(batch, window, dtype=torch.int64, device=device)
            with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
                # Not the model's own call, which would ask whether a pass fits on this machine.
                logits = model.head(model.backbone.run(ids, None, return_hidden_states=False).last_hidden)
                first = model.tokenizer.base_ids[0]
                loss = F.cross_entropy(logits[..., first : first + 4].reshape(-1, 4).float(), targets.reshape(-1))
            activations = live.now
            loss.backward()
    return StepMemory(parameters, activations, live.peak)


class _LiveStorages(TorchDispatchMode):
    """Counts the bytes of every storage that operators make while it is on.   now, peak: bytes alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size

"""An estimate, before anything runs, of the memory that a pass needs, and a clear error if it is not there."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from genossm.core.errors import MemoryEstimateError
from genossm.nn import StackConfig

# Below this nothing is asked of the operating system: a pass of a short window must not pay for the question.
_SMALL = 1 << 28


def inference_bytes(
    config: StackConfig, batch: int, length: int, *, element_size: int = 4, hidden_states: bool = False
) -> int:
    """Peak bytes of activations of one pass without gradients; a pass with gradients needs several times as much.

    The peak is inside a mixer, where stream, normalised stream, both halves of the input projection, the convolved
    input, step sizes, B, C and the output live at once; the logits come when those have gone.
    element_size: bytes of a number of the compute dtype.
    """
    stream_size = max(element_size, 4) if config.residual_in_fp32 else element_size
    stream = config.d_model * stream_size
    mixer = config.d_model + 5 * config.d_inner + config.step_rank + 2 * config.d_state
    # The output of one direction waits for the other's, that of one strand for the other's.
    mixer += config.d_inner * (config.direction == "bidirectional") + config.d_strand * config.equivariant
    after = config.d_model + config.vocab_size
    # What enters the last block is its stream itself, unless the strands have to be joined for it.
    kept = (config.n_layer - 1 + config.equivariant) * stream if hidden_states else 0
    per_token = stream + kept + max(mixer, after) * element_size
    return batch * length * per_token


def available_bytes(device: torch.device) -> int | None:
    """Free bytes of `device`, None where nobody tells. On a CPU the lesser of the machine's and the control group's."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held_unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held_unused
    if device.type != "cpu":
        return None
    known = [size for size in (_free_by_proc(), _free_by_cgroup()) if size is not None]
    return min(known) if known else _physical()


class PassMemoryError(MemoryEstimateError):
    """A pass that cannot fit.   shortage: what the message says before its remedy, for who knows of a better one."""

    # The message alone has to make one, or it could not come out of another process.
    def __init__(self, message: str, shortage: str = "") -> None:
        super().__init__(message)
        self.shortage = shortage


def require_memory(config: StackConfig, batch: int, length: int, like: Tensor, *, hidden_states: bool = False) -> None:
    """Raise PassMemoryError if a pass over batch x length tokens cannot fit on the device of `like`."""
    size = torch.finfo(like.dtype).bits // 8
    needed = inference_bytes(config, batch, length, element_size=size, hidden_states=hidden_states)
    if needed < _SMALL:
        return
    available = available_bytes(like.device)
    if available is None or needed <= available:
        return
    fits = max(1, int(length * batch * available / needed * 0.8))
    remedy = f"Take a shorter window or a smaller batch, of at most {fits:,} tokens together."
    if config.direction == "causal":
        remedy = (
            f"Read them in segments that hand the state on (genossm.inference.stream, at most {fits:,} tokens at a "
            "time), or take a shorter window or a smaller batch."
        )
    shortage = (
        f"{batch} x {length:,} tokens need about {_readable(needed)} for activations and {like.device} has "
        f"{_readable(available)} free."
    )
    raise PassMemoryError(f"{shortage} {remedy}", shortage)


def require_sweep_memory(config: StackConfig, length: int, segment_length: int, like: Tensor) -> None:
    """Raise MemoryEstimateError if a layer-by-layer pass over one window cannot fit on the device of `like`."""
    size = torch.finfo(like.dtype).bits // 8
    stream = config.d_model * (max(size, 4) if config.residual_in_fp32 else size)
    segment = inference_bytes(config, 1, min(length, segment_length), element_size=size)
    needed = 2 * length * stream + segment
    available = available_bytes(like.device) if needed >= _SMALL else None
    if available is not None and needed > available:
        fits = max(1, int((available - segment) / (2 * stream) * 0.9))
        raise MemoryEstimateError(
            f"A pass both ways over {length:,} tokens needs about {_readable(needed)} and {like.device} has "
            f"{_readable(available)} free. Take a window of at most {fits:,} tokens."
        )


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _free_by_proc() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _free_by_cgroup() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        # Cached file pages count as used, and are given up before anything fails.
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - used + int(statistics.get("inactive_file", 0))


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None

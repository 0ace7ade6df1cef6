"""Operators of state space models, one folder each: a definition, a fast path for CPUs, one for GPUs.

This package knows nothing of genossm and owns its own errors.
"""

from __future__ import annotations

from genossm_kernels.add_norm import add_norm
from genossm_kernels.causal_conv1d import causal_conv1d
from genossm_kernels.errors import BackendUnavailableError, KernelError, ShapeError
from genossm_kernels.selective_scan import selective_scan

__all__ = ["BackendUnavailableError", "KernelError", "ShapeError", "add_norm", "causal_conv1d", "selective_scan"]

"""Layers: mixers, norms, stacks, heads, and the state they carry along a sequence."""

from __future__ import annotations

from genossm.nn.config import StackConfig
from genossm.nn.directions import Bidirectional, BothStrands, join_strands
from genossm.nn.head import LanguageModelHead
from genossm.nn.mamba1 import Mamba1
from genossm.nn.norm import LayerNorm, RMSNorm
from genossm.nn.stack import Block, Stack, StackOutput
from genossm.nn.state import LayerState, StackState

__all__ = [
    "Bidirectional",
    "Block",
    "BothStrands",
    "LanguageModelHead",
    "LayerNorm",
    "LayerState",
    "Mamba1",
    "RMSNorm",
    "Stack",
    "StackConfig",
    "StackOutput",
    "StackState",
    "join_strands",
]

"""Running models: probabilities of bases, long windows in segments, branching from a stored state."""

from __future__ import annotations

from genossm.inference.prefix import Branches, PrefixPass, continuation_log_probabilities, prefix_pass
from genossm.inference.probabilities import log_probabilities, token_log_probabilities
from genossm.inference.strands import both_strand_log_probabilities
from genossm.inference.streaming import SEGMENT_LENGTH, Segment, require_causal, stream

__all__ = [
    "SEGMENT_LENGTH",
    "Branches",
    "PrefixPass",
    "Segment",
    "both_strand_log_probabilities",
    "continuation_log_probabilities",
    "log_probabilities",
    "prefix_pass",
    "require_causal",
    "stream",
    "token_log_probabilities",
]

"""Running models: probabilities of bases, long windows in segments, branching from a stored state."""

from __future__ import annotations

from genossm.inference.embedding import mean_hidden_states
from genossm.inference.hidden_sums import ReadReference, hidden_sums, read_reference
from genossm.inference.masked import masked_log_probabilities, require_masked
from genossm.inference.neighbourhood import boundary_states, masked_log_probabilities_between
from genossm.inference.prefix import Branches, PrefixPass, continuation_log_probabilities, prefix_pass
from genossm.inference.probabilities import log_probabilities, token_log_probabilities
from genossm.inference.strands import both_strand_log_probabilities
from genossm.inference.streaming import SEGMENT_LENGTH, Segment, require_causal, stream

__all__ = [
    "SEGMENT_LENGTH",
    "Branches",
    "PrefixPass",
    "ReadReference",
    "Segment",
    "both_strand_log_probabilities",
    "boundary_states",
    "continuation_log_probabilities",
    "hidden_sums",
    "log_probabilities",
    "masked_log_probabilities",
    "masked_log_probabilities_between",
    "mean_hidden_states",
    "prefix_pass",
    "read_reference",
    "require_causal",
    "require_masked",
    "stream",
    "token_log_probabilities",
]

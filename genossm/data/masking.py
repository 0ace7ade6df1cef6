"""Masked prediction: which bases of a window are hidden, and what stands in their place.

Both are pure functions of a seed and the window's sample number, so they are the same at any worker count and after a
resume, and every window of an epoch gets a mask of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from genossm.core.errors import ConfigError
from genossm.data.batch import IGNORE, Batch, base_targets, stacked_weights
from genossm.data.dataset import WindowItem
from genossm.sequence.tokenizer import NucleotideTokenizer

# The word of the counter that keeps masks apart from windows (0) and from the order of an epoch (1).
_STREAM = 2


@dataclass(frozen=True)
class Masking:
    """fraction: share of the bases A, C, G, T that are targets, each chosen on its own.

    mask: share of the targets that become [MASK].   substitute: share that become a base drawn from A, C, G, T alike,
    which in one of four draws is the base itself, as in BERT. The rest keeps its letter.
    Raises: ConfigError for a share out of range.
    Source: Devlin et al. 2019, "BERT", section 3.1.
    """

    fraction: float = 0.15
    mask: float = 0.8
    substitute: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise ConfigError(f"fraction is {self.fraction}; wanted a share of the bases above 0 and at most 1.")
        # Shares such as 0.7 and 0.3 add up to 1 and a rounding error.
        if not (self.mask >= 0.0 and self.substitute >= 0.0 and self.mask + self.substitute <= 1.0 + 1e-9):
            raise ConfigError(
                f"mask is {self.mask} and substitute {self.substitute}; wanted both at least 0 and together at most 1."
            )


def as_judged(masking: Masking) -> Masking:
    """The same share of targets, all of them [MASK]: how masked models are validated, tested and used."""
    return Masking(masking.fraction, mask=1.0, substitute=0.0)


class MaskedCollator:
    """Input: the window with some bases hidden, no [BOS]. Targets: the hidden bases, IGNORE elsewhere.

    N and special tokens are never targets and never change.
    """

    def __init__(self, tokenizer: NucleotideTokenizer, masking: Masking, seed: int) -> None:
        self.tokenizer, self.masking, self.seed = tokenizer, masking, seed
        self._targets = base_targets(tokenizer)
        self._base_ids = np.array(tokenizer.base_ids, np.uint8)

    def __call__(self, items: Sequence[WindowItem]) -> Batch:
        """Stack windows of one length. Raises: ValueError if lengths differ."""
        # The first token of an item is [BOS], for models that read one way.
        true = np.stack([item.ids[1:] for item in items])
        hidden, shown = zip(*(self._hide(row, item.sample) for row, item in zip(true, items)))
        targets = np.where(np.stack(hidden), self._targets[true], IGNORE)
        return Batch(
            torch.from_numpy(np.stack(shown)),
            torch.from_numpy(targets),
            tuple(item.interval for item in items),
            weights=stacked_weights(items),
        )

    def _hide(self, ids: NDArray[np.uint8], sample: int) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Which places of one window are targets, and its tokens as the model sees them, both (length,)."""
        generator = np.random.Generator(np.random.Philox(key=[self.seed, sample], counter=[0, 0, 0, _STREAM]))
        drawn, fate = generator.random((2, len(ids)))
        bases = self._base_ids[generator.integers(4, size=len(ids))]
        target = (drawn < self.masking.fraction) & (self._targets[ids] != IGNORE)
        masked = target & (fate < self.masking.mask)
        substituted = target & ~masked & (fate < self.masking.mask + self.masking.substitute)
        return target, np.select([masked, substituted], [np.uint8(self.tokenizer.mask_id), bases], ids)

"""What a general compressor makes of a sequence: a floor that knows nothing of DNA."""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genossm.core.errors import ConfigError
from genossm.evaluation.markov import UNKNOWN, base_codes
from genossm.sequence.interval import Interval

if TYPE_CHECKING:
    from genossm.genome import Genome

_PRESET = 9 | lzma.PRESET_EXTREME


@dataclass(frozen=True)
class Compressed:
    """name: how.   bits: of the compressed stream a base, headers included.   bases: A, C, G and T in the regions."""

    name: str
    bits: float
    bases: int


def compress_regions(genome: Genome, regions: Sequence[Interval]) -> list[Compressed]:
    """Bits per base of xz (LZMA2, preset 9 extreme, a stream a region) on letters, and on four bases a byte.

    Letters: one upper-case ASCII byte a base. Packed: two bits a base, the first base in the highest bits, the last
    byte filled with zeros. Two bits a base is what packing alone gives.
    Raises: ConfigError if a region holds a letter other than A, C, G, T, which packing has no code for.
    """
    letters, packed, bases = 0, 0, 0
    for region in regions:
        sequence = genome.fetch_array(region)
        codes = base_codes(sequence)
        if (codes == UNKNOWN).any():
            raise ConfigError(f"{region} holds letters other than A, C, G and T. Choose regions without.")
        letters += len(lzma.compress(sequence.tobytes(), preset=_PRESET))
        packed += len(lzma.compress(pack(codes).tobytes(), preset=_PRESET))
        bases += len(region)
    return [
        Compressed("xz -9e, a byte a base", 8 * letters / bases, bases),
        Compressed("xz -9e, four bases a byte", 8 * packed / bases, bases),
    ]


def pack(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(ceil(length / 4),) four codes of 0..3 a byte, the first in the highest bits."""
    padded = np.zeros(-(-len(codes) // 4) * 4, np.uint8)
    padded[: len(codes)] = codes
    return (padded.reshape(-1, 4) @ np.array([64, 16, 4, 1], np.uint8)).astype(np.uint8)


def run_compressors(genome_path: str, regions: Sequence[str]) -> list[Compressed]:
    """Open and compress: what `genossm evaluate compressors` does."""
    import genossm.genome
    from genossm.data.regions import parse_regions

    with genossm.genome.open(genome_path) as genome:
        return compress_regions(genome, parse_regions(genome, regions))

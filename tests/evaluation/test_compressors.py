"""Bits of xz: what a stream takes, over the bases in it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import genossm.genome
from genossm.cli.main import main
from genossm.core.errors import ConfigError
from genossm.evaluation.compressors import compress_regions, pack
from genossm.sequence.interval import Interval
from genossm.testing.toy import random_sequence, write_fasta


def test_packing_puts_the_first_base_highest() -> None:
    assert pack(np.array([0, 1, 2, 3, 3], np.uint8)).tolist() == [0b00011011, 0b11000000]


def test_sizes_are_those_of_the_program_and_repeats_cost_nothing(tmp_path: Path) -> None:
    noise, repeat = random_sequence(20_000), random_sequence(50, seed=1) * 400
    path = write_fasta(tmp_path / "toy.fa", {"noise": noise, "repeat": repeat, "n": b"ACGNACGT"})
    (tmp_path / "letters").write_bytes(noise)
    try:
        done = subprocess.run(["xz", "-9e", "-c", tmp_path / "letters"], capture_output=True, check=True)
        size = len(done.stdout)
    except FileNotFoundError:
        pytest.skip("there is no xz here to compare with")
    with genossm.genome.open(path) as genome:
        letters, packed = compress_regions(genome, [Interval("noise", 0, 20_000)])
        assert abs(letters.bits * 20_000 / 8 - size) <= 8
        assert 2.0 < packed.bits < 2.1
        assert all(found.bits < 0.1 for found in compress_regions(genome, [Interval("repeat", 0, 20_000)]))
        with pytest.raises(ConfigError, match="other than A, C, G and T"):
            compress_regions(genome, [Interval("n", 0, 8)])
    printed = CliRunner().invoke(main, ["evaluate", "compressors", "-f", str(path), "--region", "noise"]).stdout
    assert printed.splitlines()[1] == f"xz -9e, four bases a byte\t{packed.bits:.4f}\t20000"

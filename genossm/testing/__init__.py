"""Toy genomes and, in `genossm.testing.strategies`, hypothesis strategies: for tests of your own extensions."""

from __future__ import annotations

from genossm.testing.toy import random_sequence, repetitive_sequence, toy_genome, write_fasta

__all__ = ["random_sequence", "repetitive_sequence", "toy_genome", "write_fasta"]

"""Cuts channels into blocks that one task walks alone: of one group, of one direction, a few vectors wide."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor


class Blocks(NamedTuple):
    """The blocks of one layout of channels.

    table: int64 (number, 6): first channel, number of channels, group, reverse (0 or 1), first lane, and the block's
        number within its group. Lanes number the channels with every block padded to whole vectors.
    lanes: their number over all blocks.   slots: the largest number of blocks in a group.
    uniform: every group has `slots` blocks.
    """

    table: Tensor
    number: int
    lanes: int
    slots: int
    uniform: bool


@functools.lru_cache(maxsize=256)
def cut(channels: int, groups: int, reverse: tuple[bool, ...], lane_count: int, vectors: int) -> Blocks:
    """Blocks of at most `vectors` vectors of `lane_count` lanes."""
    rows = _rows(channels, groups, reverse, lane_count, vectors)
    in_group = [sum(row[2] == group for row in rows) for group in range(groups)]
    table = torch.tensor(rows, dtype=torch.int64)
    return Blocks(table, len(rows), _lanes(rows, lane_count), max(in_group), min(in_group) == max(in_group))


def lanes(channels: int, groups: int, reverse: tuple[bool, ...], lane_count: int, vectors: int) -> int:
    """`cut(...).lanes` without a tensor, for where tensors are imagined: a table made there must not be remembered."""
    return _lanes(_rows(channels, groups, reverse, lane_count, vectors), lane_count)


def _lanes(rows: list[tuple[int, ...]], lane_count: int) -> int:
    _, count, _, _, first_lane, _ = rows[-1]
    return first_lane + -(-count // lane_count) * lane_count


def _rows(
    channels: int, groups: int, reverse: tuple[bool, ...], lane_count: int, vectors: int
) -> list[tuple[int, ...]]:
    group_size, direction_size = channels // groups, channels // len(reverse)
    edges = sorted({*range(0, channels, group_size), *range(0, channels, direction_size)})
    rows: list[tuple[int, ...]] = []
    blocks_in_group = [0] * groups
    lanes = 0
    for start, stop in zip(edges, [*edges[1:], channels], strict=True):
        group = start // group_size
        for first in range(start, stop, vectors * lane_count):
            count = min(vectors * lane_count, stop - first)
            rows.append((first, count, group, int(reverse[first // direction_size]), lanes, blocks_in_group[group]))
            lanes += -(-count // lane_count) * lane_count
            blocks_in_group[group] += 1
    return rows

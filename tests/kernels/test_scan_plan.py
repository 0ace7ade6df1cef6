"""The plan of forward scans against times measured on an H100."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genossm_kernels.selective_scan.cuda_blocks import Rows, SegmentBlocks, balanced_length
from genossm_kernels.selective_scan.cuda_plan import Plan, Shape, plan_for

# Microseconds of an H100 forward, 512 channels, bfloat16, by steps of a segment.
SEGMENT_TIMES = {
    2**17: {128: 750, 256: 734, 384: 819, 512: 740, 640: 918, 768: 832, 1024: 748, 1408: 1015, 1792: 1288, 2048: 896},
    2**20: {128: 5676, 256: 5541, 384: 5484, 512: 5553, 640: 5427, 768: 5462, 1024: 5551, 1408: 5718, 1792: 5494},
}


@pytest.mark.parametrize("length", SEGMENT_TIMES)
def test_segments_take_as_long_as_the_plan_has_it(length: int) -> None:
    """Ratios within 5 %, and the length that is taken within 5 % of the fastest that was measured."""
    device: Any = SimpleNamespace(multiprocessors=132, shared_bytes_per_block=227 * 1024)
    blocks = SegmentBlocks.of(device, Rows(padded_state=16, run_length=512, item_size=2, aligned_maps=True))
    measured = SEGMENT_TIMES[length]
    expected = {steps: blocks.time(device, steps, -(-length // steps)) for steps in measured}
    for steps, time in measured.items():
        assert expected[steps] / expected[256] == pytest.approx(time / measured[256], rel=0.05)
    assert measured[balanced_length(device, length, 1, blocks, None)] <= 1.05 * min(measured.values())


TURNS = Path(__file__).parents[2] / "kernels" / "benchmarks" / "results" / "h100_turns.jsonl"


def plan(
    channels: int,
    length: int,
    *,
    dtype: str = "bfloat16",
    way: str = "one",
    shared_bytes: int = 227 * 1024,
    clusters: bool = True,
) -> Plan:
    device = SimpleNamespace(multiprocessors=132, shared_bytes_per_block=shared_bytes, clusters=clusters)
    options = {"softplus": True, "gate": True, "packed": False, "aligned": True, "aligned_maps": True}
    options |= {"backward": False, "adds": way == "adding", "both": way == "both"}
    shape = Shape(getattr(torch, dtype), 1, length, channels, 16, 1, 1, **options)
    return plan_for.__wrapped__(device, shape)  # type: ignore[arg-type]


def test_turns_fit_the_device() -> None:
    """Never where no block fits, as turns of 8 channels and 12 warps do not beside what outputs are added to."""
    for channels in (128, 256, 512, 1024, 2048):
        for clusters in (False, True):
            chain = plan(channels, 2048, clusters=clusters, way="adding").chain
            assert chain is not None
            assert chain.tiles * chain.turns.channels == channels
            assert chain.shared_bytes + chain.adding_bytes <= 227 * 1024
            assert clusters or chain.turns.cluster == 1
        assert (plan(channels, 2**20).chain is not None) == (channels >= 1024)
    assert plan(512, 2048, shared_bytes=16 * 1024).chain is None
    alone, adding = plan(512, 2**14).chain, plan(512, 2**14, way="adding").chain
    assert alone is not None
    assert adding is not None
    assert (alone.turns.warps, adding.turns.warps) == (12, 8)


def test_what_is_chosen_is_nearly_the_fastest_that_was_measured() -> None:
    """Rows of kernels/benchmarks/turns.py: 2 % slower in the mean, 25 % at worst."""
    rows = {}
    for line in TURNS.read_text().splitlines():
        row = json.loads(line)
        rows[row["dtype"], row["way"], row["channels"], row["length"]] = row
    assert len(rows) > 300
    slower = {at: taken(rows, *at) / fastest(rows, *at) for at in rows}
    assert max(slower.values()) < 1.25, max(slower, key=lambda at: slower[at])
    assert math.fsum(map(math.log, slower.values())) / len(slower) < math.log(1.02)


def taken(rows: dict[Any, Any], dtype: str, way: str, channels: int, length: int) -> float:
    """Microseconds of what the plan takes; of both directions that may be two calls."""
    chain = plan(channels, length, dtype=dtype, way=way).chain
    row = rows[dtype, way, channels, length]
    if chain is not None:
        turns = chain.turns
        return row["turns"][f"{turns.channels}.{turns.warps}.{turns.cluster}.{turns.steps}"]
    if way == "both":
        return sum(taken(rows, dtype, each, channels, length) for each in ("one", "adding"))
    return row["segments"]


def fastest(rows: dict[Any, Any], dtype: str, way: str, channels: int, length: int) -> float:
    row = rows[dtype, way, channels, length]
    least = min(row["turns"].values())
    if way == "both":
        return min(least, sum(fastest(rows, dtype, each, channels, length) for each in ("one", "adding")))
    return min(least, row["segments"])

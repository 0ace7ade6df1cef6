"""Times every shape of turns on a GPU, and fits the times by which `cuda_turns` chooses among them.

    python kernels/benchmarks/turns.py --commit $(git rev-parse HEAD)    # rows to results/h100_turns.jsonl
    python kernels/benchmarks/turns.py --fit                             # what those rows make of `TIMES`

Of both directions `segments` are two calls, the second adding to the first's outputs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from run import inputs, installed
from timing import Call, once, replay_of

from genossm_kernels import kinds
from genossm_kernels.selective_scan import cuda, cuda_plan
from genossm_kernels.selective_scan.both import forward_both
from genossm_kernels.selective_scan.contract import ScanArguments
from genossm_kernels.selective_scan.cuda_turns import LONGER, TIMES, Chain, Turns, chain_of, rounds, waves

ROWS = Path(__file__).parent / "results" / "h100_turns.jsonl"
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
WAYS = ("one", "adding", "both")
CHANNELS = (128, 256, 384, 512, 1024, 2048)
LENGTHS = (256, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 16_384, 65_536, 1_048_576)
MOST_ELEMENTS = 2**30
REPEATS, FEW_REPEATS, LONG = 9, 3, 65_536
NEAR = 1.2  # times the fastest: farther points say nothing about which shape to take
LEAST = 0.75  # of a round: in less of one smaller shapes are faster
PROCESSES = 12

Name = str  # of a shape: channels.warps.cluster.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", help="the commit that is measured")
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--fit", action="store_true", help="print what is to stand in `TIMES`; needs no GPU")
    options = parser.parse_args()
    if options.fit:
        rows = [json.loads(line) for line in options.out.read_text().splitlines()]
        for turns, (start, each) in fitted(rows).items():
            print(f"    {turns}: ({start:.1f}, {each:.2f}),")
        return
    if options.commit is None:
        parser.error("--commit is wanted, as is a GPU; or --fit")
    jobs = [(dtype, way, turns) for dtype in DTYPES for way in WAYS for turns in TIMES]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:  # compiles what the cache lacks
        pool.starmap(compile_one, jobs, chunksize=1)
    stamp = {"commit": options.commit, "gpu": torch.cuda.get_device_name(), "torch": installed("torch")}
    with options.out.open("a") as out:
        for row in measurements():
            out.write(json.dumps(stamp | row) + "\n")


def compile_one(dtype: str, way: str, turns: Turns) -> None:
    call, _ = call_of(dtype, way, 128, 256)
    taken = chain(turns, way, dtype, 128)
    if fits(taken, way):
        with taking(taken):
            call()


def measurements() -> Iterator[dict[str, Any]]:
    for dtype in DTYPES:
        for way in WAYS:
            for channels in CHANNELS:
                for length in (length for length in LENGTHS if channels * length <= MOST_ELEMENTS):
                    row = {"dtype": dtype, "way": way, "channels": channels, "length": length}
                    yield row | times_at(**row)
                torch.cuda.empty_cache()


def times_at(dtype: str, way: str, channels: int, length: int) -> dict[str, Any]:
    """Microseconds of segments and of each shape that fits, all of which have to give the same."""
    call, outputs = call_of(dtype, way, channels, length)
    repeats = FEW_REPEATS if length >= LONG else REPEATS
    found: dict[Name, float] = {}
    with taking(None):
        segments, wanted = timed(call, repeats), outputs()
    for turns in TIMES:
        taken = chain(turns, way, dtype, channels)
        if not fits(taken, way):
            continue
        with taking(taken):
            found[name_of(turns)] = timed(call, repeats)
            error = ((outputs() - wanted).norm() / wanted.norm()).item()
        if not error < 4e-3:
            sys.exit(f"{turns} is off by {error:.1e} at {dtype}, {way}, {channels} x {length}")
    return {"segments": segments, "turns": found}


@contextmanager
def taking(chosen: Chain | None) -> Iterator[None]:
    """Calls inside are planned so."""
    with mock.patch.object(cuda_plan, "_chain", return_value=chosen):
        cuda_plan.plan_for.cache_clear()
        kinds.forget_all()
        yield


def timed(call: Call, repeats: int) -> float:
    """A median of replayed CUDA graphs."""
    times = 4 if repeats == REPEATS else 1
    replay = replay_of(call, times)
    return round(1e3 * statistics.median(once(replay) / times for _ in range(repeats)), 2)


def call_of(dtype: str, way: str, channels: int, length: int) -> tuple[Call, Callable[[], torch.Tensor]]:
    """A call, and what gives its outputs from nothing."""
    given = inputs(length, channels, "trained")
    given = {
        name: given[name].to(DTYPES[dtype]) if name in ("u", "delta", "B", "C", "z") else given[name] for name in given
    }
    forth, back = (
        ScanArguments(**given, delta_softplus=True, reverse=(reverse,), initial_state=None, seq_idx=None)
        for reverse in (False, True)
    )
    y = torch.zeros_like(given["u"])

    def call() -> None:
        if way == "both":
            forward_both(cuda, forth, back, y, need_backward=False)  # type: ignore[arg-type]
        else:
            cuda.forward(forth, need_backward=False, y=y, add=way == "adding")

    def outputs() -> torch.Tensor:
        y.zero_()
        call()
        return y.double()

    return call, outputs


def chain(turns: Turns, way: str, dtype: str, channels: int) -> Chain:
    return chain_of(turns, DTYPES[dtype].itemsize, 16, 1 + (way == "both"), channels)


def fits(taken: Chain, way: str) -> bool:
    most = torch.cuda.get_device_properties(0).shared_memory_per_block_optin
    return taken.shared_bytes + (way != "one") * taken.adding_bytes <= most


def name_of(turns: Turns) -> Name:
    return f"{turns.channels}.{turns.warps}.{turns.cluster}.{turns.steps}"


def fitted(rows: list[dict[str, Any]]) -> dict[Turns, tuple[float, float]]:
    """Lines through times over rounds, relative errors least, where the choice among shapes is close. Not of both
    directions, whose turns wait for each other's outputs besides."""
    h100: Any = SimpleNamespace(multiprocessors=132)
    found = {}
    for turns in TIMES:
        points = []
        for row in rows:
            time, fastest = row["turns"].get(name_of(turns)), min(row["segments"], *row["turns"].values())
            if row["way"] == "both" or time is None or time > NEAR * fastest or row["length"] < LEAST * turns.round:
                continue
            if waves(h100, chain(turns, row["way"], row["dtype"], row["channels"])) == 1:
                longer = LONGER[row["dtype"] == "float32", row["way"] == "adding"]
                points.append((rounds(turns, row["length"]), time / longer))
        x, y = np.array(points).T
        each, start = np.polyfit(x, y, 1, w=1 / y)
        found[turns] = (float(start), float(each))
    return found


if __name__ == "__main__":
    main()
